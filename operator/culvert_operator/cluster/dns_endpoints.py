"""external-dns's DNSEndpoint objects of one namespace, for the DNS package.

Responsible for: reading and writing them, and a sentence for an API server that has no such kind. Must not know: what
they hold. Invariant: every write carries the version that was read, so that of two writers one is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import LoginError, log_in
from culvert_operator.cluster.kinds import DNS_ENDPOINT
from culvert_operator.dns.provider import ProviderError

PAGE = 500


@asynccontextmanager
async def opened(namespace: str) -> AsyncIterator[DNSEndpointObjects]:
    """Those of the cluster that KUBECONFIG or the service account names, for a command line. Raises LoginError."""
    client = Client(log_in)
    try:
        yield DNSEndpointObjects(client, namespace)
    finally:
        await client.close()


class DNSEndpointObjects:
    """See the module; a :class:`culvert_operator.dns.provider.Objects`."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """Every object of the namespace. Raises ProviderError."""
        found: list[Mapping[str, Any]] = []
        query = {"limit": str(PAGE)}
        while True:
            try:
                answer = await self._client.request("GET", DNS_ENDPOINT.path(self._namespace), query=query)
            except APIError as error:
                raise self._said("cannot be listed", error) from error
            except LoginError as error:
                raise ProviderError(str(error)) from error
            found += answer.get("items") or []
            more = (answer.get("metadata") or {}).get("continue")
            if not more:
                return found
            query = {"limit": str(PAGE), "continue": more}

    async def create(self, body: Mapping[str, Any]) -> bool:
        """Make an object; False when there is one of its name. Raises ProviderError."""
        return await self._written(self._client.create(DNS_ENDPOINT, self._namespace, body))

    async def patch(self, name: str, body: Mapping[str, Any]) -> bool:
        """Merge into an object that still has the body's uid and resourceVersion; False when it has not."""
        return await self._written(self._client.patch(DNS_ENDPOINT, self._namespace, name, body))

    async def delete(self, name: str, *, uid: str, version: str) -> bool:
        """Delete an object that is still the one that was read; False when it is not."""
        return await self._written(
            self._client.delete(DNS_ENDPOINT, self._namespace, name, uid=uid, resource_version=version)
        )

    async def _written(self, request: Awaitable[Any]) -> bool:
        try:
            await request
        except APIError as error:
            if error.conflict or error.status == 404:
                return False
            raise self._said("cannot be written", error) from error
        return True

    def _said(self, what: str, error: APIError) -> ProviderError:
        if error.status == 404:
            return ProviderError(
                "this cluster has no DNSEndpoint objects: install external-dns's CustomResourceDefinition "
                f"{DNS_ENDPOINT.plural}.{DNS_ENDPOINT.group}, or choose another provider."
            )
        said = f"the DNSEndpoint objects of {self._namespace} {what}: {error}"
        return ProviderError(said, retry_after=error.retry_after or 0.0)

"""One small story of an operator's life, told through a proxy that may commit a fault, and what it comes to.

The story: a Tunnel with DNS and two bindings of two hostnames; one hostname is renamed; a child is deleted by hand; the
Service is deleted and comes back with another port; one binding is deleted; the Tunnel is deleted. Everything is made
while the operator watches, so that every telling has the same events. The operator runs inside the test's own loop, so
that a crash (all connections cut, then all of its memory gone) costs no process. A connector that obeys reports each
configuration as applied.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from culvert_ingress.document import SCHEMAS
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import Access
from culvert_operator.cluster.kinds import Kind
from culvert_operator.flags import Settings
from culvert_operator.main import Operator
from culvert_operator.options import Options

from .fault_proxy import Fault, Proxy
from .relay_ear import RelayEar
from .ways import Ways

STEP_SECONDS = 60.0
NEWS_SECONDS = 15.0
WATCHED = {
    kind.plural
    for kind in (
        *(kinds.TUNNEL, kinds.BINDING, kinds.CLAIM, kinds.NAMESPACE, kinds.SERVICE, kinds.CONFIG_MAP, kinds.POD),
        *kinds.CHILDREN,
    )
}
FOREIGN = "taken IN A 192.0.2.99 ; somebody else's\n"
ZONE = """\
; by hand
$TTL 3600
@  IN SOA ns.{zone}. hostmaster.{zone}. 7 7200 3600 1209600 300
   IN NS ns
ns IN A 192.0.2.53
"""


ENDING = WATCHED - {kinds.NAMESPACE.plural, kinds.AUTOSCALER.plural}
"""Of these something is deleted in the story. An autoscaler it has none."""


@dataclass
class Story:
    """One telling. ``number`` makes its names unlike any other's."""

    ways: Ways
    number: int
    fault: Fault | None = None
    ear: RelayEar | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"fault{self.number}x"
        self.zone = f"{self.name}.example.com"
        self.proxy = Proxy(self.ways.server, self.ways.proxy_tls, self.rename, self.fault)
        self.client = Client(self.ways.administrator)
        self._operator: asyncio.Task[None] | None = None
        self._over = False

    def rename(self, text: str) -> str:
        """Without what is different in every telling."""
        return text.replace(self.name, "NAME")

    async def tell(self) -> dict[str, Any]:
        """From nothing to the end; the states that it came to before the Tunnel was deleted, and after."""
        async with self.living():
            early = self.fault is not None and self.fault.early
            for step in (self._watched, self._begin, self._rename, self._tamper, self._reroute, self._delete):
                if step == (self._begin if early else self._rename):
                    self.proxy.armed.set()  # most faults of watches come after the start
                await self._within(step)
            served = await self.state()
            self.proxy.ending.set()
            await self._within(self._end)
            return {"served": served, "ended": await self.state()}

    async def _within(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await step()
        except TimeoutError:
            self.failures.append(f"{step.__name__} did not come to its end")
            raise

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """With an operator behind the proxy, and a connector; afterwards everything is taken away."""
        await self.proxy.start()
        keeper = asyncio.ensure_future(self._keep_running())
        try:
            async with self._connector():
                yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._end_operator()
            await self.proxy.stop()
            await self._clean()
            self._over = True
            await self.client.close()

    # The operator.

    async def _keep_running(self) -> None:
        while True:
            # Several stories are told at once: each operator sees its own, and all see each other's claims.
            options = Options(namespace=self.name, image="culvert:test", watch_namespaces=(self.name,))
            settings = Settings(options=options, listen=("127.0.0.1", 0), watch_seconds=2.0)
            operator = Operator(settings, log_in=self._log_in)
            self._operator = asyncio.ensure_future(operator.run())
            crash = asyncio.ensure_future(self.proxy.crashed.wait())
            try:
                await asyncio.wait((self._operator, crash), return_when=asyncio.FIRST_COMPLETED)
            finally:
                crash.cancel()
            if self._operator.done():
                self.failures.append(f"the operator ended by itself: {self._operator.exception()!r}")
                return
            await self._end_operator()
            await self.proxy.start()

    async def _log_in(self) -> Access:
        return Access(self.proxy.url, None, {"Authorization": f"Bearer {self.ways.token}"})

    async def _end_operator(self) -> None:
        if self._operator is not None:
            self._operator.cancel()
            await asyncio.gather(self._operator, return_exceptions=True)

    # The connector.

    @contextlib.asynccontextmanager
    async def _connector(self) -> Any:
        """A Pod's status address on which the present configuration is always applied."""
        # Several processes may tell stories at once.
        address = f"127.{20 + os.getpid() % 230}.{self.number // 250 % 250}.{1 + self.number % 250}"
        app = web.Application()
        app.router.add_get("/v1/status", self._report)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, address, 20241).start()
        serve = asyncio.ensure_future(self._give_address(address))
        try:
            yield
        finally:
            serve.cancel()
            await asyncio.gather(serve, return_exceptions=True)
            await runner.cleanup()

    async def _report(self, request: web.Request) -> web.Response:
        for _ in range(10):  # a long poll of a second
            if self._over:
                return web.Response(status=503)
            document = await self._document()
            tag = f'"{document["version"] if document else 0}"'
            if tag != request.headers.get("If-None-Match"):
                break
            await asyncio.sleep(0.1)
        else:
            return web.Response(status=304, headers={"ETag": tag})
        version = document["version"] if document else 0
        session = {"relay": "r", "address": "192.0.2.1:443", "slot": 0, "state": "connected", "probed": True}
        report = {
            "connectorId": "obedient",
            "version": "0.1.0",
            "schemas": list(SCHEMAS),
            "ready": version > 0,
            "draining": False,
            "appliedVersion": version,
            "configError": None,
            "keyId": "",
            "credentialExpiresAt": 0,
            "sessions": [session | {"grantVersion": version}],
            "refusedHostnames": [],
            "relayErrors": [],
        }
        return web.json_response(report, headers={"ETag": tag})

    async def _give_address(self, address: str) -> None:
        """The Deployment's Pod becomes ready at ``address``, as a kubelet would say."""
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
        while True:
            listed = await self.client.request("GET", kinds.POD.path(self.name))
            for pod in listed["items"]:
                if not pod.get("status", {}).get("podIP"):
                    with contextlib.suppress(APIError):
                        await self.client.patch(
                            kinds.POD, self.name, pod["metadata"]["name"], {"status": status}, subresource="status"
                        )
            await asyncio.sleep(0.2)

    async def _document(self) -> Any:
        found = await self.client.get(kinds.CONFIG_MAP, self.name, "main-config")
        data = (found or {}).get("binaryData") or {}
        return json.loads(gzip.decompress(base64.b64decode(data["config.json.gz"]))) if data else None

    # The steps.

    async def _watched(self) -> None:
        # What is made from here on comes by a watch, and in no first list.
        async def listed() -> bool:
            return self.proxy.listed.keys() >= WATCHED

        await self._until(listed)

    async def _begin(self) -> None:
        await self.lay_out(self.tunnel_spec(), self.rules("old"))
        await self._until(lambda: self._ready("first", "old"))
        await self._until(lambda: self._ready("second", "second"))

    async def lay_out(self, tunnel: Any, first: Any) -> None:
        """Create everything: with these specs of the Tunnel and the first binding."""
        await self.client.create(kinds.NAMESPACE, None, {"metadata": {"name": self.name}})
        zone = {"db": ZONE.format(zone=self.zone) + FOREIGN, "other": "left alone"}
        await self.client.create(kinds.CONFIG_MAP, self.name, {"metadata": {"name": "zone"}, "data": zone})
        if self.ear is not None:
            authority = {"metadata": {"name": "relay-ca"}, "data": {"ca.crt": self.ear.authority}}
            await self.client.create(kinds.CONFIG_MAP, self.name, authority)
        await self._serve_at(80)
        await self._create(kinds.TUNNEL, "main", tunnel)
        await self._create(kinds.BINDING, "first", first)
        await self._create(kinds.BINDING, "second", self.rules("second"))

    async def _serve_at(self, port: int) -> None:
        service = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": port}]}
        await self.client.create(kinds.SERVICE, self.name, {"metadata": {"name": "web"}, "spec": service})

    def tunnel_spec(self) -> dict[str, Any]:
        """The Tunnel of the story."""
        return {
            "relay": self.ear.relay("relay-ca") if self.ear is not None else {"addresses": ["relay.example.net:443"]},
            "connector": {"replicas": 1},
            "grants": [{"namespaces": {"from": "All"}, "hostnames": [f"*.{self.zone}"]}],
            "dns": {
                "zonefile": {"configMapRef": {"name": "zone", "key": "db"}, "zone": self.zone},
                "target": {"addresses": ["192.0.2.80"]},
            },
        }

    async def _rename(self) -> None:
        await self.client.patch(kinds.BINDING, self.name, "first", {"spec": self.rules("new")})
        await self.settled("first", "new")

    async def settled(self, binding: str, host: str) -> None:
        """Until a binding that was renamed is Ready with its new hostname, and the old one is gone."""
        await self._until(lambda: self._ready(binding, host))
        await self._until(lambda: self._unpublished("old"))

    async def _tamper(self) -> None:
        found = await self.client.get(kinds.ROLE, self.name, "main-connector")
        assert found is not None
        uid = found["metadata"]["uid"]
        await self.client.delete(kinds.ROLE, self.name, "main-connector", uid=uid)

        async def back() -> bool:
            again = await self.client.get(kinds.ROLE, self.name, "main-connector")
            return again is not None and again["metadata"]["uid"] != uid

        await self._until(back)

    async def _reroute(self) -> None:
        found = await self.client.get(kinds.SERVICE, self.name, "web")
        assert found is not None
        await self.client.delete(kinds.SERVICE, self.name, "web", uid=found["metadata"]["uid"])
        await self._until(lambda: self._resolved(False))
        await self._serve_at(8080)
        await self._until(lambda: self._resolved(True))
        await self._until(lambda: self._ready("first", "new"))

        async def routed() -> bool:
            document = await self._document()
            return document is not None and "8080" in json.dumps(document["rules"])

        await self._until(routed)

    async def _resolved(self, wanted: bool) -> bool:
        found = await self.client.get(kinds.BINDING, self.name, "first")
        return found is not None and _true(found["status"], "ResolvedRefs") == wanted

    async def _end(self) -> None:
        found = await self.client.get(kinds.TUNNEL, self.name, "main")
        assert found is not None
        await self.client.delete(kinds.TUNNEL, self.name, "main", uid=found["metadata"]["uid"])
        await self._until(self._ended)

        # The last news of what is gone may still be on its way to the operator.
        def told() -> bool:
            return self.proxy.fired if self.fault is not None else (+self.proxy.watched_gone).keys() >= ENDING

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEWS_SECONDS):
                while not told():  # noqa: ASYNC110 (what the proxy forwards has no event)
                    await asyncio.sleep(0.05)
        await self._until(self._ended)

    async def _ended(self) -> bool:
        """Whether the Tunnel is gone with all that it had, and the binding that is left knows."""
        if await self.client.get(kinds.TUNNEL, self.name, "main") is not None:
            return False
        state = await self.state()
        first = await self.client.get(kinds.BINDING, self.name, "first") or {}
        accepted = {c["type"]: c["message"] for c in first["status"]["conditions"]}["Accepted"]
        published = f"new.{self.zone}" in await self._zone()
        gone = not (state["children"] or state["claims"] or published)
        return gone and accepted.endswith("does not exist.") and not first["status"].get("tunnels")

    async def _delete(self) -> None:
        found = await self.client.get(kinds.BINDING, self.name, "second")
        assert found is not None
        await self.client.delete(kinds.BINDING, self.name, "second", uid=found["metadata"]["uid"])

        async def gone() -> bool:
            return await self.client.get(kinds.BINDING, self.name, "second") is None

        await self._until(gone)
        await self._until(lambda: self._unpublished("second"))
        await self._until(lambda: self._ready("first", "new"))
        await self._until(self._counted)

    async def _counted(self) -> bool:
        tunnel = await self.client.get(kinds.TUNNEL, self.name, "main")
        status = (tunnel or {}).get("status", {})
        return status.get("bindings", {}).get("accepted") == 1 and _true(status, "Ready")

    def rules(self, host: str) -> dict[str, Any]:
        """A binding's spec with one rule."""
        service = {"name": "web", "port": "http"}
        return {
            "tunnelRef": {"name": "main", "namespace": self.name},
            "rules": [{"name": "web", "hostname": f"{host}.{self.zone}", "service": service}],
        }

    async def _create(self, kind: Kind, name: str, spec: Any) -> None:
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        await self.client.create(kind, self.name, body)

    async def _until(self, what: Callable[[], Awaitable[bool]]) -> None:
        while not await what():  # noqa: ASYNC110 (the condition is on the API server)
            await asyncio.sleep(0.1)

    async def _ready(self, binding: str, host: str) -> bool:
        found = await self.client.get(kinds.BINDING, self.name, binding)
        assert found is not None
        status = found.get("status", {})
        if status.get("observedGeneration") != found["metadata"]["generation"] or not _true(status, "Ready"):
            return False
        return f"{host}.{self.zone}. " in (await self._zone()).replace("\t", " ")

    async def _unpublished(self, host: str) -> bool:
        return f"{host}.{self.zone}" not in await self._zone()

    async def _zone(self) -> str:
        found = await self.client.get(kinds.CONFIG_MAP, self.name, "zone")
        return str((found or {})["data"]["db"])

    async def rest(self, seconds: float = 2.5) -> None:
        """Until every object was looked at in its present generation, its Pods are rolled out, and nothing was
        written for a while."""
        loop = asyncio.get_running_loop()
        written, since = -1, loop.time()
        while loop.time() - since < seconds:
            await asyncio.sleep(0.05)
            if not await self._looked_at() or len(self.proxy.writes) != written:
                written, since = len(self.proxy.writes), loop.time()

    async def _looked_at(self) -> bool:
        for kind, name in ((kinds.TUNNEL, "main"), (kinds.BINDING, "first"), (kinds.BINDING, "second")):
            raw = await self.client.get(kind, self.name, name) or {}
            if raw.get("status", {}).get("observedGeneration") != raw.get("metadata", {}).get("generation"):
                return False
        raw = await self.client.get(kinds.DEPLOYMENT, self.name, "main-connector")
        if raw is None:
            return True
        scaler = await self.client.get(kinds.AUTOSCALER, self.name, "main-connector")
        if scaler is not None and raw["spec"]["replicas"] < scaler["spec"]["minReplicas"]:
            return False  # its controller looks every 15 s
        status = raw.get("status", {})
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")}
        return status.get("observedGeneration") == raw["metadata"]["generation"] and counts == {raw["spec"]["replicas"]}

    # The end.

    async def state(self) -> dict[str, Any]:
        """All that the operator is answerable for, without what time and order alone decide."""
        document = await self._document()
        tunnel = await self.client.get(kinds.TUNNEL, self.name, "main") or {}
        binding = await self.client.get(kinds.BINDING, self.name, "first") or {}
        zone = await self.client.get(kinds.CONFIG_MAP, self.name, "zone") or {}
        claims = (await self.client.request("GET", kinds.CLAIM.path()))["items"]
        children = {}
        for kind in kinds.CHILDREN:
            listed = await self.client.request("GET", kind.path(self.name), query={"labelSelector": kinds.TUNNEL_LABEL})
            for raw in listed["items"]:
                content = {k: v for k, v in raw.items() if k in ("spec", "rules", "roleRef", "subjects")}
                kept = {k: v for k, v in raw["metadata"].items() if k in ("labels", "annotations", "finalizers")}
                for name in ("culvert.dev/applied", "deployment.kubernetes.io/revision"):
                    kept.get("annotations", {}).pop(name, None)  # a hash over the owner's uid, and a history's length
                children[f"{kind.name}/{raw['metadata']['name']}"] = [kept, content]
        state = {
            "rules": document["rules"] if document else None,
            "document": {k: v for k, v in (document or {}).items() if k not in ("version", "grant", "rules")},
            "binding": [_status(binding), binding["metadata"].get("finalizers")],
            "tunnel": [_status(tunnel), tunnel.get("metadata", {}).get("finalizers")],
            "revoked": await self._revoked(),
            "zone": sorted(line for line in zone["data"]["db"].splitlines() if " SOA " not in line),
            "zone's other key": zone["data"]["other"],
            "claims": sorted(
                [c["spec"]["hostname"], c["spec"]["owner"], c["spec"]["tunnel"], c["spec"].get("waiting")]
                for c in claims
                if self.zone in c["spec"]["hostname"]
            ),
            "children": children,
        }
        said = re.sub(r"owner=[0-9a-f-]{36}", "owner=INSTALLATION", json.dumps(state).replace(self.name, "NAME"))
        found: dict[str, Any] = json.loads(said)
        return found

    async def _revoked(self) -> list[Any]:
        """Of which Tunnels credentials are void, and which relays know."""
        ledger = await self.client.get(kinds.CONFIG_MAP, self.name, "culvert-revocations")
        entries = [json.loads(said) for said in ((ledger or {}).get("data") or {}).values()]
        return sorted([entry["tunnel"], entry["told"]] for entry in entries)

    async def _clean(self) -> None:
        """Take the story's objects away, finalizers included: it is over."""
        for kind, name in ((kinds.BINDING, "first"), (kinds.BINDING, "second"), (kinds.TUNNEL, "main")):
            with contextlib.suppress(APIError):
                found = await self.client.get(kind, self.name, name)
                if found is not None:
                    await self.client.patch(kind, self.name, name, {"metadata": {"finalizers": None}})
                    await self.client.delete(kind, self.name, name, uid=found["metadata"]["uid"])
        with contextlib.suppress(APIError):
            for claim in (await self.client.request("GET", kinds.CLAIM.path()))["items"]:
                if self.zone in claim["spec"]["hostname"]:
                    meta = claim["metadata"]
                    await self.client.delete(kinds.CLAIM, None, meta["name"], uid=meta["uid"])
            namespace = await self.client.get(kinds.NAMESPACE, None, self.name)
            if namespace is not None:
                await self.client.delete(kinds.NAMESPACE, None, self.name, uid=namespace["metadata"]["uid"])


def _true(status: Any, condition: str) -> bool:
    return any(c["type"] == condition and c["status"] == "True" for c in status.get("conditions", ()))


def _status(raw: Any) -> Any:
    status = json.loads(json.dumps(raw.get("status", {})))
    for condition in status.get("conditions", ()):
        condition.pop("lastTransitionTime")
        condition.pop("observedGeneration")
    for name in ("id", "configVersion", "credential", "observedGeneration"):
        status.pop(name, None)
    return status

"""Retirement: letting go of every object when the operator goes for good.

Responsible for: taking culvert's finalizer off the operator's Tunnels and TunnelBindings, and saying what stays behind
of each.
Must not know: who decided that the operator goes (``helm uninstall``, or the deletion of its namespace).
Invariants: nothing else of an object changes, so that a later installation goes on where this one ended; whatever is
released has an Event and a line in the log, unless its namespace takes no Events any more; no object keeps a namespace
Terminating because nobody is left to release it. What an operator does not watch is another one's, or nobody's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Literal

from culvert_operator.api.binding import parse_binding
from culvert_operator.api.meta import FINALIZER, Meta, Raw, integer, mapping, parse_meta, text
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import JSON_PATCH, METADATA_ONLY, APIError, Client
from culvert_operator.cluster.connection import LoginError, log_in
from culvert_operator.cluster.events import post
from culvert_operator.cluster.kinds import Kind
from culvert_operator.options import Options
from culvert_operator.relations import tunnels_of_binding
from culvert_operator.world import Event
from culvert_transport.logs import configure

RELEASED = "Released"
PAGE = "500"
TRIES = 3
DEPLOYMENT = "culvert-operator"
QUIET_SECONDS = 2.0
"""For so long nothing may have come back: an operator that is still ending may secure an object once more."""
PATIENCE_SECONDS = 60.0

_log = logging.getLogger(__name__)


async def retire(client: Client, options: Options, *, now: float, instance: str) -> tuple[int, int]:
    """Release everything; how many objects were, and how many could not be. Bindings first: they outlive Tunnels.

    Raises APIError when a namespace could not be read, after all others were seen to.
    """
    released = kept = 0
    failed: APIError | None = None
    names: tuple[Literal["TunnelBinding", "Tunnel"], ...] = ("TunnelBinding", "Tunnel")
    # The operator's own namespace first: where that is what goes, the rights in it go within moments.
    scopes = sorted(options.scopes, key=lambda scope: scope != options.namespace)
    for scope, name in itertools.product(scopes, names):
        try:
            async for raw in _all(client, kinds.BY_NAME[name], scope):
                if FINALIZER not in parse_meta(raw).finalizers or _is_of_others(name, raw, options):
                    continue
                done = await _release(client, kinds.BY_NAME[name], raw)
                released, kept = released + done, kept + (not done)
                if done:
                    await _tell(client, name, raw, now=now, instance=instance)
        except APIError as error:
            # A namespace that has gone took the rights in it along, and every object.
            if scope is None or error.status != 403 or await _is_there(client, scope):
                failed = failed or error
    if failed is not None:
        raise failed
    return released, kept


def left_behind(kind: str, raw: Raw) -> str:
    """What stays of an object that the operator lets go, as a sentence."""
    if kind == "TunnelBinding":
        records = sorted({f"{p.name} {p.type}" for p in parse_binding(raw).published})
        if not records:
            return "culvert's operator was uninstalled. Nothing of this object stays behind but its route."
        return (
            f"culvert's operator was uninstalled. These records stay in DNS until it is installed again or a person "
            f"deletes them, with their _culvert ownership records: {', '.join(records[:20])}."
        )
    held = mapping(mapping(raw.get("status")).get("credential"))
    until = f" (until {text(held.get('expiresAt'))}, when their credential ends)" if held else ""
    return f"culvert's operator was uninstalled. The Tunnel's connectors carry on as they are{until}."


def _is_of_others(kind: str, raw: Raw, options: Options) -> bool:
    """Whether nothing of it can be this operator's: a binding in a watched namespace may name a Tunnel elsewhere."""
    if kind != "TunnelBinding":
        return False
    return not any(options.watches(key.namespace) for key in tunnels_of_binding(parse_binding(raw), options))


async def _is_there(client: Client, namespace: str) -> bool:
    query = {"fieldSelector": f"metadata.name={namespace}"}
    page = await client.request("GET", kinds.NAMESPACE.path(), query=query)
    return bool(page["items"])


async def _all(client: Client, kind: Kind, scope: str | None) -> AsyncIterator[Raw]:
    query = {"limit": PAGE}
    while True:
        page = await client.request("GET", kind.path(scope), query=query)
        for item in page["items"]:
            yield item
        query = {"limit": PAGE, "continue": text(mapping(page.get("metadata")).get("continue"))}
        if not query["continue"]:
            return


async def _release(client: Client, kind: Kind, raw: Raw) -> bool:
    """Take the finalizer off, whoever else changes the object meanwhile."""
    found: Raw | None = raw
    meta = parse_meta(raw)
    for _ in range(TRIES):
        if found is None or (meta := parse_meta(found)).uid != parse_meta(raw).uid or not meta.has_finalizer:
            return True
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": meta.uid},
            {"op": "test", "path": "/metadata/finalizers", "value": list(meta.finalizers)},
            {"op": "add", "path": "/metadata/finalizers", "value": [f for f in meta.finalizers if f != FINALIZER]},
        ]
        try:
            await client.patch(kind, *meta.key, patch, content_type=JSON_PATCH)
        except APIError as error:
            if error.status == 404:
                return True
            _log.warning(
                "an object could not be released", extra={"fields": _fields(kind.name, meta) | {"reason": str(error)}}
            )
            found = await client.get(kind, *meta.key)
            continue
        return True
    return False


async def _tell(
    client: Client, kind: Literal["TunnelBinding", "Tunnel"], raw: Raw, *, now: float, instance: str
) -> None:
    meta, said = parse_meta(raw), left_behind(kind, raw)
    _log.warning("an object was released", extra={"fields": _fields(kind, meta) | {"left": said}})
    await post(client, Event(kind, meta.key, meta.uid, "Warning", RELEASED, said), now=now, instance=instance)


def _fields(kind: str, meta: Meta) -> dict[str, str]:
    return {kind.lower(): str(meta.key)}


async def uninstalling(client: Client, namespace: str, release: str) -> bool:
    """Whether Helm is uninstalling a release right now, by its own record (a Secret, or a ConfigMap, of that state)."""
    query = {"labelSelector": f"owner=helm,name={release},status=uninstalling", "limit": "1"}
    accept = METADATA_ONLY.format(list="List")
    for kind in (kinds.SECRET, kinds.CONFIG_MAP):
        page = await client.request("GET", kind.path(namespace), query=query, accept=accept)
        if page["items"]:
            return True
    return False


def run(options: Options, *, log_level: str, log_format: str, release: str | None = None) -> int:
    """``culvert operator retire``: stop the operator and release everything that is its; the exit code.

    With ``release`` only while Helm uninstalls that release: whoever applies a rendered chart applies its hooks too.
    """
    configure(log_level, log_format)
    try:
        return asyncio.run(_run(options, release))
    except (APIError, LoginError) as error:
        print(f"culvert: {error}", file=sys.stderr)
        return 1


async def _run(options: Options, release: str | None) -> int:
    client, namespace = Client(log_in), options.namespace
    instance = f"culvert-operator-{os.environ.get('HOSTNAME') or socket.gethostname()}"
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        if release is not None and not await uninstalling(client, namespace, release):
            _log.info("Helm does not uninstall this release: nothing is done", extra={"fields": {"release": release}})
            return 0
        await _stop_operator(client, namespace)
        total = 0
        while True:
            released, kept = await retire(client, options, now=time.time(), instance=instance)
            total += released
            if not released and not kept:
                _log.info("everything is released", extra={"fields": {"objects": total}})
                return 0
            if time.monotonic() > deadline:
                print(
                    f"culvert: {released + kept} objects come back or cannot be released: does an operator still run? "
                    f"Stop it: kubectl -n {namespace} scale deployment {DEPLOYMENT} --replicas=0",
                    file=sys.stderr,
                )
                return 1
            await asyncio.sleep(QUIET_SECONDS)
    finally:
        await client.close()


async def _stop_operator(client: Client, namespace: str) -> None:
    """Without it nothing that is released is secured again."""
    try:
        await client.patch(kinds.DEPLOYMENT, namespace, DEPLOYMENT, {"spec": {"replicas": 0}})
        while True:
            found = await client.get(kinds.DEPLOYMENT, namespace, DEPLOYMENT)
            if not integer(mapping(mapping(found).get("status")).get("replicas")):
                return
            await asyncio.sleep(0.5)
    except APIError as error:
        if error.status != 404:
            raise

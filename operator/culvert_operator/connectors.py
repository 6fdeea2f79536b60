"""Asking connectors how they are: a long poll of each connector Pod's ``GET /v1/status``.

Responsible for: one poll per Pod, bounded in time and size, and the last report of each. Must not know: what a report
means for a condition.
Invariants: a Pod that its kubelet calls ready and that could not be asked for ``LOST`` seconds is given up; one that is
only starting is nothing yet; nobody waits longer than ``HOLD`` seconds for a Pod's first answer; polls of Pods that
went away end; a change of a report or of a Pod's readiness, and the end of such a wait, mark its Tunnel, nothing else
does.

A question that times out is no evidence on a busy machine, where everything is late: only questions that failed again
and again are, lest every binding's status be written twice for each delay.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from culvert_operator.api.meta import integer, mapping, sequence, text
from culvert_operator.backoff import Backoff
from culvert_operator.cluster.kinds import TUNNEL_LABEL
from culvert_operator.cluster.stores import Held, Object
from culvert_operator.keys import ObjectKey
from culvert_operator.reports import ConnectorReport, parse_report

PORT_NAME = "status"
DEFAULT_PORT = 20241
WAIT_SECONDS = 30
FIRST_SECONDS = 5.0
HOLD = 3.0
LOST = 20.0
FEWEST = 3
MAX_BYTES = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A connector Pod that can be asked, and where."""

    tunnel: ObjectKey
    pod: str
    uid: str
    url: str


@dataclass(frozen=True, slots=True)
class _Pod:
    uid: str
    ready: bool


@dataclass(slots=True)
class _Failing:
    since: float
    tries: int = 0


@dataclass(slots=True)
class _Poll:
    target: Target
    task: asyncio.Task[None]
    report: ConnectorReport | None = None
    heard: bool = False  # it answered, or was given up
    overdue: asyncio.TimerHandle | None = None  # until then its Tunnel's work waits for it


def tunnel_of_pod(pod: Object) -> ObjectKey | None:
    """The Tunnel whose connector a Pod is, or None when it is (going) away or none."""
    metadata, status = mapping(pod.get("metadata")), mapping(pod.get("status"))
    name = text(mapping(metadata.get("labels")).get(TUNNEL_LABEL))
    over = metadata.get("deletionTimestamp") or status.get("phase") in ("Succeeded", "Failed")
    return ObjectKey(text(metadata.get("namespace")), name) if name and not over else None


def target_of(pod: Object) -> Target | None:
    """Where to ask a Pod; None while it has no address."""
    tunnel = tunnel_of_pod(pod)
    metadata = mapping(pod.get("metadata"))
    try:
        address = ipaddress.ip_address(text(mapping(pod.get("status")).get("podIP")))
    except ValueError:
        return None
    if tunnel is None:
        return None
    host = f"[{address}]" if address.version == 6 else str(address)
    url = f"http://{host}:{_port(pod)}/v1/status"
    return Target(tunnel, text(metadata.get("name")), text(metadata.get("uid")), url)


def _port(pod: Object) -> int:
    for container in sequence(mapping(pod.get("spec")).get("containers")):
        for port in sequence(mapping(container).get("ports")):
            if mapping(port).get("name") == PORT_NAME:
                return integer(mapping(port).get("containerPort"), DEFAULT_PORT)
    return DEFAULT_PORT


class Connectors:
    """The polls of all connector Pods; feed it the Pods' store, ask it for reports."""

    def __init__(
        self,
        changed: Callable[[ObjectKey], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        first_seconds: float = FIRST_SECONDS,
        hold: float = HOLD,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._first_seconds = first_seconds
        self._hold = hold
        self._pods: dict[ObjectKey, dict[str, _Pod]] = {}  # Tunnel → by the Pod's name
        self._polls: dict[str, _Poll] = {}  # by the Pod's uid
        self._session: aiohttp.ClientSession | None = None

    def on_pod(self, before: Held[Object] | None, after: Held[Object] | None) -> None:
        """A listener of the Pods' store."""
        old = tunnel_of_pod(before.raw) if before is not None else None
        new = tunnel_of_pod(after.raw) if after is not None else None
        if before is not None and old is not None and (new != old or _uid(before.raw) != _uid((after or before).raw)):
            self._forget(old, before.raw)
        if after is None or new is None:
            return
        name, uid = after.raw["metadata"]["name"], _uid(after.raw)
        pod = _Pod(uid, _is_ready(after.raw))
        if self._pods.setdefault(new, {}).get(name) != pod:
            self._pods[new][name] = pod
            self._changed(new)
        target = target_of(after.raw)
        poll = self._polls.get(uid)
        if poll is not None and poll.target != target:
            self._end(uid)
            poll = None
        if target is not None and poll is None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._ask(target), name=f"poll {new} {name}")
            self._polls[uid] = _Poll(target, task, overdue=loop.call_later(self._hold, self._go_on, uid))

    def _forget(self, tunnel: ObjectKey, pod: Object) -> None:
        pods, name = self._pods.get(tunnel, {}), pod["metadata"]["name"]
        if name in pods and pods[name].uid == _uid(pod):
            del pods[name]
            if not pods:
                del self._pods[tunnel]
        self._end(_uid(pod))
        self._changed(tunnel)

    def _end(self, uid: str) -> None:
        poll = self._polls.pop(uid, None)
        if poll is not None:
            poll.task.cancel()
            if poll.overdue is not None:
                poll.overdue.cancel()

    def _go_on(self, uid: str) -> None:
        """The first answer has taken long: the Tunnel's work goes on without it."""
        poll = self._polls[uid]
        poll.overdue = None
        if not poll.heard:
            self._changed(poll.target.tunnel)

    def reports(self, tunnel: ObjectKey) -> Mapping[str, ConnectorReport | None] | None:
        """The last report of each Pod that reported, None for one that is ready and does not answer.

        None instead of them all while a Pod that has an address is about to be heard: an operator that begins must not
        see its connectors as lost, nor plan twice. The answer, or that it takes too long, marks the Tunnel.
        """
        polls = (self._polls.get(pod.uid) for pod in self._pods.get(tunnel, {}).values())
        if any(poll is not None and not poll.heard and poll.overdue is not None for poll in polls):
            return None
        found: dict[str, ConnectorReport | None] = {}
        for name, pod in sorted(self._pods.get(tunnel, {}).items()):
            poll = self._polls.get(pod.uid)
            report = poll.report if poll is not None else None
            if report is not None or pod.ready:
                found[name] = report
        return found

    def unheard(self, tunnel: ObjectKey) -> frozenset[str]:
        """The ready Pods of which nothing is known yet: neither heard nor given up."""
        pods = self._pods.get(tunnel, {}).items()
        polls = ((name, self._polls.get(pod.uid)) for name, pod in pods if pod.ready)
        return frozenset(name for name, poll in polls if poll is not None and not poll.heard)

    async def close(self) -> None:
        """End all polls."""
        tasks = [poll.task for poll in self._polls.values()]
        for uid in tuple(self._polls):
            self._end(uid)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _ask(self, target: Target) -> None:
        backoff = Backoff(first=0.5, most=5.0, random=random.random)
        etag = ""
        failing: _Failing | None = None
        while True:
            try:
                report, etag = await self._once(target, etag)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Whatever a connector sends, or does not, the poll goes on.
                _log.debug("a connector cannot be asked", extra={"fields": {"url": target.url, "error": repr(error)}})
                etag = ""
                failing = failing or _Failing(self._clock())
                failing.tries += 1
                if self._is_lost(target, failing, late=isinstance(error, TimeoutError)):
                    self._tell(target, None)
                await asyncio.sleep(backoff.next())
                continue
            failing = None
            backoff.reset()
            if report is not None:
                self._tell(target, report)
            if not etag:
                # Without a tag the next answer comes at once: a connector must not make us spin.
                await asyncio.sleep(1.0)

    def _is_lost(self, target: Target, failing: _Failing, *, late: bool) -> bool:
        """Whether a connector that cannot be asked is given up."""
        poll = self._polls.get(target.uid)
        pod = self._pods.get(target.tunnel, {}).get(target.pod)
        if poll is None:
            return True
        if not poll.heard and (not late or pod is None or not pod.ready):
            # One that starts refuses; its Tunnel's work must not wait for longer than a second.
            return failing.tries >= 2
        return failing.tries >= FEWEST and self._clock() - failing.since > LOST

    async def _once(self, target: Target, etag: str) -> tuple[ConnectorReport | None, str]:
        """One poll: the new report (None when nothing changed) and its tag. Raises for anything else."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        query = {"wait": f"{WAIT_SECONDS}s", "etag": etag} if etag else {}
        limits = aiohttp.ClientTimeout(
            total=WAIT_SECONDS + 10.0 if etag else self._first_seconds, connect=FIRST_SECONDS
        )
        async with self._session.get(
            target.url,
            params=query,
            timeout=limits,
            allow_redirects=False,
            headers={"If-None-Match": etag} if etag else {},
        ) as response:
            if response.status == 304:
                return None, etag
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("a report that is too long")
            decoded: Any = json.loads(bytes(body))
            report = parse_report(decoded)
            if report is None:
                raise ValueError("not a report")
            return report, response.headers.get("ETag", "")[:256]

    def _tell(self, target: Target, report: ConnectorReport | None) -> None:
        poll = self._polls.get(target.uid)
        if poll is None:
            return
        fresh, poll.heard = not poll.heard, True
        if fresh or poll.report != report:
            poll.report = report
            self._changed(target.tunnel)


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid", ""))


def _is_ready(pod: Object) -> bool:
    conditions = map(mapping, sequence(mapping(pod.get("status")).get("conditions")))
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)

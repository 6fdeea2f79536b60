"""The operator at scale: 1,000 bindings over 50 namespaces and 20 Tunnels, on a real control plane.

Measures the time from the operator's start to the last binding's Ready, the writes of that, of one hostname more, of
rest and of a restart, the operator's CPU and memory, how long its health answers take meanwhile and the longest step of
its event loop (bench/steps.py), and the largest configuration: its size, and what reading and applying it costs a
connector. There are no nodes: each Tunnel's one connector Pod is given an address at which this process answers as a
connector that has applied what it was told. It watches ConfigMaps as connectors do.

    python -m bench.operator_scale
    python -m bench.operator_scale --bindings 100 --namespaces 5 --tunnels 2
    python -m bench.operator_scale --bindings 100 --tunnels 1 --rules 50    # 5,000 rules in one Tunnel
    python -m bench.operator_scale --keep /tmp/run                          # leaves the audit log and the operator's
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, web
from bench.answers import Answers
from bench.processes import cpu_seconds, free_port, resident_kib
from bench.steps import longest

from culvert_connector.configuration import Applied
from culvert_ingress.document import Document
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import log_in
from culvert_operator.cluster.stores import Store
from culvert_operator.cluster.watch import Reflector
from culvert_operator.keys import ObjectKey

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "hack" / "cluster" / "cluster"
SYSTEM = "culvert-system"
AT_ONCE = 32
LIMIT_SECONDS = 600.0
REST_SECONDS = 10.0
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Size:
    """How many of each."""

    bindings: int
    namespaces: int
    tunnels: int
    rules: int  # of each binding


class World:
    """The objects, and connectors for them."""

    def __init__(self, client: Client, size: Size) -> None:
        self.client = client
        self.size = size
        self.config_maps: Store[bytes] = Store(kinds.CONFIG_MAP, configuration)
        self.pods: Store[Any] = Store(kinds.POD, lambda raw: raw)
        self._changed = asyncio.Condition()

    async def lay_out(self) -> None:
        """Everything that people would create."""
        names = [SYSTEM, *(f"team-{n}" for n in range(self.size.namespaces))]
        await each(names, lambda n: self.client.create(kinds.NAMESPACE, None, {"metadata": {"name": n}}))
        service = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}
        await each(names[1:], lambda n: self._create(kinds.SERVICE, n, "web", service))
        await each(range(self.size.tunnels), self._tunnel)
        await each(range(self.size.bindings), self._binding)

    async def _tunnel(self, number: int) -> None:
        spec = {
            "relay": {"addresses": ["relay.example.net:443"]},
            "connector": {"replicas": 1},
            "grants": [{"namespaces": {"from": "All"}, "hostnames": ["*.example.com"], "maxRules": 5000}],
        }
        await self._create(kinds.TUNNEL, SYSTEM, f"tunnel-{number}", spec)

    async def _binding(self, number: int) -> None:
        tunnel = f"tunnel-{number % self.size.tunnels}"
        rules = [rule(f"app-{number}-{n}" if n else f"app-{number}") for n in range(self.size.rules)]
        spec = {"tunnelRef": {"name": tunnel, "namespace": SYSTEM}, "rules": rules}
        await self._create(kinds.BINDING, f"team-{number % self.size.namespaces}", f"app-{number}", spec)

    async def _create(self, kind: kinds.Kind, namespace: str, name: str, spec: Any) -> None:
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        await self.client.create(kind, namespace, body)

    async def all_ready(self) -> bool:
        """Whether every binding is Ready in its present generation."""
        listed = await self.client.request("GET", kinds.BINDING.path())
        return all(ready(item) for item in listed["items"])

    @contextlib.asynccontextmanager
    async def connectors(self) -> AsyncIterator[None]:
        """Each Tunnel's connector, at an address of the loopback network of its own."""
        runners = []
        for number in range(self.size.tunnels):
            app = web.Application()
            app.router.add_get("/v1/status", self._reports(f"tunnel-{number}-config"))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, address(number), 20241).start()
            runners.append(runner)
        self.config_maps.listen(lambda before, after: self._tell())
        self.pods.listen(lambda before, after: self._give_address(after.raw) if after is not None else None)
        stores = (self.config_maps, self.pods)
        watches = [Reflector(self.client, s, namespace=SYSTEM, selector=kinds.TUNNEL_LABEL).run() for s in stores]
        self._tasks = {asyncio.ensure_future(watch) for watch in watches}
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, *(runner.cleanup() for runner in runners), return_exceptions=True)

    def _tell(self) -> None:
        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._later(tell())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reports(self, config_map: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        def version() -> int:
            data = self.config_maps.get(ObjectKey(SYSTEM, config_map))
            return Document.loads(data).version if data else 0

        async def report(request: web.Request) -> web.Response:
            known = request.headers.get("If-None-Match")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30), self._changed:
                    await self._changed.wait_for(lambda: f'"{version()}"' != known)
            tag = f'"{version()}"'
            if tag == known:
                return web.Response(status=304, headers={"ETag": tag})
            return web.json_response(applied(version()), headers={"ETag": tag})

        return report

    def _give_address(self, pod: Any) -> None:
        async def give() -> None:
            with contextlib.suppress(APIError):
                await self.client.patch(
                    kinds.POD, SYSTEM, pod["metadata"]["name"], {"status": status}, subresource="status"
                )

        if not pod.get("status", {}).get("podIP"):
            ip = address(int(pod["metadata"]["labels"]["culvert.dev/tunnel"].rpartition("-")[2]))
            conditions = [{"type": "Ready", "status": "True"}]
            status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
            self._later(give())


class Operator:
    """One operator process."""

    def __init__(self, kubeconfig: str, log: Path) -> None:
        self.port = free_port()
        self._steps = log.with_suffix(".steps")
        command = [
            *(sys.executable, "-m", "bench.steps", str(self._steps), "operator", "run", f"--namespace={SYSTEM}"),
            *("--connector-image=localhost/culvert:bench", f"--listen=127.0.0.1:{self.port}"),
        ]
        with log.open("ab") as out:
            environment = {**os.environ, "KUBECONFIG": kubeconfig}
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    @property
    def health(self) -> str:
        """Where it says that it lives."""
        return f"http://127.0.0.1:{self.port}/livez"

    async def metrics(self) -> str:
        """The exposition; empty while there is none."""
        try:
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                return await answer.text()
        except ClientError:
            return ""

    async def writes(self) -> int:
        """Answered writes so far."""
        found = re.findall(r'api_requests_total\{code="2..",verb="(\w+)"\} ([0-9.e+]+)', await self.metrics())
        return int(sum(float(count) for verb, count in found if verb in WRITES))

    async def ready(self) -> int:
        """Bindings that are Ready, as far as the operator's own stores say (cheaper to ask than the API server)."""
        found = re.search(r'bindings\{condition="Ready",status="True"\} ([0-9.e+]+)', await self.metrics())
        return int(float(found[1])) if found else 0

    async def rounds(self) -> int:
        """Rounds that ended well."""
        found = re.search(r'reconcile_total\{result="success"\} ([0-9.e+]+)', await self.metrics())
        return int(float(found[1])) if found else 0

    def longest_step(self) -> float:
        """CPU milliseconds of the loop's longest step since this was last asked."""
        found = longest(self._steps) * 1000
        self._steps.unlink(missing_ok=True)
        return found

    def cpu(self) -> float:
        """Seconds so far."""
        return cpu_seconds([self.process.pid])

    def stop(self) -> None:
        """And wait for the end."""
        self.process.terminate()
        self.process.wait(timeout=60)


async def each(items: Iterable[Any], do: Callable[[Any], Awaitable[object]]) -> None:
    """`do` for each item, some at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> None:
        async with slots:
            await do(item)

    await asyncio.gather(*(one(item) for item in items))


def configuration(raw: Any) -> bytes:
    """The document in a Tunnel's ConfigMap, as it is stored."""
    return base64.b64decode((raw.get("binaryData") or {}).get("config.json.gz", ""))


def rule(name: str) -> dict[str, Any]:
    """One rule for one hostname."""
    return {"name": name, "hostname": f"{name}.example.com", "service": {"name": "web", "port": "http"}}


def ready(binding: Any) -> bool:
    """Whether a binding is Ready in its present generation."""
    status = binding.get("status", {})
    if status.get("observedGeneration") != binding["metadata"]["generation"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def address(number: int) -> str:
    """The address of a Tunnel's connector."""
    return f"127.77.{number // 250}.{number % 250 + 1}"


def applied(version: int) -> dict[str, Any]:
    """The report of a connector that has applied `version`."""
    session = {"relay": "r", "address": "192.0.2.1:443", "slot": 0, "state": "connected", "probed": True}
    return {
        "connectorId": "bench",
        "version": "0.1.0",
        "schemas": [1],
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


async def until(what: Callable[[], Awaitable[bool]], *, every: float = 0.25) -> float:
    """Seconds until it was so."""
    started = time.monotonic()
    while not await what():
        if time.monotonic() - started > LIMIT_SECONDS:
            raise SystemExit(f"not within {LIMIT_SECONDS:.0f} s")
        await asyncio.sleep(every)
    return time.monotonic() - started


async def measure(size: Size, kubeconfig: str, log: Path) -> dict[str, float]:
    """Everything, in one world."""
    client = Client(log_in)
    world = World(client, size)
    try:
        await world.lay_out()
        async with world.connectors():
            return await _measured(world, size, kubeconfig, log)
    finally:
        await client.close()


async def _measured(world: World, size: Size, kubeconfig: str, log: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    operator = Operator(kubeconfig, log)

    async def converged() -> bool:
        return await operator.ready() == size.bindings and await world.all_ready()

    try:
        with Answers(operator.health) as answers:
            found["start to converged, s"] = await until(converged, every=0.5)
        found["health meanwhile, slowest, ms"] = answers.slowest
        found["health meanwhile, p99, ms"] = answers.p99
        found["longest step of the loop, CPU ms"] = operator.longest_step()
        found["writes to converge"] = await operator.writes()
        found["CPU to converge, s"] = operator.cpu()
        found["memory, MiB"] = resident_kib(operator.process.pid) / 1024
        await asyncio.sleep(REST_SECONDS)
        before = await operator.writes()
        await asyncio.sleep(REST_SECONDS)
        found[f"writes in {REST_SECONDS:.0f} s of rest"] = await operator.writes() - before
        before, spent = await operator.writes(), operator.cpu()
        raw = await world.client.get(kinds.BINDING, "team-0", "app-0")
        assert raw is not None
        spec = {**raw["spec"], "rules": [*raw["spec"]["rules"], rule("one-more")]}
        await world.client.replace(kinds.BINDING, "team-0", "app-0", {**raw, "spec": spec})

        async def served() -> bool:
            return ready(await world.client.get(kinds.BINDING, "team-0", "app-0"))

        with Answers(operator.health) as answers:
            found["one hostname more to Ready, s"] = await until(served, every=0.02)
            await asyncio.sleep(3)
        found["health meanwhile, slowest, ms "] = answers.slowest
        found["longest step of the loop, CPU ms "] = operator.longest_step()
        found["writes for one hostname more"] = await operator.writes() - before
        found["CPU for one hostname more, s"] = operator.cpu() - spent
    finally:
        operator.stop()
    operator = Operator(kubeconfig, log)
    try:

        async def looked_at() -> bool:
            return await operator.rounds() >= size.tunnels

        found["restart to every Tunnel looked at, s"] = await until(looked_at)
        await asyncio.sleep(REST_SECONDS)
        found["writes on restart"] = await operator.writes()
    finally:
        operator.stop()
    return found | largest(max(world.config_maps, key=len))


def largest(data: bytes) -> dict[str, float]:
    """The largest configuration: its size, and the CPU time that a connector takes to read it and to change to it."""
    began = time.process_time()
    document = Document.loads(data)
    read = time.process_time()
    Applied(document)
    return {
        "rules of the largest configuration": len(document.rules),
        "its size in etcd, KiB": len(data) / 1024,
        "a connector reads it, CPU ms": (read - began) * 1000,
        "and changes to it, CPU ms": (time.process_time() - read) * 1000,
    }


def main() -> None:
    """Starts a control plane, measures, prints."""
    parser = argparse.ArgumentParser(description="Measure the operator at scale on a real control plane.")
    parser.add_argument("--bindings", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=50)
    parser.add_argument("--tunnels", type=int, default=20)
    parser.add_argument("--rules", type=int, default=1, help="of each binding (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put the audit log and the operator's log there")
    parsed = parser.parse_args()
    size = Size(parsed.bindings, parsed.namespaces, parsed.tunnels, parsed.rules)
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as name:
        folder = Path(name)
        options = ["--control-plane-only", "--state", str(folder / "state")]
        up = [str(CLUSTER), "up", "--json", *options, "--until-exit-of", str(os.getpid())]
        status = json.loads(subprocess.run(up, stdout=subprocess.PIPE, text=True, check=True).stdout)
        os.environ["KUBECONFIG"] = status["kubeconfig"]
        try:
            kubelite = subprocess.run([str(CLUSTER), "path", "kubelite"], stdout=subprocess.PIPE, text=True, check=True)
            kubectl = [kubelite.stdout.strip(), "kubectl", f"--kubeconfig={status['kubeconfig']}"]
            crds = f"--filename={ROOT / 'crds'}"
            subprocess.run([*kubectl, "apply", crds], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(
                [*kubectl, "wait", "--for=condition=Established", crds, "--timeout=60s"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            found = asyncio.run(measure(size, status["kubeconfig"], folder / "operator.log"))
        finally:
            if parsed.keep is not None:
                parsed.keep.mkdir(parents=True, exist_ok=True)
                for log in (Path(status["auditLog"]), folder / "operator.log"):
                    shutil.copy(log, parsed.keep)
            subprocess.run([str(CLUSTER), "down", *options], check=False)
    print(f"{size.bindings} bindings of {size.rules} rules, {size.namespaces} namespaces, {size.tunnels} Tunnels")
    for what, figure in found.items():
        print(f"  {what:42} {figure:10.1f}")


if __name__ == "__main__":
    main()

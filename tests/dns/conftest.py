"""Real DNS servers on loopback, each with many copies of one seeded zone, and the providers in front of them.

A *ground* is one provider, one zone of its own with other people's records, and a way to look at the zone and to edit
it that does not go through the provider. The contract suite runs over every ground.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import dns.zone
import pytest
from aiohttp import web

from culvert_operator.dns.endpoint import RecordSet
from culvert_operator.dns.provider import DNSProvider, ProviderConfig, provider
from culvert_operator.dns.providers.rdata import record_sets
from culvert_operator.dns.providers.webhook import wire
from culvert_operator.dns.providers.webhook.server import WebhookServer

COPIES = 60

SEED = """\
$TTL 300
@ IN SOA ns hostmaster 1 7200 3600 1209600 60
@ IN NS ns
@ IN MX 10 mail
@ IN TXT "v=spf1 -all"
@ IN CAA 0 issue "ca.example.net"
ns IN A 192.0.2.53
mail IN A 192.0.2.25
mail IN AAAA 2001:db8::25
www IN CNAME people
people 7200 IN A 192.0.2.10
people IN TXT "written by a person"
edns IN A 192.0.2.11
a-edns IN TXT "heritage=external-dns,external-dns/owner=other,external-dns/resource=ingress/x/y"
theirs IN A 192.0.2.12
a._culvert.theirs IN TXT "heritage=external-dns,external-dns/owner=other,external-dns/resource=tunnelbinding/x/y"
_sip._tcp IN SRV 10 20 5060 mail
*.wild IN A 192.0.2.13
"""


@dataclass(frozen=True)
class Key:
    """A TSIG key that the servers know."""

    name: str
    algorithm: str
    secret: str

    @property
    def tsig(self) -> dns.tsig.Key:
        return dns.tsig.Key(self.name, self.secret, self.algorithm)


def _key(name: str, algorithm: str = "hmac-sha256") -> Key:
    return Key(name, algorithm, base64.b64encode(os.urandom(32)).decode())


@dataclass
class Text:
    """A secret that a test can rotate."""

    text: str

    async def value(self) -> str:
        return self.text


class Server(Protocol):
    """A running authoritative server with zones ``z0.test``, ``z1.test`` …"""

    name: str
    port: int
    keys: dict[str, Key]


@dataclass
class Ground:
    """See the module."""

    kind: str
    provider: DNSProvider
    zone: str
    read: Callable[[], dict[tuple[str, str], RecordSet]]
    edit: Callable[[str, str, Sequence[str]], None]
    server: Any = None

    def foreign(self, ours: Collection[str] = ()) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
        """Everything but the SOA (its serial moves) and what stands at names of ``ours`` and their markers."""
        marked = {*ours, *(f"{t}._culvert.{n.replace('*', '_wildcard')}" for n in ours for t in ("a", "aaaa", "cname"))}
        return {k: (r.ttl, r.values) for k, r in self.read().items() if k[1] != "SOA" and k[0] not in marked}


def free_port() -> int:
    """A port of loopback that is free for both TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def ask(port: int, name: str, kind: str) -> set[str]:
    """The answer of the server, as text."""
    answer = dns.query.udp(dns.message.make_query(name, kind), "127.0.0.1", port=port, timeout=5)
    return {rdata.to_text() for rrset in answer.answer for rdata in rrset}


@dataclass
class Daemon:
    """A DNS server's process."""

    name: str
    folder: Path
    keys: dict[str, Key]
    command: list[str] = field(default_factory=list)
    port: int = 0
    zones: Iterator[str] = field(default_factory=lambda: (f"z{n}.test" for n in itertools.count()))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it answers for its first and last zone."""
        try:
            self._start()
        except BaseException:
            self.kill()
            raise

    def _start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        for zone in ("z0.test", f"z{COPIES - 1}.test"):
            while True:
                query = dns.message.make_query(zone, "SOA")
                try:
                    if dns.query.udp(query, "127.0.0.1", port=self.port, timeout=1).rcode() == dns.rcode.NOERROR:
                        break
                except (OSError, dns.exception.Timeout):
                    time.sleep(0.05)
                said = (self.folder / "log").read_text(errors="replace")[-3000:]
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def transfer(self, zone: str) -> dict[tuple[str, str], RecordSet]:
        """The zone as the server gives it, without the provider."""
        key = self.keys["culvert"]
        found = dns.zone.Zone(zone, relativize=False)
        query = dns.message.make_query(zone, "AXFR")
        query.use_tsig(key.tsig)
        dns.query.inbound_xfr("127.0.0.1", found, query, port=self.port, timeout=10)
        return record_sets(found)

    def edit(self, zone: str, name: str, kind: str, values: Sequence[str]) -> None:
        """A person replaces a record set (no values: takes it away)."""
        message = dns.update.UpdateMessage(zone)
        message.use_tsig(self.keys["culvert"].tsig)
        if values:
            message.replace(f"{name}.", 300, kind, *values)
        else:
            message.delete(f"{name}.", kind)
        answer = dns.query.tcp(message, "127.0.0.1", port=self.port, timeout=10)
        assert answer.rcode() == dns.rcode.NOERROR, answer.to_text()

    def settings(self, **more: str) -> dict[str, str]:
        key = self.keys["culvert"]
        settings = {"servers": f"127.0.0.1:{self.port}", "tsig-key-name": key.name, "tsig-algorithm": key.algorithm}
        return {**settings, **more}

    def provider(self, *zones: str, key: str = "culvert", servers: str = "") -> DNSProvider:
        """An rfc2136 provider in front of this server."""
        held = self.keys[key]
        settings = {
            "servers": servers or f"127.0.0.1:{self.port}",
            "tsig-key-name": held.name,
            "tsig-algorithm": held.algorithm,
        }
        return provider("rfc2136", ProviderConfig(settings, zones, secret=Text(held.secret)))

    def ground(self) -> Ground:
        """A fresh zone."""
        zone = next(self.zones)
        assert int(zone[1:].partition(".")[0]) < COPIES, "more tests than zones: raise COPIES"
        return Ground(
            self.name,
            self.provider(zone),
            zone,
            lambda: self.transfer(zone),
            lambda name, kind, values: self.edit(zone, name, kind, values),
            self,
        )


def bind(program: str, folder: Path, keys: dict[str, Key]) -> Daemon:
    """BIND 9."""
    daemon = Daemon("bind", folder, keys, port=free_port())
    lines = [f'key "{k.name}" {{ algorithm {k.algorithm}; secret "{k.secret}"; }};' for k in keys.values()]
    lines += [
        "options {",
        f'  directory "{folder}"; pid-file "{folder}/pid"; session-keyfile "{folder}/session.key";',
        f"  listen-on port {daemon.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};",
        "  recursion no; notify no; dnssec-validation no; allow-transfer { key culvert; key long; key reader; };",
        "};",
        "controls { };",
    ]
    for number in range(COPIES):
        (folder / f"z{number}.db").write_text(SEED)
        lines.append(
            f'zone "z{number}.test" {{ type primary; file "z{number}.db"; '
            "allow-update { key culvert; key long; }; };"
        )
    (folder / "broken.db").write_text("@ IN SOA oops\n")
    lines.append('zone "broken.test" { type primary; file "broken.db"; allow-update { key culvert; }; };')
    (folder / "named.conf").write_text("\n".join(lines) + "\n")
    daemon.command = [program, "-f", "-c", str(folder / "named.conf"), "-n", "1"]
    return daemon


def knot(program: str, folder: Path, keys: dict[str, Key]) -> Daemon:
    """Knot DNS."""
    daemon = Daemon("knot", folder, keys, port=free_port())
    lines = ["server:", f"  listen: 127.0.0.1@{daemon.port}", f"  rundir: {folder}", "  tcp-workers: 1", "key:"]
    for k in keys.values():
        lines += [f"  - id: {k.name}", f"    algorithm: {k.algorithm}", f"    secret: {k.secret}"]
    lines += ["acl:", "  - id: write", "    key: [culvert, long]", "    action: [transfer, update, query]"]
    lines += ["  - id: read", "    key: reader", "    action: [transfer, query]"]
    lines += ["database:", f"  storage: {folder}", "template:", "  - id: default", f"    storage: {folder}"]
    lines += ["    acl: [write, read]", "    zonefile-sync: -1", "    journal-content: all", "zone:"]
    for number in range(COPIES):
        (folder / f"z{number}.test.zone").write_text(SEED)
        lines += [f"  - domain: z{number}.test"]
    lines += ["log:", "  - target: stderr", "    any: info"]
    (folder / "knot.conf").write_text("\n".join(lines) + "\n")
    daemon.command = [program, "-c", str(folder / "knot.conf")]
    return daemon


def powerdns(program: str, folder: Path, keys: dict[str, Key]) -> Daemon:
    """PowerDNS over SQLite."""
    schema = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
    daemon = Daemon("powerdns", folder, keys, port=free_port())
    (folder / "pdns.conf").write_text(
        f"launch=gsqlite3\ngsqlite3-database={folder}/pdns.db\ngsqlite3-dnssec=yes\nlocal-address=127.0.0.1\n"
        f"local-port={daemon.port}\nsocket-dir={folder}\ndnsupdate=yes\nallow-dnsupdate-from=127.0.0.1\n"
        "allow-axfr-ips=\ndaemon=no\nguardian=no\nreceiver-threads=1\ndistributor-threads=1\ncache-ttl=0\n"
        "negquery-cache-ttl=0\nquery-cache-ttl=0\nzone-cache-refresh-interval=0\n"
    )
    database = sqlite3.connect(folder / "pdns.db")
    database.executescript(schema.read_text())
    for k in keys.values():
        row = (k.name, k.algorithm, k.secret)
        database.execute("INSERT INTO tsigkeys (name, algorithm, secret) VALUES (?, ?, ?)", row)
    for number in range(COPIES):
        zone = f"z{number}.test"
        cursor = database.execute("INSERT INTO domains (name, type) VALUES (?, 'NATIVE')", (zone,))
        for kind, key in [("AXFR", k) for k in keys] + [("DNSUPDATE", k) for k in ("culvert", "long")]:
            database.execute(
                "INSERT INTO domainmetadata (domain_id, kind, content) VALUES (?, ?, ?)",
                (cursor.lastrowid, f"TSIG-ALLOW-{kind}", key),
            )
        parsed = dns.zone.from_text(SEED, origin=zone, relativize=False)
        for name, rdataset in parsed.iterate_rdatasets():
            for rdata in rdataset:
                owner, text = name.to_text(omit_final_dot=True), rdata.to_text(origin=parsed.origin, relativize=False)
                kind = dns.rdatatype.to_text(rdataset.rdtype)
                priority, content = 0, text.rstrip(".")
                if kind in ("MX", "SRV"):
                    first, _, content = content.partition(" ")
                    priority = int(first)
                database.execute(
                    "INSERT INTO records (domain_id, name, type, content, ttl, prio, disabled, auth) "
                    "VALUES (?, ?, ?, ?, ?, ?, 0, 1)",
                    (cursor.lastrowid, owner, kind, content, rdataset.ttl, priority),
                )
    database.commit()
    database.close()
    daemon.command = [program, f"--config-dir={folder}"]
    return daemon


MAKERS: dict[str, tuple[str, Callable[[str, Path, dict[str, Key]], Daemon]]] = {
    "bind": ("named", bind),
    "knot": ("knotd", knot),
    "powerdns": ("pdns_server", powerdns),
}
"""A kind's program, and what writes its configuration."""


def daemon(kind: str, program: Callable[[str], str], folder: Path) -> Daemon:
    """A server with fresh keys that is not started yet."""
    name, make = MAKERS[kind]
    keys = {"culvert": _key("culvert"), "long": _key("long", "hmac-sha512"), "reader": _key("reader")}
    return make(program(name), folder, keys)


@pytest.fixture(scope="session")
def free() -> Callable[[], int]:
    """``free()``: a port on which nothing listens."""
    return free_port


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]
) -> Iterator[Callable[[str], Daemon]]:
    """``server(kind)``: one running server per kind for all tests of this process."""
    running: dict[str, Daemon] = {}

    def get(kind: str) -> Daemon:
        if kind not in running:
            running[kind] = daemon(kind, program, tmp_path_factory.mktemp(kind))
            running[kind].start()
        return running[kind]

    yield get
    for one in running.values():
        one.kill()


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]) -> Callable[[str], Daemon]:
    """``own_server(kind)``: a server that is not started yet and that the test stops itself."""
    return lambda kind: daemon(kind, program, tmp_path_factory.mktemp(kind))


def _memory(request: pytest.FixtureRequest) -> Ground:
    from culvert_operator.dns.providers.memory import MemoryProvider

    zone = "z0.test"
    parsed = dns.zone.from_text(SEED, origin=zone, relativize=False)
    records = record_sets(parsed)

    def edit(name: str, kind: str, values: Sequence[str]) -> None:
        records.pop((name, kind), None)
        if values:
            records[name, kind] = RecordSet(name, kind, 300, tuple(sorted(values)))

    return Ground("memory", MemoryProvider({zone: records}), zone, lambda: dict(records), edit)


def _zonefile(request: pytest.FixtureRequest) -> Ground:
    path = request.getfixturevalue("tmp_path") / "z0.test.db"
    path.write_text(SEED)
    zone = "z0.test"

    def read() -> dict[tuple[str, str], RecordSet]:
        return record_sets(dns.zone.from_text(path.read_text(), origin=zone, relativize=False))

    def edit(name: str, kind: str, values: Sequence[str]) -> None:
        parsed = dns.zone.from_text(path.read_text(), origin=zone, relativize=False)
        parsed.delete_rdataset(f"{name}.", kind)
        if values:
            parsed.replace_rdataset(f"{name}.", dns.rdataset.from_text("IN", kind, 300, *values))
        path.write_text(parsed.to_text(relativize=False))

    made = provider("zonefile", ProviderConfig({"path": str(path)}, (zone,)))
    return Ground("zonefile", made, zone, read, edit)


class Objects:
    """DNSEndpoint objects of one namespace, with the API server's preconditions and merge patches."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self._versions = itertools.count(1)

    async def list(self) -> list[dict[str, Any]]:
        return copy.deepcopy(list(self.held.values()))

    async def create(self, body: Any) -> bool:
        name = body["metadata"]["name"]
        if name in self.held:
            return False
        self.put(name, body)
        return True

    async def patch(self, name: str, body: Any) -> bool:
        if not self._is(name, body["metadata"]["uid"], body["metadata"]["resourceVersion"]):
            return False
        self.put(name, _merged(self.held[name], body))
        return True

    async def delete(self, name: str, *, uid: str, version: str) -> bool:
        return self._is(name, uid, version) and self.held.pop(name) is not None

    def put(self, name: str, body: Any) -> None:
        number = str(next(self._versions))
        made = copy.deepcopy(body)
        uid = self.held[name]["metadata"]["uid"] if name in self.held else f"uid-{number}"
        made["metadata"] |= {"name": name, "uid": uid, "resourceVersion": number}
        self.held[name] = made

    def _is(self, name: str, uid: str, version: str) -> bool:
        meta = self.held.get(name, {}).get("metadata", {})
        return (meta.get("uid"), meta.get("resourceVersion")) == (uid, version)


def _merged(old: Any, new: Any) -> Any:
    """RFC 7396."""
    if not isinstance(new, dict):
        return new
    found = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


@pytest.fixture
def objects() -> Objects:
    """The namespace, with somebody's object that has the seed's records."""
    made = Objects()
    parsed = record_sets(dns.zone.from_text(SEED, origin="z0.test", relativize=False))
    mine = [wire.endpoint(one) for one in parsed.values() if one.type not in ("SOA", "CAA")]
    made.put("people", {"metadata": {"annotations": {"note": "by hand"}}, "spec": {"endpoints": mine}})
    return made


def _endpoints(request: pytest.FixtureRequest) -> Ground:
    objects, zone = request.getfixturevalue("objects"), "z0.test"

    def read() -> dict[tuple[str, str], RecordSet]:
        found: dict[tuple[str, str], RecordSet] = {}
        for held in objects.held.values():
            for one in wire.record_sets(held["spec"]["endpoints"]):
                found[one.name, one.type] = one
            said = held["metadata"].get("annotations", {}).get("culvert.dev/dns-markers", "{}")
            for name, (ttl, text) in json.loads(said).items():
                found[name, "TXT"] = RecordSet(name, "TXT", ttl, (text,))
        return found

    def edit(name: str, kind: str, values: Sequence[str]) -> None:
        place = "people"
        for held in list(objects.held.values()):
            listed = held["spec"]["endpoints"]
            left = [e for e in listed if (e["dnsName"], e["recordType"]) != (name, kind)]
            if left != listed:
                place = held["metadata"]["name"]
                objects.put(place, {**held, "spec": {"endpoints": left}})
        if values:
            held = objects.held[place]
            one = wire.endpoint(RecordSet(name, kind, 300, tuple(values)))
            objects.put(place, {**held, "spec": {"endpoints": [*held["spec"]["endpoints"], one]}})

    made = provider("endpoints", ProviderConfig({}, (zone,), objects=objects))
    return Ground("endpoints", made, zone, read, edit)


class Served:
    """An aiohttp application on loopback, in a thread with a loop of its own."""

    def __init__(self, app: web.Application) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, args=(app,), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self, app: web.Application) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(app, access_log=None)

        async def begin() -> None:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


@pytest.fixture
def serve() -> Iterator[Callable[[web.Application], str]]:
    """``serve(app)``: the application's URL."""
    running: list[Served] = []

    def start(app: web.Application) -> str:
        running.append(Served(app))
        return f"http://127.0.0.1:{running[-1].port}"

    yield start
    for served in running:
        served.close()


def _webhook(request: pytest.FixtureRequest, before: str = "memory") -> Ground:
    """The webhook client in front of the webhook server in front of another provider."""
    behind = GROUNDS[before](request)
    url = request.getfixturevalue("serve")(WebhookServer(behind.provider).app())
    made = provider("webhook", ProviderConfig({"url": url}))
    return Ground(f"webhook before {before}", made, behind.zone, behind.read, behind.edit)


TOKEN = "cloudflare-token-of-the-tests"


class FakeCloudflare:
    """A server of the part of Cloudflare's API that culvert uses: zones, paged records, atomic batches, refusals."""

    def __init__(self, zones: Sequence[str]) -> None:
        self.zones = {zone: f"id-{number}" for number, zone in enumerate(zones)}
        self.records: dict[str, dict[str, dict[str, Any]]] = {key: {} for key in self.zones.values()}
        self.requests: list[tuple[str, str]] = []
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.hidden = 0
        self.largest_page = 5
        self._ids = itertools.count(1)
        self.app = web.Application()
        self.app.router.add_get("/zones", self._zones)
        self.app.router.add_get("/zones/{zone}/dns_records", self._list)
        self.app.router.add_post("/zones/{zone}/dns_records/batch", self._batch)

    def add(self, zone: str, **record: Any) -> None:
        key = f"r{next(self._ids)}"
        record.setdefault("proxied", False)
        self.records[self.zones[zone]][key] = {"id": key, **record}

    def _refused(self, request: web.Request) -> web.Response | None:
        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _cloudflare_error(403, 9109, "Unauthorized to access requested resource")
        if self.refusals and request.method == "POST":
            status, headers = self.refusals.pop(0)
            return _cloudflare_error(status, 10000, "refused by the test", headers)
        return None

    def _page(self, request: web.Request, items: list[Any]) -> web.Response:
        page, size = int(request.query["page"]), min(int(request.query["per_page"]), self.largest_page)
        part = items[(page - 1) * size : page * size]
        info = {"page": page, "per_page": size, "count": len(part), "total_count": len(items) + self.hidden}
        info["total_pages"] = -(-len(items) // size)
        return web.json_response({"success": True, "errors": [], "messages": [], "result": part, "result_info": info})

    async def _zones(self, request: web.Request) -> web.Response:
        listed = [{"id": key, "name": name, "status": "active"} for name, key in self.zones.items()]
        return self._refused(request) or self._page(request, listed)

    async def _list(self, request: web.Request) -> web.Response:
        name = request.query.get("name.exact")
        held = self.records[request.match_info["zone"]].values()
        return self._refused(request) or self._page(request, [r for r in held if name in (None, r["name"])])

    async def _batch(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body, zone = await request.json(), request.match_info["zone"]
        after = dict(self.records[zone])
        for one in body.get("deletes", []):
            if after.pop(one["id"], None) is None:
                return _cloudflare_error(404, 81044, "Record does not exist.")
        for one in body.get("patches", []):
            after[one["id"]] = {**after[one["id"]], **one}
        for one in body.get("posts", []):
            same = [r for r in after.values() if r["name"] == one["name"]]
            if any((r["type"], r["content"]) == (one["type"], one["content"]) for r in same):
                return _cloudflare_error(400, 81058, "An identical record already exists.")
            exclusive = {"A", "AAAA", "CNAME"}
            if any("CNAME" in (r["type"], one["type"]) and {r["type"], one["type"]} <= exclusive for r in same):
                return _cloudflare_error(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
            key = f"r{next(self._ids)}"
            if one.get("proxied"):
                one = {**one, "ttl": 1}
            after[key] = {"proxied": False, **one, "id": key}
        self.records[zone] = after
        return web.json_response({"success": True, "errors": [], "messages": [], "result": {}})


def _cloudflare_error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}
    return web.json_response(body, status=status, headers=headers)


@pytest.fixture
def cloudflare(serve: Callable[[web.Application], str]) -> tuple[FakeCloudflare, Callable[..., DNSProvider]]:
    """The server with the seeded zone ``z0.test``, and a maker of providers in front of it."""
    fake = FakeCloudflare(["test", "z0.test", "other.example"])
    parsed = dns.zone.from_text(SEED, origin="z0.test", relativize=False)
    for one in record_sets(parsed).values():
        for value in one.values if one.type not in ("SOA", "CAA") else ():
            record: dict[str, Any] = {"name": one.name, "type": one.type, "ttl": one.ttl, "content": value.rstrip(".")}
            if one.type == "MX":
                priority, _, record["content"] = record["content"].partition(" ")
                record["priority"] = int(priority)
            if one.type == "SRV":
                numbers = record["content"].split(" ")
                record["data"] = dict(zip(("priority", "weight", "port", "target"), numbers, strict=True))
            fake.add("z0.test", **record)
    url = serve(fake.app)

    def make(*zones: str, token: str = TOKEN, **settings: str) -> DNSProvider:
        return provider("cloudflare", ProviderConfig({"api-url": url, **settings}, zones, secret=Text(token)))

    return fake, make


def _cloudflare(request: pytest.FixtureRequest) -> Ground:
    fake, make = request.getfixturevalue("cloudflare")
    zone = "z0.test"

    def read() -> dict[tuple[str, str], RecordSet]:
        found: dict[tuple[str, str], RecordSet] = {}
        for r in fake.records[fake.zones[zone]].values():
            value = r["content"]
            if r["type"] in ("CNAME", "NS", "MX", "SRV"):
                value = f"{value}."
            if r["type"] == "MX":
                value = f"{r['priority']} {value}"
            former = found.get((r["name"], r["type"]))
            values = (*(former.values if former else ()), value)
            found[r["name"], r["type"]] = RecordSet(r["name"], r["type"], r["ttl"], tuple(sorted(values)))
        return found

    def edit(name: str, kind: str, values: Sequence[str]) -> None:
        held = fake.records[fake.zones[zone]]
        for key in [k for k, r in held.items() if (r["name"], r["type"]) == (name, kind)]:
            del held[key]
        for value in values:
            fake.add(zone, name=name, type=kind, content=value, ttl=300)

    return Ground("cloudflare", make(), zone, read, edit, fake)


GROUNDS: dict[str, Callable[[pytest.FixtureRequest], Ground]] = {
    "memory": _memory,
    "zonefile": _zonefile,
    "webhook": _webhook,
    "webhook before bind": lambda request: _webhook(request, "bind"),
    "cloudflare": _cloudflare,
    "endpoints": _endpoints,
    **{kind: lambda request, kind=kind: request.getfixturevalue("server")(kind).ground() for kind in MAKERS},
}


@pytest.fixture(params=list(GROUNDS))
def ground(request: pytest.FixtureRequest) -> Ground:
    """Every provider in turn, on a fresh zone."""
    return GROUNDS[request.param](request)


@pytest.fixture(params=list(MAKERS))
def served(request: pytest.FixtureRequest) -> Ground:
    """Each real server in turn, on a fresh zone."""
    return GROUNDS[request.param](request)

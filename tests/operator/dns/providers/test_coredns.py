"""The zonefile provider in front of a real CoreDNS, asked with a real resolver."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import DNSPlan, plan_zones
from culvert_operator.dns.policies import Policy
from culvert_operator.dns.provider import ProviderConfig, Result, provider
from culvert_operator.dns.registry import Registry

ZONE = """\
$TTL 60
@ IN SOA ns.example.com. hostmaster.example.com. 1 7200 3600 1209600 1
  IN NS ns
ns IN A 192.0.2.53
* IN TXT "foreign wildcard"
"""
OWNER, SHOP = "installation-1", "tunnelbinding/shop/shop"


class Server:
    """CoreDNS with one zone file."""

    def __init__(self, port: int, path: Path) -> None:
        self.port = port
        self.path = path
        self.registry = Registry(provider("zonefile", ProviderConfig({"path": str(path)}, ("example.com",))))

    def ask(self, name: str, kind: str) -> tuple[str, set[str]]:
        """(rcode, answers as text)."""
        query = dns.message.make_query(name, kind)
        try:
            answer = dns.query.udp(query, "127.0.0.1", port=self.port, timeout=2)
        except (dns.exception.Timeout, OSError):
            return "", set()
        wanted = dns.rdatatype.from_text(kind)
        return dns.rcode.to_text(answer.rcode()), {
            rdata.to_text() for rrset in answer.answer if rrset.rdtype == wanted for rdata in rrset
        }

    def until(self, name: str, kind: str, right: Callable[[str, set[str]], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not right(*(answer := self.ask(name, kind))):
            assert time.monotonic() < deadline, (name, kind, answer)
            time.sleep(0.05)

    def publish(self, desired: list[Endpoint], listed: list[Published]) -> DNSPlan:
        async def step() -> DNSPlan:
            plan = plan_zones(desired, listed=listed, view=await self.registry.view(), owner=OWNER, policy=Policy.SYNC)
            results = await self.registry.apply(plan.changes)
            assert {r.result for r in results} <= {Result.DONE}
            return plan

        return asyncio.run(step())


def free_port() -> int:
    """A port that is free for both TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return int(tcp.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, built: Callable[[str], str]) -> Iterator[Server]:
    program = built("coredns")
    path = tmp_path / "db"
    path.write_text(ZONE)
    port = free_port()
    corefile = tmp_path / "Corefile"
    corefile.write_text(
        f"example.com:{port} {{\n  bind 127.0.0.1\n  file {path} example.com {{\n    reload 200ms\n  }}\n}}\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-conf", str(corefile)], stdout=log, stderr=log)
    made = Server(port, path)

    def serves(rcode: str, found: set[str]) -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return found == {"192.0.2.53"}

    try:
        made.until("ns.example.com", "A", serves)
        yield made
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def test_a_name_is_served_changed_in_place_and_withdrawn(server: Server) -> None:
    name = "shop.example.com"
    one = Endpoint(name, "A", ("192.0.2.1", "192.0.2.2"), 60, "", SHOP)
    cname = Endpoint(name, "CNAME", ("relay.example.net",), 60, "", SHOP)
    both = [Published(name, "A", SHOP), Published(name, "CNAME", SHOP)]
    server.publish([one], both)
    server.until(name, "A", lambda rcode, found: found == {"192.0.2.1", "192.0.2.2"})
    text = {f'"heritage=external-dns,external-dns/owner={OWNER},external-dns/resource={SHOP}"'}
    server.until(f"a._culvert.{name}", "TXT", lambda rcode, found: found == text)

    server.publish([cname], both)
    server.until(name, "CNAME", lambda rcode, found: found == {"relay.example.net."})
    assert server.publish([cname], both).changes == ()

    server.publish([], both)
    server.until(name, "CNAME", lambda rcode, found: not found)
    assert server.ask(f"cname._culvert.{name}", "TXT") == ("NOERROR", {'"foreign wildcard"'})
    assert server.ask("anything.example.com", "TXT") == ("NOERROR", {'"foreign wildcard"'})


def test_wildcards_and_the_apex_are_served_with_their_markers(server: Server) -> None:
    wildcard = Endpoint("*.apps.example.com", "A", ("192.0.2.3",), 60, "", SHOP)
    apex = Endpoint("example.com", "A", ("192.0.2.4",), 60, "", SHOP)
    server.publish([wildcard, apex], [Published(e.name, e.type, SHOP) for e in (wildcard, apex)])
    server.until("deep.down.apps.example.com", "A", lambda rcode, found: found == {"192.0.2.3"})
    server.until("example.com", "A", lambda rcode, found: found == {"192.0.2.4"})
    assert server.ask("a._culvert.example.com", "TXT")[1]
    assert server.ask("a._culvert._wildcard.apps.example.com", "TXT")[1]
    assert server.ask("example.com", "NS")[1] == {"ns.example.com."}


def test_every_change_is_served_under_the_next_serial(server: Server) -> None:
    name = "a.example.com"
    for serial, address in enumerate(("192.0.2.5", "192.0.2.6", "192.0.2.7"), start=2):
        server.publish([Endpoint(name, "A", (address,), 60, "", SHOP)], [Published(name, "A", SHOP)])
        server.until(name, "A", lambda rcode, found, address=address: found == {address})
        (soa,) = server.ask("example.com", "SOA")[1]
        assert soa.split()[2] == str(serial)

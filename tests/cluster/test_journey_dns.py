"""Records of a real node's bindings in a company's zone: BIND, by dynamic updates, beside other people's records."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.zone
import pytest

from .visitors import until

if TYPE_CHECKING:
    from .installation import Installation

SEED = """\
$TTL 300
@ IN SOA ns hostmaster 1 7200 3600 1209600 60
@ IN NS ns
@ IN MX 10 mail
ns IN A 192.0.2.53
mail IN A 192.0.2.25
people IN A 192.0.2.10
people IN TXT "written by a person"
edns IN A 192.0.2.11
a-edns IN TXT "heritage=external-dns,external-dns/owner=other,external-dns/resource=ingress/x/y"
"""
CONFIG = """\
key "culvert" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
  directory "{folder}"; pid-file "{folder}/pid"; session-keyfile "{folder}/session.key";
  listen-on port {port} {{ 127.0.0.1; {address}; }}; listen-on-v6 {{ none; }};
  recursion no; notify no; dnssec-validation no; allow-transfer {{ key culvert; }};
}};
controls {{ }};
statistics-channels {{ inet 127.0.0.1 port {statistics}; }};
zone "{zone}" {{ type primary; file "zone"; allow-update {{ key culvert; }}; }};
"""


def free_port(*addresses: str) -> int:
    """A port that is free for TCP and UDP at all these addresses."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        try:
            for address in addresses:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(type=kind) as tried:
                        tried.bind((address, port))
        except OSError:
            continue
        return port


class Bind:
    """BIND 9 at loopback and at the node's own address, where Pods can reach it."""

    def __init__(self, program: str, folder: Path, zone: str, address: str) -> None:
        self.zone, self.address, self.folder = zone, address, folder
        self.secret = base64.b64encode(os.urandom(32)).decode()
        self.port, self.statistics = free_port("127.0.0.1", address), free_port("127.0.0.1")
        (folder / "zone").write_text(SEED)
        values = vars(self)
        (folder / "named.conf").write_text(CONFIG.format(**values))
        self._command = [program, "-f", "-c", str(folder / "named.conf"), "-n", "1"]
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def start(self) -> None:
        self._asked = 0
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self.folder, stdout=log, stderr=log)
        until(lambda: self.ask(f"ns.{self.zone}", "A") == {"192.0.2.53"})

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def ask(self, name: str, kind: str) -> set[str] | None:
        """The answer; None when the server gives none."""
        assert self._process is None or self._process.poll() is None, (self.folder / "log").read_text()
        query = dns.message.make_query(name, kind)
        self._asked += 1
        try:
            answer = dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=5)
        except (OSError, EOFError, dns.exception.DNSException):
            return None
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return None
        return {rdata.to_text() for rrset in answer.answer for rdata in rrset}

    def transfer(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Every record set but the SOA, whose serial moves: (name, type) → TTL and values."""
        found = dns.zone.Zone(self.zone, relativize=False)
        query = dns.message.make_query(self.zone, "AXFR")
        query.use_tsig(dns.tsig.Key("culvert", self.secret, "hmac-sha256"))
        dns.query.inbound_xfr("127.0.0.1", found, query, port=self.port, timeout=10)
        sets = ((name, one) for name, one in found.iterate_rdatasets())
        texts = {(str(name), one.rdtype.name): (str(one.ttl), *sorted(r.to_text() for r in one)) for name, one in sets}
        return {key: value for key, value in texts.items() if key[1] != "SOA"}

    def messages(self) -> int:
        """Queries, transfers and updates that it has received since it was started, but for this test's own."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.statistics}/json/v1/server", timeout=10) as answer:
            counted: dict[str, int] = json.load(answer)["opcodes"]
        return counted["QUERY"] + counted["UPDATE"] - self._asked


@pytest.fixture
def bind(installation: Installation, tmp_path: Path, program: Callable[[str], str]) -> Iterator[Bind]:
    """A server that knows the company's zone, not started yet."""
    (node,) = installation.cluster.get("nodes")["items"]
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    made = Bind(program("named"), tmp_path, f"company.{installation.zone}", address)
    yield made
    made.stop()


def tunnel(installation: Installation, bind: Bind, target: str) -> list[dict[str, Any]]:
    metadata = {"name": "company", "namespace": installation.system}
    tsig = {"keyName": "culvert", "secretRef": {"name": "company", "key": "secret"}}
    spec = {
        "relay": {
            "addresses": [f"culvert-relay-tunnel.{installation.system}.svc.cluster.local:7443"],
            "caConfigMapRef": {"name": "culvert-relay-ca", "key": "ca.crt"},
        },
        "connector": {"replicas": 1, "sessions": 1, "gracePeriodSeconds": 5},
        "grants": [{"namespaces": {"from": "All"}, "hostnames": [f"*.{bind.zone}"]}],
        "dns": {
            "ttl": 5,
            "target": {"hostname": target},
            "rfc2136": {"servers": [f"{bind.address}:{bind.port}"], "tsig": tsig},
        },
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"secret": bind.secret}}
    return [secret, {"apiVersion": "culvert.dev/v1alpha1", "kind": "Tunnel", "metadata": metadata, "spec": spec}]


def test_d11_d12_names_in_a_companys_zone_come_move_and_go_and_nothing_else_does(
    installation: Installation, bind: Bind, record_property: Any
) -> None:
    first, second, taken = (f"{name}.{bind.zone}" for name in ("first", "second", "people"))
    bind.start()
    before = bind.transfer()

    def binding(host: str) -> dict[str, Any]:
        made = installation.binding("company", host)
        made["spec"]["tunnelRef"]["name"] = "company"
        return made

    def moved(host: str, target: str) -> float:
        started = time.monotonic()
        until(lambda: bind.ask(host, "CNAME") == {f"{target}."}, every=0.01)
        return (time.monotonic() - started) * 1000

    installation.apply(*tunnel(installation, bind, "relay.example.net"))
    try:
        installation.wait_ready("tunnel/company", installation.system)
        installation.apply(binding(first))
        record_property("dns: apply of a binding → answered by BIND", f"{moved(first, 'relay.example.net'):.0f} ms")
        installation.wait_ready("tunnelbinding/company", "shop")
        assert installation.visit(first).status == 200
        assert f"cname._culvert.{first}." in {name for name, _ in bind.transfer()}

        installation.at_rest()
        messages = bind.messages()
        installation.apply(binding(second))
        moved(second, "relay.example.net")
        until(lambda: bind.ask(first, "CNAME") == set())
        installation.wait_ready("tunnelbinding/company", "shop")
        installation.at_rest()
        record_property("dns: messages to BIND for a renamed hostname", str(bind.messages() - messages))

        # A changed relay moves the record; a name that a person has is left to them.
        installation.apply(*tunnel(installation, bind, "other.example.net"))
        moved(second, "other.example.net")
        installation.apply(binding(taken))
        until(
            lambda: installation.condition("tunnelbinding", "company", "shop", "DNSReady")[:2] == ("False", "NotOwner")
        )
        assert bind.transfer() == before
        installation.apply(binding(second))
        moved(second, "other.example.net")

        # While the server is away a deletion waits, and ends by itself when it is back.
        bind.stop()
        gone = ("tunnelbinding", "company", "--namespace=shop")
        installation.kubectl("delete", *gone, "--wait=false")
        until(lambda: installation.condition("tunnelbinding", "company", "shop", "DNSReady")[1] == "ProviderError")
        assert installation.visit(installation.first).status == 200
        bind.start()
        installation.kubectl("wait", "--for=delete", *gone, "--timeout=240s")
        assert bind.ask(second, "CNAME") == set()
    finally:
        bind.stop()
        bind.start()
        for kind, where in (
            ("tunnelbinding", "shop"),
            ("tunnel", installation.system),
            ("secret", installation.system),
        ):
            installation.kubectl(
                "delete", kind, "company", f"--namespace={where}", "--ignore-not-found", "--timeout=240s"
            )
        # Its connectors go in the background, and nothing of this test is to stand beside the next.
        pods = ("pods", "--selector=culvert.dev/tunnel=company", f"--namespace={installation.system}")
        installation.kubectl("wait", "--for=delete", *pods, "--timeout=240s")
    after = bind.transfer()
    ours = {key for key in after if "_culvert" in key[0]}
    changed = {key for key in before if after.get(key) != before[key]}
    record_property("dns: records of other people changed in BIND", str(len(changed)))
    record_property("dns: records leaked in BIND", str(len(after.keys() - before.keys())))
    assert (ours, changed, after) == (set(), set(), before)

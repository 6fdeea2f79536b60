"""``culvert dns`` and ``culvert tunnel route dns``, over a zone file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ZONE = """\
@ 60 IN SOA ns h 1 1 1 1 1
@ 60 IN NS ns
ns 60 IN A 192.0.2.53
people 60 IN A 192.0.2.10
"""
BLOCK = """\
ownerId: home
target: {hostname: relay.example.net}
zonefile: {configMapRef: {name: zone, key: db}, zone: example.com}
"""
Culvert = Callable[..., Any]


@pytest.fixture
def files() -> list[str]:
    """The flags of a dns block over a zone file in the working folder."""
    Path("dns.yml").write_text(BLOCK)
    Path("zone.db").write_text(ZONE)
    return ["--dns", "dns.yml", "--zone-file", "zone.db"]


def test_a_hostname_is_planned_routed_listed_and_cleaned_up(culvert: Culvert, files: list[str]) -> None:
    planned = culvert("dns", "plan", *files, "app.example.com")
    assert (planned.code, planned.out) == (0, "create\tapp.example.com\tCNAME relay.example.net\n")
    assert Path("zone.db").read_text() == ZONE
    assert culvert("tunnel", "route", "dns", "home", "app.example.com", *files).code == 0
    assert "app.example.com.\t300\tIN\tCNAME\trelay.example.net." in Path("zone.db").read_text()
    again = culvert("tunnel", "route", "dns", "home", "app.example.com", *files)
    assert (again.code, again.out) == (0, "keep\tapp.example.com\n")
    listed = culvert("dns", "records", *files)
    assert listed.out == "app.example.com\tCNAME\t300\trelay.example.net\ttunnel/standalone/home\n"
    before = Path("zone.db").read_text()
    shown = culvert("dns", "cleanup", *files)
    assert shown.code == 0
    assert shown.out.startswith("delete\tapp.example.com\n1 name of the owner id home would be deleted")
    assert Path("zone.db").read_text() == before
    assert culvert("dns", "cleanup", *files, "--resource", "tunnel/standalone/other", "--yes").code == 0
    assert Path("zone.db").read_text() == before
    assert culvert("dns", "cleanup", *files, "--yes").code == 0
    assert Path("zone.db").read_text() == ZONE.replace("h 1 1", "h 3 1")
    assert "has no records in example.com" in culvert("dns", "records", *files).out


def test_more_than_twenty_orphans_go_when_a_person_says_yes(culvert: Culvert, files: list[str]) -> None:
    names = [f"n{i}.example.com" for i in range(25)]
    for name in names:
        assert culvert("tunnel", "route", "dns", "home", name, *files).code == 0
    assert culvert("dns", "cleanup", *files, "--yes").code == 0
    assert "relay.example.net" not in Path("zone.db").read_text()


def test_a_record_that_is_not_culverts_is_refused_and_stays(culvert: Culvert, files: list[str]) -> None:
    for command in (["dns", "plan", *files], ["tunnel", "route", "dns", "home", *files]):
        refused = culvert(*command, "people.example.com")
        assert refused.code == 1
        assert refused.out.startswith("refused\tpeople.example.com\tpeople.example.com already has")
    assert Path("zone.db").read_text() == ZONE


def test_cleanup_touches_only_its_own_owner_id(culvert: Culvert, files: list[str]) -> None:
    culvert("tunnel", "route", "dns", "home", "app.example.com", *files)
    before = Path("zone.db").read_text()
    assert culvert("dns", "cleanup", *files, "--owner", "other", "--yes").code == 0
    assert Path("zone.db").read_text() == before


@pytest.mark.parametrize(
    ("block", "flags", "said"),
    [
        ("ownerId: a\n", [], "exactly one provider"),
        ("ownerId: a\nmemory: {}\nrfc2136: {}\n", [], "exactly one provider"),
        ("ownerId: a\nmemory: {}\nzone: [x]\n", [], "unknown key 'zone'"),
        ("memory: {}\nzones: [x.test]\n", [], "ownerId in the dns block, or --owner"),
        ("memory: {}\nzones: [x.test]\n", ["--owner", "a b"], "cannot be used"),
        ("ownerId: a\nmemory: {}\nzones: [x.test]\n", [], "target.hostname"),
        ("[]\n", [], "holds no dns block"),
        ("a: [\n", [], "cannot be read"),
        ("ownerId: a\ncloudflare: {apiTokenSecretRef: {name: s, key: t}}\n", [], "--secret-file"),
        ("ownerId: a\nzonefile: {configMapRef: {name: s, key: t}, zone: a.test}\n", [], "--zone-file"),
        ("ownerId: a\nplugin: {name: nowhere}\n", [], "no DNS provider 'nowhere'"),
        ("ownerId: a\nplugin: {name: zonefile, config: {path: /etc/passwd}}\n", [], "no DNS provider ''"),
    ],
)
def test_a_block_that_cannot_work_is_refused_with_a_sentence(
    culvert: Culvert, block: str, flags: list[str], said: str
) -> None:
    Path("dns.yml").write_text(block)
    outcome = culvert("dns", "plan", "--dns", "dns.yml", *flags, "a.x.test")
    assert outcome.code == 1
    assert said in outcome.err


def test_a_whole_tunnel_is_understood(culvert: Culvert, files: list[str]) -> None:
    indented = "".join(f"    {line}\n" for line in BLOCK.splitlines())
    Path("dns.yml").write_text(f"kind: Tunnel\nspec:\n  dns:\n{indented}")
    assert culvert("dns", "plan", *files, "app.example.com").code == 0


def test_objects_are_in_a_namespace_of_a_cluster(culvert: Culvert, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dns.yml").write_text("ownerId: home\ntarget: {hostname: relay.example.net}\nendpoints: {}\n")
    assert "with --namespace" in culvert("dns", "records", "--dns", "dns.yml").err
    monkeypatch.setenv("KUBECONFIG", str(Path("none").absolute()))
    nowhere = culvert("dns", "records", "--dns", "dns.yml", "--namespace", "edge")
    assert nowhere.code == 1
    assert "Traceback" not in nowhere.err
    assert "KUBECONFIG" in nowhere.err or "kubeconfig" in nowhere.err

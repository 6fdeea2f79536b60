"""The in-cluster relay's CA and certificate: a real TLS handshake, and when they are renewed."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from culvert_operator.certificates import (
    Pair,
    authority_is_good,
    bundle,
    expires_at,
    make_authority,
    make_server,
    server_is_good,
)
from culvert_operator.relay_certificate import relay_names

DAY = 86400.0
NOW = time.time()
NAMES = ("relay.culvert.svc", "*.relay.culvert.svc")
AUTHORITY = make_authority("test CA", now=NOW)
SERVER = make_server(NAMES, AUTHORITY, now=NOW)


def handshake(server: Pair, trusted: bytes, name: str, folder: Path) -> None:
    """A TLS handshake in memory; raises what a connector would see."""
    (folder / "crt").write_bytes(server.certificate)
    (folder / "key").write_bytes(server.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "crt", folder / "key")
    calling = ssl.create_default_context(cadata=trusted.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = serving.wrap_bio(up, down, server_side=True)
    here = calling.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert here.getpeercert()


@pytest.mark.parametrize("name", ["relay.culvert.svc", "relay-0.relay.culvert.svc"])
def test_a_connector_that_trusts_the_ca_accepts_the_relay(name: str, tmp_path: Path) -> None:
    handshake(SERVER, AUTHORITY.certificate, name, tmp_path)


def test_another_name_and_another_ca_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(SERVER, AUTHORITY.certificate, "evil.example.com", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(SERVER, make_authority("another", now=NOW).certificate, NAMES[0], tmp_path)


def test_what_is_good_is_left_alone_and_what_is_due_is_not() -> None:
    assert server_is_good(SERVER, NAMES, AUTHORITY, now=NOW)
    assert server_is_good(SERVER, NAMES, AUTHORITY, now=NOW + 59 * DAY)
    assert not server_is_good(SERVER, NAMES, AUTHORITY, now=NOW + 61 * DAY)
    assert not server_is_good(SERVER, (*NAMES, "more"), AUTHORITY, now=NOW)
    assert not server_is_good(SERVER, NAMES, make_authority("another", now=NOW), now=NOW)
    assert not server_is_good(Pair(SERVER.certificate, AUTHORITY.key), NAMES, AUTHORITY, now=NOW)
    assert not server_is_good(None, NAMES, AUTHORITY, now=NOW)
    assert authority_is_good(AUTHORITY, now=NOW + 3000 * DAY)
    assert not authority_is_good(AUTHORITY, now=NOW + 3300 * DAY)
    assert not authority_is_good(Pair(b"nonsense", b"nonsense"), now=NOW)
    assert expires_at(SERVER) == pytest.approx(NOW + 90 * DAY, abs=2)


def test_after_a_change_of_ca_both_are_published_until_the_old_one_ends(tmp_path: Path) -> None:
    successor = make_authority("test CA", now=NOW)
    both = bundle(successor.certificate, AUTHORITY.certificate, now=NOW)
    handshake(SERVER, both, NAMES[0], tmp_path)
    handshake(make_server(NAMES, successor, now=NOW), both, NAMES[0], tmp_path)
    assert bundle(successor.certificate, both, now=NOW) == both
    old = make_authority("old", now=NOW - 4000 * DAY)
    assert bundle(successor.certificate, old.certificate, now=NOW) == successor.certificate
    assert bundle(successor.certificate, b"somebody wrote this", now=NOW) == successor.certificate


def test_a_private_key_shows_in_no_repr() -> None:
    assert "PRIVATE" not in repr(SERVER)


def test_the_names_of_a_relay_cover_its_service_its_replicas_and_the_given_ones() -> None:
    names = relay_names(("relay",), "culvert", "cluster.local", ("relay.example.com",))
    assert {"relay.example.com", "relay", "relay.culvert.svc", "*.relay.culvert.svc.cluster.local"} <= set(names)
    assert len(names) == len(set(names))

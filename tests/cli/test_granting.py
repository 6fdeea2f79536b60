"""What a tunnel is granted besides hostnames: TLS names, TCP ports, and who may come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.granted import GrantedPort
from culvert_protocol.statements import Grant

Culvert = Callable[..., Any]
FILE = Path("lab.json")


def create(culvert: Culvert, issuer: Path, *more: str) -> Any:
    return culvert("tunnel", "create", "lab", "--issuer-key", issuer, "--credentials-file", FILE, *more)


def granted() -> Grant:
    grant = CredentialsFile.loads(FILE.read_bytes()).read_grant()
    assert grant is not None
    return grant


def test_ports_and_tls_names_are_granted_and_told(culvert: Culvert, issuer: Path) -> None:
    words = ["--tcp-port", "20022", "--tcp-port", "20001", "--tls-hostname", "DB.example.com"]
    made = create(culvert, issuer, *words)
    assert made.code == 0, made.err
    grant = granted()
    assert [port.port for port in grant.tcp_ports] == [20022, 20001]
    assert [name.hostname for name in grant.tls_names] == ["db.example.com"]
    assert grant.names == ()
    assert "TLS names:   db.example.com\nTCP ports:   20022, 20001\n" in made.out
    assert "Hostnames:" not in made.out


def test_sources_hold_for_everything_or_for_one_name(culvert: Culvert, issuer: Path) -> None:
    words = ["--hostname", "a.example.com", "--tcp-port", "20022", "--allowed-source", "10.0.0.0/8"]
    made = create(culvert, issuer, *words, "--allowed-source", "tcp:20022=2001:DB8::/32")
    assert made.code == 0, made.err
    grant = granted()
    assert grant.names[0].allowed_sources == ("10.0.0.0/8",)
    assert grant.tcp_ports[0].allowed_sources == ("10.0.0.0/8", "2001:db8::/32")
    assert "20022 (from 10.0.0.0/8, 2001:db8::/32)" in made.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "A tunnel serves something: give --hostname, --tls-hostname or --tcp-port."),
        (("--allowed-source", "10.0.0.0/8"), "--allowed-source restricts what is granted"),
        (("--tcp-port", "1", "--allowed-source", "10.0.0.1/8"), "'10.0.0.1/8' is not a network of addresses"),
        (("--tcp-port", "1", "--allowed-source", "b.test=10.0.0.0/8"), "'b.test' is not granted; name one of tcp:1."),
        (("--tcp-port", "0"), "'0' is not a port from 1 to 65535"),
        (("--tls-hostname", "10.0.0.1"), "--tls-hostname: "),
        (("--hostname", "a.test", "--tls-hostname", "A.test"), "a.test is given as --hostname and as --tls-hostname"),
    ],
)
def test_mistakes_are_sentences_and_make_no_file(
    culvert: Culvert, issuer: Path, words: tuple[str, ...], sentence: str
) -> None:
    made = create(culvert, issuer, *words)
    assert made.code in (1, 2)
    assert sentence in made.err
    assert not FILE.exists()


def test_a_renewal_keeps_what_was_granted_and_the_age_of_what_stays(culvert: Culvert, issuer: Path) -> None:
    assert create(culvert, issuer, "--tcp-port", "20022", "--allowed-source", "10.0.0.0/8").code == 0
    first = granted()
    words = ["tunnel", "renew", "--credentials-file", FILE, "--issuer-key", issuer]
    assert culvert(*words).code == 0
    assert granted().tcp_ports == first.tcp_ports
    assert culvert(*words, "--tcp-port", "20022", "--tls-hostname", "db.example.com").code == 0
    later = granted()
    assert later.tcp_ports == (GrantedPort(20022, first.tcp_ports[0].claimed_at),)
    assert later.tls_names[0].claimed_at >= first.tcp_ports[0].claimed_at
    assert later.version > first.version

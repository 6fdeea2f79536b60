"""Issuers: reading keys, and judging the names of grants on label boundaries."""

from pathlib import Path

import pytest

from culvert_protocol.statements import GrantedName, generate_issuer_key
from culvert_relay.config import ConfigError, IssuerConfig
from culvert_relay.issuers import Issuer, Issuers, judge, read_issuers


def issuer(*hostnames: str, label: str = "demo") -> Issuer:
    key = generate_issuer_key().public
    return Issuer(label, key.issuer_id, (key,), hostnames)


@pytest.mark.parametrize(
    ("own", "name", "allowed"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "*.b.example.com", True),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "*.com", False),
        ("example.com", "*.example.com", False),
    ],
)
def test_a_name_lies_inside_an_issuers_names_on_label_boundaries(own: str, name: str, allowed: bool) -> None:
    assert issuer(own).allows(name) is allowed
    if not name.startswith("*"):
        assert Issuers.of([issuer(own)]).cover(name.encode()) is allowed


def test_judging_a_grant() -> None:
    verdict = judge(
        [
            GrantedName("WWW.example.com.", 5),
            GrantedName("www.example.com", 3),
            GrantedName("*.a.example.com", 7),
            GrantedName("other.test", 1),
            GrantedName("10.0.0.1", 1),
            GrantedName("*", 1),
        ],
        issuer("*.example.com"),
    )
    assert verdict.claims == {"www.example.com": 3, "*.a.example.com": 7}
    assert verdict.refused == {"other.test": "not_in_issuer", "10.0.0.1": "invalid_hostname", "*": "invalid_hostname"}


def test_reading_keys_with_successors(tmp_path: Path) -> None:
    first, second = generate_issuer_key().public, generate_issuer_key().public
    (tmp_path / "a.pub").write_bytes(first.pem() + second.pem())
    issuers = read_issuers([IssuerConfig("a", tmp_path / "a.pub", ("a.test",))])
    assert set(issuers.keys) == {first.thumbprint, second.thumbprint}
    assert list(issuers.by_id) == [first.thumbprint]


def test_unusable_key_files(tmp_path: Path) -> None:
    def read(name: str) -> None:
        read_issuers([IssuerConfig("demo", tmp_path / name, ("a.test",))])

    with pytest.raises(ConfigError, match=r"public key of issuer demo cannot be read: .*missing\.pub: No such file"):
        read("missing.pub")
    (tmp_path / "private.pub").write_bytes(generate_issuer_key().pem())
    with pytest.raises(ConfigError, match="holds a private key, which no relay may have"):
        read("private.pub")
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(ConfigError, match="does not hold PEM blocks"):
        read("text.pub")


def test_one_key_for_two_issuers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pub").write_bytes(generate_issuer_key().public.pem())
    twice = [IssuerConfig(name, tmp_path / "a.pub", ("a.test",)) for name in ("one", "two")]
    with pytest.raises(ConfigError, match="issuers one and two have the same key"):
        read_issuers(twice)

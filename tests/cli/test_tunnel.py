"""``culvert tunnel create`` and ``renew``: what is in the file, and what a renewal keeps and changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from culvert_cli import tunnel
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.statements import (
    Credential,
    Grant,
    key_set,
    load_issuer_public,
    verify_credential,
    verify_grant,
)

Culvert = Callable[..., Any]
FILE = Path("home.json")
START_NS = 1_732_377_600_250_000_000


class Wall:
    """The wall clock of the command line, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = START_NS
        monkeypatch.setattr(tunnel.time, "time_ns", lambda: self.ns)

    @property
    def seconds(self) -> int:
        return self.ns // 10**9

    def advance(self, seconds: int) -> None:
        self.ns += seconds * 10**9


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def create(culvert: Culvert, issuer: Path, *more: str) -> Any:
    words = ["--issuer-key", issuer, "--hostname", "app.example.com", "--credentials-file", FILE]
    return culvert("tunnel", "create", "home", *words, *more)


def renew(culvert: Culvert, issuer: Path, *more: str | Path) -> Any:
    return culvert("tunnel", "renew", "--credentials-file", FILE, "--issuer-key", issuer, *more)


def load() -> CredentialsFile:
    return CredentialsFile.loads(FILE.read_bytes())


def verified(public: Path, now: int) -> tuple[Credential, Grant]:
    """Both statements, checked as a relay with this public key file checks them."""
    keys = key_set(load_issuer_public(public.read_bytes()))
    file = load()
    assert file.grant is not None
    return verify_credential(file.credential, keys, now=now), verify_grant(file.grant, keys, now=now)


def test_create_writes_credentials_that_a_relay_accepts(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    made = create(culvert, issuer, "--hostname", "*.Dev.Example.com.", "--hostname", "APP.example.com")
    assert made.code == 0
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    credential, grant = verified(issuer.with_name("issuer.pub"), wall.seconds)
    file = load()
    assert file.tunnel == "home"
    assert credential.tunnel == grant.tunnel
    assert credential.tunnel.subject == file.tunnel_id
    assert credential.expires_at - credential.issued_at == 365 * 86_400
    assert grant.expires_at == credential.expires_at
    assert [name.hostname for name in grant.names] == ["app.example.com", "*.dev.example.com"]
    assert {name.claimed_at for name in grant.names} == {grant.version} == {START_NS // 10**6}
    assert file.tunnel_id in made.out
    assert "2025-11-23 16:00:00 UTC" in made.out


def test_nothing_secret_is_printed(culvert: Culvert, issuer: Path) -> None:
    made, again = create(culvert, issuer), create(culvert, issuer)
    file = load()
    for secret in (file.credential, file.private_key.seed.hex(), file.credential.split(".")[2]):
        assert secret not in made.out + made.err + again.err


def test_create_never_overwrites(culvert: Culvert, issuer: Path) -> None:
    assert create(culvert, issuer).code == 0
    before = FILE.read_bytes()
    refused = create(culvert, issuer)
    assert refused.code == 1
    assert "home.json exists already and is not overwritten" in refused.err
    assert FILE.read_bytes() == before
    assert sorted(os.listdir()) == ["home.json", "keys"]


def test_two_tunnels_differ_in_id_and_key(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    one = load()
    FILE.unlink()
    create(culvert, issuer)
    two = load()
    assert one.tunnel_id != two.tunnel_id
    assert one.key_id != two.key_id


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("12h", 43_200), ("2w", 1_209_600), ("90d", 7_776_000), ("600s", 600)]
)
def test_valid_for(culvert: Culvert, issuer: Path, text: str, seconds: int) -> None:
    assert create(culvert, issuer, "--valid-for", text).code == 0
    credential = load().read_credential()
    assert credential.expires_at - credential.issued_at == seconds


@pytest.mark.parametrize("text", ["0d", "4m", "365", "1y", "-1d", "1.5d", "36501d", ""])
def test_an_impossible_lifetime_is_wrong_usage(culvert: Culvert, issuer: Path, text: str) -> None:
    refused = create(culvert, issuer, f"--valid-for={text}")
    assert refused.code == 2
    assert "--valid-for" in refused.err
    assert not FILE.exists()


def test_every_bad_hostname_is_named(culvert: Culvert, issuer: Path) -> None:
    refused = create(culvert, issuer, "--hostname", "10.0.0.1", "--hostname", "https://x.example.com")
    assert refused.code == 1
    assert "'10.0.0.1' is an IP address" in refused.err
    assert "'https://x.example.com' has a scheme" in refused.err
    assert not FILE.exists()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "n" * 254])
def test_a_tunnels_name_is_printable(culvert: Culvert, issuer: Path, name: str) -> None:
    words = ["--issuer-key", issuer, "--hostname", "a.example.com", "--credentials-file", FILE]
    refused = culvert("tunnel", "create", name, *words)
    assert refused.code == 1
    assert "printable characters" in refused.err


def test_a_public_key_is_no_issuer_key(culvert: Culvert, issuer: Path) -> None:
    refused = create(culvert, issuer.with_name("issuer.pub"))
    assert refused.code == 1
    assert "holds a public key; give the private one" in refused.err


# --- renewal ------------------------------------------------------------------------------------------------


def test_renewing_keeps_the_tunnel_and_the_claims_and_outdates_the_rest(
    culvert: Culvert, issuer: Path, wall: Wall
) -> None:
    create(culvert, issuer, "--valid-for", "30d")
    old, (old_credential, old_grant) = load(), verified(issuer.with_name("issuer.pub"), wall.seconds)
    wall.advance(86_400)
    assert renew(culvert, issuer).code == 0
    new, (credential, grant) = load(), verified(issuer.with_name("issuer.pub"), wall.seconds)
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    assert (new.tunnel, new.tunnel_id, credential.tunnel) == (old.tunnel, old.tunnel_id, old_credential.tunnel)
    assert credential.issued_at == old_credential.issued_at + 86_400
    assert credential.expires_at - credential.issued_at == 30 * 86_400
    assert credential.key_id != old_credential.key_id
    assert credential.jti != old_credential.jti
    assert grant.names == old_grant.names
    assert grant.version == old_grant.version + 86_400_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to somebody else")
def test_what_root_renews_stays_readable_for_the_service_that_owns_it(culvert: Culvert, issuer: Path) -> None:
    assert create(culvert, issuer).code == 0
    os.chown(FILE, 65532, 65531)
    assert renew(culvert, issuer).code == 0
    found = os.stat(FILE)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65532, 65531, 0o600)


def test_renewing_within_the_same_moment_is_still_newer(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    create(culvert, issuer)
    old_credential, old_grant = verified(issuer.with_name("issuer.pub"), wall.seconds)
    assert renew(culvert, issuer).code == 0
    credential, grant = verified(issuer.with_name("issuer.pub"), wall.seconds)
    assert credential.issued_at == old_credential.issued_at + 1
    assert grant.version == old_grant.version + 1


def test_renewing_with_other_names_keeps_the_age_of_those_that_stay(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    create(culvert, issuer, "--hostname", "gone.example.com")
    wall.advance(3600)
    assert renew(culvert, issuer, "--hostname", "new.example.com", "--hostname", "App.example.com").code == 0
    _, grant = verified(issuer.with_name("issuer.pub"), wall.seconds)
    assert {name.hostname: name.claimed_at for name in grant.names} == {
        "app.example.com": START_NS // 10**6,
        "new.example.com": START_NS // 10**6 + 3_600_000,
    }


def test_renewing_an_expired_credential_works(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    create(culvert, issuer, "--valid-for", "5m")
    wall.advance(86_400 * 400)
    assert renew(culvert, issuer, "--valid-for", "1d").code == 0
    verified(issuer.with_name("issuer.pub"), wall.seconds)


def test_a_clock_that_went_back_is_noticed(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    create(culvert, issuer)
    before = FILE.read_bytes()
    wall.advance(-3600)
    refused = renew(culvert, issuer)
    assert refused.code == 1
    assert "issued in the future; set this machine's clock right" in refused.err
    assert FILE.read_bytes() == before


def test_whoever_reads_during_a_renewal_sees_the_whole_old_file(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    before = FILE.read_bytes()
    with FILE.open("rb") as reader:
        assert renew(culvert, issuer).code == 0
        assert reader.read() == before
    assert FILE.read_bytes() != before


def test_renewing_goes_through_a_symbolic_link(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    Path("real").mkdir()
    FILE.rename("real/home.json")
    FILE.symlink_to("real/home.json")
    old = load()
    assert renew(culvert, issuer).code == 0
    assert FILE.is_symlink()
    assert load().key_id != old.key_id
    assert os.listdir("real") == ["home.json"]


def test_another_issuers_key_cannot_renew(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    before = FILE.read_bytes()
    culvert("keys", "create", "--out", "other")
    refused = renew(culvert, Path("other/issuer.key"))
    assert refused.code == 1
    assert "give the right --issuer-key" in refused.err
    refused = renew(culvert, Path("other/issuer.key"), "--issuer-pub", "other/issuer.pub")
    assert refused.code == 1
    assert "but this tunnel's issuer is" in refused.err
    refused = renew(culvert, Path("other/issuer.key"), "--issuer-pub", issuer.with_name("issuer.pub"))
    assert refused.code == 1
    assert "is not in the public key file" in refused.err
    assert FILE.read_bytes() == before


def test_a_successor_key_renews_and_creates_for_the_first(culvert: Culvert, issuer: Path, wall: Wall) -> None:
    create(culvert, issuer)
    old = load()
    culvert("keys", "create", "--out", "new")
    both = Path("both.pub")
    both.write_text(culvert("keys", "show", issuer, "new/issuer.key").out)
    wall.advance(60)
    assert renew(culvert, Path("new/issuer.key"), "--issuer-pub", both).code == 0
    credential, _ = verified(both, wall.seconds)
    assert credential.tunnel == old.read_credential().tunnel
    assert credential.signed_by != old.read_credential().signed_by
    FILE.unlink()
    assert create(culvert, Path("new/issuer.key"), "--issuer-pub", "both.pub").code == 0
    assert verified(both, wall.seconds)[0].tunnel.issuer == credential.tunnel.issuer
    FILE.unlink()
    refused = create(culvert, Path("new/issuer.key"), "--issuer-pub", str(issuer.with_name("issuer.pub")))
    assert refused.code == 1
    assert "relays would refuse the tunnel" in refused.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "Cannot read home.json"), ("{}", "schema is not 1"), ("nonsense", "is not JSON")],
)
def test_renewing_needs_a_credentials_file(culvert: Culvert, issuer: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        FILE.write_text(content)
    refused = renew(culvert, issuer)
    assert refused.code == 1
    assert sentence in refused.err


def test_a_clusters_credentials_are_the_operators_to_renew(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    file = load()
    FILE.write_text(CredentialsFile(file.tunnel, file.tunnel_id, file.credential, file.private_key).dumps())
    refused = renew(culvert, issuer)
    assert refused.code == 1
    assert "the operator renews it" in refused.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--config", "config.yml"), "leave it out, or --config"),
        (("--relay", "relay.example.com:443"), "--url needs --credentials-file"),
        (("--credentials-file", "home.json"), "and --relay HOST:PORT"),
        (("--metrics", "nowhere"), "is not host:port"),
    ],
)
def test_one_service_without_a_file_needs_what_the_file_would_say(
    culvert: Culvert, words: tuple[str, ...], sentence: str
) -> None:
    refused = culvert("tunnel", "run", "--url", "http://localhost:3000", *words)
    assert refused.code == 2
    assert sentence in " ".join(refused.err.split())


def test_a_service_that_is_none_is_named_as_the_option(culvert: Culvert, issuer: Path) -> None:
    create(culvert, issuer)
    where = ("--credentials-file", "home.json", "--relay", "127.0.0.1:1", "--metrics", "127.0.0.1:0")
    refused = culvert("tunnel", "run", "--url", "gopher://localhost", *where)
    assert refused.code == 1
    assert "--url: " in refused.err
    assert "gopher" in refused.err

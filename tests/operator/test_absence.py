"""An operator that is away: what it has written serves on by itself, for as long as the credential lives."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from culvert_operator.credentials import SECRET_KEY
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.keys import PrivateKey
from culvert_protocol.statements import StatementError, verify_credential, verify_grant

MAIN = ObjectKey("culvert-system", "main")
SECRET = ("culvert-system", ChildKey("Secret", "main-credential"))
DAY = 86400
KEYS = {PrivateKey(b"\x01" * 32).public.thumbprint: PrivateKey(b"\x01" * 32).public}


def accepted(world: Any) -> bool:
    """Whether a relay takes what a connector Pod that starts now would mount: its credential, and its grant."""
    mounted = base64.b64decode(world.children[SECRET]["data"][SECRET_KEY])
    document = world.document(MAIN)
    try:
        verify_credential(CredentialsFile.loads(mounted).credential, KEYS, now=world.now)
        grant = verify_grant(document.grant, KEYS, now=world.now)
    except StatementError:
        return False
    return {name.hostname for name in grant.names} == set(document.hostnames()) and grant.version == document.version


@pytest.fixture
def settled(world: Any) -> Any:
    world.binding("web", "shop", "shop.example.com")
    world.settle()
    return world


@pytest.mark.parametrize("into_the_day", [0, DAY - 1])
def test_d33_connectors_that_restart_are_accepted_for_weeks_without_an_operator(
    settled: Any, into_the_day: int
) -> None:
    # It is renewed daily: at whatever moment the operator goes, at least 29 days are left.
    settled.now += into_the_day
    settled.settle()
    left = settled.now
    for day in range(29):
        settled.now = left + day * DAY
        assert accepted(settled), f"after {day} days"
    settled.settle()
    assert settled.now + 29 * DAY < settled.snapshot(MAIN).credential.expires_at
    assert accepted(settled)


def test_d33_an_operator_that_comes_back_after_the_end_of_the_credential_makes_a_new_one_at_once(settled: Any) -> None:
    settled.now += 40 * DAY
    assert not accepted(settled)
    settled.settle()
    assert accepted(settled)
    assert settled.condition(MAIN, "CredentialsReady") == ("True", "Issued")
    assert settled.ledger == {}, "what has expired needs no revocation"


def test_d33_what_people_changed_meanwhile_is_done_when_it_comes_back(settled: Any) -> None:
    settled.now += 10 * DAY
    settled.binding("web", "shop", "new.example.com")
    other = settled.binding("other", "blog", "shop.example.com")
    assert settled.routes(MAIN) == ["shop.example.com shop/web/r0"], "nobody is there"
    settled.settle()
    assert settled.condition(ObjectKey("shop", "web"), "Ready") == ("True", "Ready")
    assert settled.condition(other, "Ready") == ("True", "Ready")
    assert {name for name, _ in settled.zone} == {"new.example.com", "shop.example.com"}

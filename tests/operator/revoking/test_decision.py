"""When older credentials are revoked: after a rotation in the safe order, and when a Tunnel goes."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_operator.certificates import make_authority
from culvert_operator.conditions.condition import moment
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_protocol.keys import PrivateKey
from culvert_protocol.statements import verify_revocation

MAIN = ObjectKey("culvert-system", "main")
SECRET = ("culvert-system", ChildKey("Secret", "main-credential"))
ROTATED_AT = "culvert.dev/rotated-at"
DAY = 86400
CA = make_authority("relays", now=1_764_000_000.0).certificate.decode()


@pytest.fixture
def settled(world: Any) -> Any:
    world.service("web", "shop")
    world.binding("web", "shop", "shop.example.com")
    world.settle()
    return world


def rotate(world: Any, value: str | None) -> None:
    found = world.tunnels[MAIN]["metadata"].setdefault("annotations", {})
    found.pop("culvert.dev/rotate", None) if value is None else found.update({"culvert.dev/rotate": value})
    world._touch(world.tunnels[MAIN])


def credential(world: Any) -> Any:
    held = world.snapshot(MAIN).credential
    assert held is not None
    return held


def test_d21_a_rotation_revokes_the_older_credential_only_after_every_connector_uses_the_new_one(settled: Any) -> None:
    old = credential(settled)
    settled.now += 1
    settled.key_ids = {"pod-0": old.key_id, "pod-1": old.key_id}
    rotate(settled, "today")
    settled.settle()
    new = credential(settled)
    assert new.key_id != old.key_id
    assert settled.ledger == {}, "revoking now would end every session"
    assert settled.condition(MAIN, "CredentialsReady") == ("True", "RotationPending")
    assert "pod-0, pod-1" in settled.message(MAIN, "CredentialsReady")
    assert settled.condition(MAIN, "Ready")[0] == "True"
    settled.key_ids = {"pod-1": old.key_id}
    settled.settle()
    assert settled.ledger == {}
    assert "pod-0" not in settled.message(MAIN, "CredentialsReady")
    settled.key_ids = {}
    settled.settle()
    (revoked,) = settled.ledger.values()
    assert old.issued_at < revoked.not_before <= new.issued_at
    assert revoked.relay.addresses == ("relay.example.net:443",)
    assert settled.condition(MAIN, "CredentialsReady") == ("True", "Issued")
    # In-band: every connector repeats it to every relay from its configuration.
    (token,) = settled.document(MAIN).revocations
    key = PrivateKey(b"\x01" * 32).public
    told = verify_revocation(token, {key.thumbprint: key}, now=settled.now)
    assert (told.tunnel.subject, told.not_before) == ("inst:culvert-system/main", revoked.not_before)


def test_d21_a_connector_that_cannot_be_asked_holds_the_revocation_up_and_is_named(
    settled: Any, monkeypatch: Any
) -> None:
    real = settled.reports
    monkeypatch.setattr(settled, "reports", lambda key: real(key) | {"pod-1": None})
    settled.now += 1
    rotate(settled, "today")
    settled.settle()
    assert settled.ledger == {}
    assert "pod-1" in settled.message(MAIN, "CredentialsReady")
    monkeypatch.setattr(settled, "reports", real)
    settled.settle()
    assert len(settled.ledger) == 1


def test_d21_pods_that_end_finish_what_they_serve_before_the_revocation(settled: Any) -> None:
    deployment = settled.children["culvert-system", ChildKey("Deployment", "main-connector")]
    deployment["status"]["terminatingReplicas"] = 1
    settled._touch(deployment)
    settled.now += 1
    rotate(settled, "today")
    settled.settle()
    assert settled.ledger == {}
    assert "Pods that are ending" in settled.message(MAIN, "CredentialsReady")
    deployment["status"]["terminatingReplicas"] = 0
    settled._touch(deployment)
    settled.settle()
    assert len(settled.ledger) == 1


def test_a_rotation_in_the_second_of_the_issue_can_tell_the_two_credentials_apart(settled: Any) -> None:
    old = credential(settled)
    rotate(settled, "at once")
    settled.settle()
    (revoked,) = settled.ledger.values()
    assert old.issued_at < revoked.not_before == credential(settled).issued_at


def test_the_daily_renewal_revokes_nothing_and_does_not_forget_a_rotation_that_waits(settled: Any) -> None:
    settled.now += DAY
    settled.settle()
    assert settled.ledger == {}
    old = credential(settled)
    settled.now += 1
    rotate(settled, "today")
    settled.key_ids = {"pod-0": old.key_id}
    settled.settle()
    rotated = credential(settled)
    settled.now += DAY
    settled.settle()
    assert credential(settled).key_id != rotated.key_id
    assert settled.ledger == {}
    rotate(settled, None)  # it was asked for: taking the wish back does not bring the old one back
    settled.now += DAY
    settled.settle()
    settled.key_ids = {}
    settled.settle()
    (revoked,) = settled.ledger.values()
    assert revoked.not_before == rotated.issued_at


def test_a_revocation_is_repeated_until_older_credentials_have_expired_and_then_forgotten(settled: Any) -> None:
    settled.now += 1
    rotate(settled, "today")
    settled.settle()
    (revoked,) = settled.ledger.values()
    assert revoked.until >= revoked.not_before + settled.options.credential_lifetime_seconds
    settled.now = revoked.until - 1
    settled.settle()
    assert settled.document(MAIN).revocations
    settled.now = revoked.until
    settled.settle()
    assert settled.document(MAIN).revocations == ()
    assert settled.ledger == {revoked.subject: revoked}


def test_a_tunnels_first_credential_has_none_before_it_to_revoke(simulate: Any) -> None:
    world = simulate()
    world.tunnel()
    rotate(world, "from the start")
    world.settle()
    assert credential(world)
    assert world.ledger == {}


def test_an_annotation_that_somebody_wrote_does_not_revoke_the_credential_in_force(settled: Any) -> None:
    later = str(credential(settled).issued_at + 5)
    settled.children[SECRET]["metadata"].setdefault("annotations", {})[ROTATED_AT] = later
    settled._touch(settled.children[SECRET])
    settled.now += 60
    settled.settle()
    assert settled.ledger == {}


def test_new_relays_hear_of_a_revocation_that_is_still_repeated(settled: Any) -> None:
    settled.now += 1
    rotate(settled, "today")
    settled.settle()
    settled.tunnel(relay={"addresses": ["relay.example.net:443", "second.example.net:443"]}, dns=None)
    settled.settle()
    (revoked,) = settled.ledger.values()
    assert revoked.relay.addresses == ("relay.example.net:443", "second.example.net:443")


def test_a_tunnel_that_is_made_anew_elsewhere_does_not_take_the_news_from_the_old_relays(settled: Any) -> None:
    settled.delete(MAIN)
    settled.settle()
    settled.untold = ("relay.example.net:443",)
    settled.tunnel(relay={"addresses": ["new.example.net:443"]})
    settled.settle()
    (entry,) = settled.ledger.values()
    assert entry.relay.addresses == ("relay.example.net:443",)
    settled.untold = ()
    settled.settle()
    (entry,) = settled.ledger.values()
    assert entry.relay.addresses == ("new.example.net:443",), "a copy of an old credential would be good there"


def test_relays_that_have_not_confirmed_stand_in_the_condition(settled: Any) -> None:
    settled.now += 1
    rotate(settled, "today")
    settled.untold = ("relay.example.net:443",)
    settled.settle()
    assert settled.condition(MAIN, "CredentialsReady") == ("True", "RevocationPending")
    assert "relay.example.net:443" in settled.message(MAIN, "CredentialsReady")
    assert settled.condition(MAIN, "Ready")[0] == "True"


def test_d22_a_tunnel_that_goes_is_revoked_after_its_records_and_before_it_is_let_go(settled: Any) -> None:
    last = credential(settled)
    settled.delete(MAIN)
    settled.settle()
    assert MAIN not in settled.tunnels
    (revoked,) = settled.ledger.values()
    assert last.issued_at < revoked.not_before <= settled.now
    order = [what for what in settled.history if what.startswith(("dns Delete", "revoked", "gone culvert-system/main"))]
    assert order[-2:] == ["revoked culvert-system/main", "gone culvert-system/main"]


def test_d22_a_tunnel_of_the_same_name_gets_a_credential_that_is_not_void(settled: Any) -> None:
    # Created, deleted and created again within one second: credentials are told apart by whole seconds.
    settled.tunnels[MAIN]["metadata"]["deletionTimestamp"] = moment(settled.now)
    settled._touch(settled.tunnels[MAIN])
    settled.settle()
    assert MAIN in settled.tunnels, "its successor's credential could be of the second that is revoked"
    assert 0 < settled.plan(MAIN).requeue_after <= 1
    settled.now += 1
    settled.settle()
    assert MAIN not in settled.tunnels
    (revoked,) = settled.ledger.values()
    settled.now -= 1  # another operator's clock
    settled.tunnel()
    settled.settle()
    assert credential(settled).issued_at >= revoked.not_before
    assert settled.document(MAIN).revocations, "the former Tunnel's credentials are still void"


def test_d22_connectors_of_other_tunnels_repeat_the_revocation_of_one_that_has_gone(settled: Any) -> None:
    other = settled.tunnel("other")
    settled.settle()
    assert settled.document(other).revocations == ()
    settled.delete(MAIN)
    settled.settle()
    assert MAIN not in settled.tunnels
    (token,) = settled.document(other).revocations
    key = PrivateKey(b"\x01" * 32).public
    told = verify_revocation(token, {key.thumbprint: key}, now=settled.now)
    assert told.tunnel.subject == "inst:culvert-system/main"


def without_its_ca(simulate: Any) -> tuple[Any, ObjectKey]:
    """A Tunnel that was served, and whose relay's CA is gone."""
    world = simulate()
    ca = ObjectKey("culvert-system", "relay-ca")
    world.config_maps[ca] = {"ca.crt": CA}
    relay = {"addresses": ["relay.example.net:443"], "caConfigMapRef": {"name": "relay-ca", "key": "ca.crt"}}
    key = world.tunnel(relay=relay)
    world.settle()
    del world.config_maps[ca]
    return world, key


def test_d12_a_tunnel_whose_ca_went_before_it_is_revoked_where_it_was_last_seen(simulate: Any) -> None:
    world, key = without_its_ca(simulate)
    world.delete(key)
    world.settle()
    (revoked,) = world.ledger.values()
    assert "BEGIN CERTIFICATE" in (revoked.relay.ca or "")
    assert key not in world.tunnels


def test_d12_a_tunnel_of_which_nothing_is_left_to_ask_goes_and_an_event_says_what_stays(simulate: Any) -> None:
    world, key = without_its_ca(simulate)
    world.children.clear()
    world.delete(key)
    world.settle()
    assert key not in world.tunnels
    (event,) = [e for e in world.events if e.reason == "RevocationUndelivered"]
    assert event.type == "Warning"
    assert moment(world.now + 30 * DAY)[:10] in event.message
    assert world.ledger == {}

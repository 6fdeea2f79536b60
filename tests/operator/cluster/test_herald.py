"""The herald: what is stored, who is told, what is tried again, and what a person sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from culvert_ingress.document import RelayTarget
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.issuer import Issuer
from culvert_operator.keys import ObjectKey
from culvert_operator.revoking import herald as heralds
from culvert_operator.revoking.herald import Herald, Watcher
from culvert_operator.world import Event, Revoke
from culvert_protocol.keys import generate_issuer_key
from culvert_protocol.statements import verify_revocation

MAIN = ObjectKey("ns", "main")
SUBJECT = "inst:ns/main"
START = 1_764_000_000
KEY = generate_issuer_key()
ISSUER = Issuer(KEY, KEY.public.thumbprint, "inst", "pem")
RELAY = RelayTarget(("a:1", "b:2"), "relay", None)


def wanted(not_before: int = START, *, relay: RelayTarget = RELAY, name: str = "main") -> Revoke:
    return Revoke(
        tunnel=ObjectKey("ns", name), uid="u", subject=f"inst:ns/{name}", not_before=not_before, issued_at=not_before,
        until=not_before + 3600, relay=relay,
    )  # fmt: skip


class Relays:
    """Answers as a test says; `told` is what each heard."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.told: list[tuple[str, str]] = []
        self.attempts = 0

    async def deliver(self, token: str, relay: RelayTarget) -> Mapping[str, str]:
        self.attempts += 1
        self.told += [(address, token) for address in relay.addresses if address not in self.away]
        return {address: "it is away." if address in self.away else "" for address in relay.addresses}


class Scene:
    """One leader's herald on a small API server."""

    patch: pytest.MonkeyPatch

    def __init__(self, server: Any, client: Client) -> None:
        self.server, self.client, self.relays = server, client, Relays()
        self.now = float(START)
        self.events: list[Event] = []
        self.changed: list[ObjectKey] = []
        self.attempts: list[str] = []
        self.held: list[tuple[int, int]] = []
        self.repeats = 0

    def herald(self) -> Herald:
        async def event(one: Event) -> None:
            self.events.append(one)

        def repeats() -> None:
            self.repeats += 1

        watcher = Watcher(
            changed=self.changed.append,
            repeats=repeats,
            event=event,
            attempt=self.attempts.append,
            held=lambda entries, untold: self.held.append((entries, untold)),
        )
        return Herald(
            self.client, "ns", ISSUER, watcher=watcher, deliver=self.relays.deliver, now=lambda: self.now,
            random=lambda: 0.0,
        )  # fmt: skip

    def stored(self) -> dict[str, str]:
        found = self.server.objects.get((kinds.CONFIG_MAP.plural, "ns", heralds.NAME))
        return dict((found or {}).get("data", {}))


async def until(what: Callable[[], Any]) -> None:
    while not what():  # noqa: ASYNC110 (what is awaited has no event)
        await asyncio.sleep(0.01)


def run(api_server: Any, scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            await scenario(Scene(server, client))

    asyncio.run(bounded())


def test_a_revocation_is_stored_signed_and_told_to_every_relay(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        assert herald.state(SUBJECT) is None
        await herald.record(wanted())
        state = herald.state(SUBJECT)
        assert state is not None
        assert state.untold == RELAY.addresses
        told = verify_revocation(state.token, {KEY.public.thumbprint: KEY.public}, now=scene.now)
        assert (told.tunnel.subject, told.not_before) == (SUBJECT, START)
        await until(lambda: scene.changed)
        assert sorted(scene.relays.told) == [("a:1", state.token), ("b:2", state.token)]
        state = herald.state(SUBJECT)
        assert state is not None
        assert state.untold == ()
        assert (scene.attempts, scene.held[-1], scene.events) == (["confirmed", "confirmed"], (1, 0), [])
        await herald.close()

    run(api_server, scenario)


def test_a_relay_that_is_away_is_told_again_and_again_and_shown_once(
    api_server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heralds, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(heralds, "LAST_RETRY", 0.02)

    async def scenario(scene: Scene) -> None:
        scene.relays.away = {"b:2"}
        herald = scene.herald()
        await herald.load()
        await herald.record(wanted())
        await until(lambda: scene.relays.attempts >= 5)
        state = herald.state(SUBJECT)
        assert state is not None
        assert state.untold == ("b:2",)
        (event,) = scene.events
        assert (event.kind, event.key, event.reason) == ("Tunnel", MAIN, "RevocationUndelivered")
        assert "b:2: it is away." in event.message
        assert scene.held[-1] == (1, 1)
        assert state.token not in event.message
        assert sum("has not confirmed" in record.message for record in caplog.records) == 1
        scene.relays.away = set()
        await until(lambda: herald.state(SUBJECT).untold == ())  # type: ignore[union-attr]
        assert scene.held[-1] == (1, 0)
        await herald.close()

    run(api_server, scenario)


def test_the_next_leader_goes_on_where_the_last_one_was_and_writes_nothing_when_all_is_told(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        scene.relays.away = {"b:2"}
        first = scene.herald()
        await first.load()
        await first.record(wanted())
        await until(lambda: scene.events)
        before = first.state(SUBJECT)
        await first.close()
        stored = scene.stored()
        second = scene.herald()
        await second.load()
        assert second.state(SUBJECT) == before
        await until(lambda: scene.relays.attempts >= 2)
        await asyncio.sleep(0)
        assert scene.stored() == stored, "a restart over an unchanged world writes nothing"
        assert len(scene.events) == 1
        scene.relays.away = set()
        await until(lambda: scene.held[-1] == (1, 0))
        await second.close()
        writes = [r for r in scene.server.requests if r[0] != "GET"]
        third = scene.herald()
        await third.load()
        attempts = scene.relays.attempts
        await until(lambda: scene.relays.attempts > attempts)
        await third.close()
        assert [r for r in scene.server.requests if r[0] != "GET"] == writes

    run(api_server, scenario)


def test_one_that_has_expired_is_forgotten(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        await herald.record(wanted())
        await herald.record(wanted(name="other", not_before=START + 100))
        await until(lambda: scene.held[-1] == (2, 0))
        await herald.close()
        scene.now += 3650
        herald = scene.herald()
        await herald.load()
        assert herald.state(SUBJECT) is None
        assert herald.state("inst:ns/other") is not None
        await herald.close()

    run(api_server, scenario)


def test_a_ledger_that_somebody_deleted_is_written_whole_with_the_next_one(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        await herald.record(wanted())
        await until(lambda: scene.held[-1] == (1, 0))
        await scene.server.remove(kinds.CONFIG_MAP, heralds.NAME, "ns")
        await herald.record(wanted(name="other"))
        assert len(scene.stored()) == 2
        await herald.close()

    run(api_server, scenario)


def test_nobody_is_told_what_could_not_be_stored(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        scene.server.refusals.append((403, {}))
        with pytest.raises(APIError):
            await herald.record(wanted())
        assert herald.state(SUBJECT) is None
        assert scene.relays.attempts == 0
        await herald.close()

    run(api_server, scenario)


def test_connectors_repeat_what_concerns_their_relays_the_newest_when_there_are_too_many(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        assert herald.repeated(RELAY) == ()
        for number in range(3):
            await herald.record(wanted(START + number, name=f"t{number}"))
        await herald.record(wanted(name="elsewhere", relay=RelayTarget(("z:9",), None, None)))
        tokens = [herald.state(f"inst:ns/t{n}").token for n in range(3)]  # type: ignore[union-attr]
        assert herald.repeated(RelayTarget(("b:2",), None, None)) == tuple(tokens)
        scene.patch.setattr(heralds, "MAX_REPEATED", 2)
        assert herald.repeated(RELAY) == tuple(tokens[1:])
        scene.patch.setattr(heralds, "MAX_REPEATED_BYTES", len(tokens[2]))
        assert herald.repeated(RELAY) == (tokens[2],)
        assert scene.repeats == 4
        scene.now += 3601  # the first has expired
        assert herald.repeated(RELAY) == (tokens[2],)
        scene.now += 2
        assert herald.repeated(RELAY) == ()
        await herald.close()

    with pytest.MonkeyPatch.context() as patch:
        Scene.patch = patch
        run(api_server, scenario)


def test_new_relays_of_the_same_revocation_get_the_same_statement(api_server: Any) -> None:
    async def scenario(scene: Scene) -> None:
        herald = scene.herald()
        await herald.load()
        await herald.record(wanted())
        await until(lambda: scene.held[-1] == (1, 0))
        before = herald.state(SUBJECT)
        await herald.record(wanted(relay=RelayTarget(("c:3",), "relay", None)))
        await until(lambda: any(address == "c:3" for address, _ in scene.relays.told))
        after = herald.state(SUBJECT)
        assert before is not None
        assert after is not None
        assert before.token == after.token
        await herald.close()

    run(api_server, scenario)

"""Connectors at the door: handshakes, proofs, slots, grants, credentials, revocations."""

import asyncio
import time
from typing import Any

import pytest

from culvert_protocol.frames import FrameType, encode_frame
from culvert_protocol.handshake import Accepted, Refused, build_request, parse_answer
from culvert_protocol.messages import Credential, Routes
from culvert_protocol.revocation_post import build_revocation_request
from culvert_protocol.statements import generate_key, prove, verify_revocation
from culvert_relay.tunnels import session as sessions
from culvert_relay.tunnels.limiter import BURST

UUID = "00000000-0000-4000-8000-0000000000aa"


def handshake(token: str, *, host: str = "relay.test", slot: int = 0, generation: int = 1) -> bytes:
    return build_request(host, token, UUID, slot, generation)


def test_the_relay_names_itself_in_its_hello(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.session()
        assert (connector.relay_hello.relay, connector.relay_hello.ids) == ("relay-1", ("relay-1",))
        await wait_until(lambda: len(world.edge.registry) == 1, "the session")

    play(scenario)


def test_every_authentication_failure_reads_the_same(play: Any, new_issuer: Any) -> None:
    async def scenario(world: Any) -> None:
        key = generate_key()
        good = world.issuer.credential("main", key)
        expired = world.issuer.credential("main", key, issued=-7200, valid_for=3600)
        future = world.issuer.credential("main", key, issued=7200)
        foreign = new_issuer().credential("main", key)
        grant = world.issuer.grant("main", ["app.example.com"])
        forged = good[:-4] + ("AAAA" if not good.endswith("AAAA") else "BBBB")
        seen = set()
        for token in (expired, future, foreign, grant, forged, "a.b.c"):
            answer, _, _ = await world.dial(handshake(token))
            assert isinstance(answer, Refused)
            seen.add((answer.status, answer.reason, answer.detail))
        assert len(seen) == 1
        assert seen.pop()[0] == 401
        assert set(world.edge.counters.handshakes_refused) >= {"expired", "not_yet_valid", "unknown_key", "wrong_type"}
        assert not len(world.edge.registry)

    play(scenario)


def test_a29_d23_an_address_that_fails_too_often_hears_429_but_a_valid_credential_passes(play: Any) -> None:
    async def scenario(world: Any) -> None:
        statuses = []
        for _ in range(int(BURST) + 3):
            answer, _, _ = await world.dial(handshake("a.b.c"))
            statuses.append(answer.status)
        assert statuses[0] == 401
        assert statuses[-1] == 429
        answer, _, _ = await world.dial(handshake(world.issuer.credential("main", generate_key())))
        assert isinstance(answer, Accepted)

    play(scenario)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Upgrade: culvert/1", b"Upgrade: culvert/9"), 426),
        ((b"GET /", b"PUT /"), 405),
        ((b"/session", b"/nothing"), 404),
        ((b"Host: relay.test", b"Host: other.test"), 400),
        ((b"Culvert-Session: 0.1", b"Culvert-Session: zero"), 400),
        ((b"\r\n\r\n", b"\r\n\r\nmore"), 400),
        ((b"Connection: Upgrade", b"Connection: Upgrade\r\nX: " + b"a" * 13_000), 431),
    ],
)
def test_malformed_handshakes(play: Any, change: tuple[bytes, bytes], status: int) -> None:
    async def scenario(world: Any) -> None:
        token = world.issuer.credential("main", generate_key())
        answer, _, _ = await world.dial(handshake(token).replace(*change))
        assert isinstance(answer, Refused)
        assert answer.status == status

    play(scenario)


@pytest.mark.parametrize("wrong", ["key", "name"])
def test_a_credential_without_its_key_opens_nothing(play: Any, wait_until: Any, wrong: str) -> None:
    async def scenario(world: Any) -> None:
        honest = await world.connector(["app.example.com"], connector=UUID)
        options = {"prover": generate_key()} if wrong == "key" else {"proof_name": "another.relay.test"}
        thief = await world.session(connector=UUID, generation=2, **options)
        await wait_until(lambda: thief.closed is not None, "the thief's end")
        assert "proof" in thief.drained
        # The session it meant to replace has not been touched.
        assert honest.closed is None
        assert (await (await world.visitor()).get("app.example.com")).status == 200

    play(scenario)


def test_nothing_is_heeded_before_hello(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        key = generate_key()
        token = world.issuer.credential("main", key)
        answer, transport, _ = await world.dial(handshake(token))
        assert isinstance(answer, Accepted)
        routes = Routes(world.issuer.grant("main", ["app.example.com"]))
        transport.write(encode_frame(0, FrameType.ROUTES, routes.encode()))
        await wait_until(transport.is_closing, "the end")
        assert not len(world.edge.registry.table)

    play(scenario)


def test_a_connection_that_says_nothing_is_ended(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        tunnels = world.relay.tunnels
        _, writer = await asyncio.open_connection(
            "127.0.0.1", world.relay.ports.tunnel[0], ssl=world.clients, server_hostname="relay.test"
        )
        answer, silent, _ = await world.dial(handshake(world.issuer.credential("main", generate_key())))
        assert isinstance(answer, Accepted)
        await wait_until(lambda: len(tunnels.waiting) == 1 and len(tunnels.unproven) == 1, "both to be there")
        world.edge.stop()
        world.edge.wheel.advance(world.edge.wheel.now + 30)
        await wait_until(lambda: not tunnels.waiting and not tunnels.unproven, "both to be gone")
        await wait_until(silent.is_closing, "the transport's end")
        writer.close()
        assert len(world.edge.wheel) == 0

    play(scenario)


def test_a_higher_generation_replaces_the_session_of_its_slot_alone(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        old = await world.connector(["app.example.com"], connector=UUID, slot=0, generation=5)
        sibling = await world.connector(["app.example.com"], connector=UUID, slot=1, generation=1)
        answer, _, _ = await world.dial(
            build_request("relay.test", world.issuer.credential("main", generate_key()), UUID, 0, 5)
        )
        assert isinstance(answer, Refused)
        assert answer.status == 409
        new = await world.connector(["app.example.com"], connector=UUID, slot=0, generation=6)
        await wait_until(lambda: old.closed is not None, "the old one's end")
        assert "generation 6" in old.drained
        assert (new.closed, sibling.closed, len(world.edge.registry)) == (None, None, 2)

    play(scenario)


def test_a_connector_has_sixteen_sessions_at_most(play: Any) -> None:
    async def scenario(world: Any) -> None:
        for slot in range(16):
            await world.session(connector=UUID, slot=slot)
        token = world.issuer.credential("main", generate_key())
        answer, _, _ = await world.dial(handshake(token, slot=16))
        assert isinstance(answer, Refused)
        assert (answer.status, answer.reason) == (409, "enough_sessions")
        await world.session()

    play(scenario)


def test_names_of_a_grant_are_judged_one_by_one(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(
            [
                "app.example.com",
                "*.deep.example.com",
                "example.com",
                "evilexample.com",
                "other.test",
                "*.com",
                "a_b.example.com",
            ]
        )
        assert connector.result() == {
            "app.example.com": "accepted",
            "*.deep.example.com": "accepted",
            "example.com": "accepted",
            "evilexample.com": "not_in_issuer",
            "other.test": "not_in_issuer",
            "*.com": "not_in_issuer",
            "a_b.example.com": "invalid_hostname",
        }
        visitor = await world.visitor()
        assert (await visitor.get("a.b.deep.example.com")).status == 200
        assert (await visitor.get("deep.example.com")).status == 503
        assert (await visitor.get("evilexample.com")).status == 404

    play(scenario)


def test_a29_a_grant_of_another_tunnel_serves_nothing(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector([], grant=world.issuer.grant("victim", ["app.example.com"]))
        assert connector.results[0].error == "wrong_tunnel"
        assert not len(world.edge.registry.table)

    play(scenario)


def test_of_two_tunnels_the_older_claim_holds_the_name_and_both_are_told(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        visitor = await world.visitor()
        young = await world.connector(
            {"app.example.com": 2_000, "own.example.com": 1},
            subject="young",
            handler=lambda r: r.respond(200, b"young"),
        )
        assert young.result()["app.example.com"] == "accepted"
        assert (await visitor.get("app.example.com")).body == b"young"
        old = await world.connector({"app.example.com": 1_000}, subject="old", handler=lambda r: r.respond(200, b"old"))
        assert old.result() == {"app.example.com": "accepted"}
        await wait_until(lambda: young.result()["app.example.com"] == "held_by_another_tunnel", "word to the younger")
        assert young.result()["own.example.com"] == "accepted"
        assert (await visitor.get("app.example.com")).body == b"old"
        assert (await visitor.get("own.example.com")).body == b"young"
        old.session.close("gone")
        await wait_until(lambda: young.result()["app.example.com"] == "accepted", "word that the name is free")
        assert (await visitor.get("app.example.com")).body == b"young"

    play(scenario)


def test_a_name_passes_to_the_tunnel_that_stands_by_with_the_last_session_that_gives_it_up(
    play: Any, wait_until: Any
) -> None:
    # How the operator lets a hostname pass from one Tunnel to another: both are granted it for a moment.
    async def scenario(world: Any) -> None:
        visitor = await world.visitor()
        old = [
            await world.connector(
                {"app.example.com": 1_000}, subject="old", version=1, handler=lambda r: r.respond(200, b"old")
            )
            for _ in range(2)
        ]
        heir = await world.connector(
            {"app.example.com": 2_000}, subject="heir", handler=lambda r: r.respond(200, b"heir")
        )
        assert heir.result() == {"app.example.com": "held_by_another_tunnel"}
        seen: list[bytes] = []
        for connector in old:
            answers = len(connector.results)
            connector.session.routes(Routes(world.issuer.grant("old", ["rest.example.com"], version=2)))
            while len(connector.results) == answers:
                seen.append((await visitor.get("app.example.com")).body)
            if connector is old[0]:
                assert heir.result() == {"app.example.com": "held_by_another_tunnel"}
        await wait_until(lambda: heir.result() == {"app.example.com": "accepted"}, "word to the heir")
        seen.append((await visitor.get("app.example.com")).body)
        assert set(seen) == {b"old", b"heir"}  # each was answered, by one of the two
        assert seen == sorted(seen, reverse=True)

    play(scenario)


def test_a_newer_grant_replaces_the_older_and_an_older_one_is_ignored(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        visitor = await world.visitor()
        connector = await world.connector(["one.example.com"], version=10)
        connector.session.routes(Routes(world.issuer.grant("main", ["two.example.com"], version=11)))
        await wait_until(lambda: len(connector.results) == 2, "the second result")
        assert (await visitor.get("one.example.com")).status == 503
        assert (await visitor.get("two.example.com")).status == 200
        connector.session.routes(Routes(world.issuer.grant("main", ["one.example.com"], version=9)))
        connector.session.routes(Routes(world.issuer.grant("main", ["three.example.com"], version=12)))
        await wait_until(lambda: len(connector.results) == 3, "the third result")
        assert [result.version for result in connector.results] == [10, 11, 12]
        assert [request.head.grant_version for request in connector.requests] == [11]

    play(scenario)


def test_replicas_on_different_versions_serve_what_each_was_granted(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["one.example.com"], version=1, handler=lambda r: r.respond(200, b"1"))
        await world.connector(["one.example.com", "two.example.com"], version=2, handler=lambda r: r.respond(200, b"2"))
        visitor = await world.visitor()
        assert {(await visitor.get("two.example.com")).body for _ in range(20)} == {b"2"}
        assert {(await visitor.get("one.example.com")).body for _ in range(50)} == {b"1", b"2"}

    play(scenario)


def test_a_large_grant_is_verified_off_the_loop_and_only_once(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        names = [f"host-{number}.example.com" for number in range(3_000)]
        grant = world.issuer.grant("main", names)
        first = await world.connector(names, grant=grant)
        second = await world.session()
        registry = world.edge.registry
        (pool,) = registry.pools()
        second.session.routes(Routes(grant))
        await wait_until(lambda: bool(second.results), "the second session's result")
        assert set(second.result().values()) == {"accepted"}
        assert len(second.results[0].results) == len(first.results[0].results) == 3_000
        assert registry.pools() == (pool,)
        assert len(pool.sessions()) == 2
        assert (await (await world.visitor()).get("host-2999.example.com")).status == 200

    play(scenario)


def test_names_are_gone_with_their_last_session(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        first = await world.connector(["app.example.com"])
        second = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        first.session.close("bye")
        await wait_until(lambda: len(world.edge.registry) == 1, "one session")
        assert (await visitor.get("app.example.com")).status == 200
        second.session.close("bye")
        await wait_until(lambda: len(world.edge.registry) == 0, "no session")
        assert (await visitor.get("app.example.com")).status == 503
        assert len(world.edge.registry.table) == 0
        assert world.edge.registry.pools() == ()

    play(scenario)


def test_a_credential_is_changed_in_band(play: Any, wait_until: Any, new_issuer: Any) -> None:
    async def scenario(world: Any) -> None:
        old_key, new_key = generate_key(), generate_key()
        connector = await world.session(key=old_key, credential=world.issuer.credential("main", old_key, issued=-100))

        async def present(token: str, proof: str) -> Any:
            count = len(connector.credential_results)
            connector.session.credential(Credential(token, proof))
            await wait_until(lambda: len(connector.credential_results) > count, "the result")
            return connector.credential_results[-1]

        nonce = connector.nonce
        good = world.issuer.credential("main", new_key)
        proof = prove(new_key, nonce=nonce, server_name="relay.test")
        other_nonce = prove(new_key, nonce="another-nonce-000000", server_name="relay.test")
        stranger = world.issuer.credential("other", new_key)
        older = world.issuer.credential("main", new_key, issued=-200)
        foreign = new_issuer().credential("main", new_key)
        for token, shown, reason in (
            (good, other_nonce, "bad_proof"),
            (stranger, proof, "wrong_tunnel"),
            (older, proof, "older"),
            (foreign, proof, "unknown_key"),
        ):
            result = await present(token, shown)
            assert (result.accepted, result.reason) == (False, reason)
        (session,) = world.relay.tunnels.sessions()
        assert session.credential.key_id == old_key.public.thumbprint
        assert (await present(good, proof)).accepted
        assert session.credential.key_id == new_key.public.thumbprint
        assert connector.closed is None

    play(scenario)


@pytest.mark.parametrize("how", ["post", "revoke", "routes", "https"])
def test_a_revocation_ends_older_sessions_and_is_remembered(play: Any, wait_until: Any, how: str) -> None:
    async def scenario(world: Any) -> None:
        old_key, new_key = generate_key(), generate_key()
        old_token = world.issuer.credential("main", old_key, issued=-100)
        old = await world.session(key=old_key, credential=old_token)
        new = await world.session(key=new_key)
        other = await world.session(subject="other", credential=None)
        revocation = world.issuer.revocation("main", not_before=int(time.time()) - 50)
        if how == "revoke":
            other.session.revoke((revocation,))
        elif how == "routes":
            other.session.routes(Routes(world.issuer.grant("other", ["x.example.com"]), (revocation,)))
        else:
            port = world.relay.ports.tunnel[0] if how == "post" else world.relay.ports.https[0]
            visitor = await world.visitor(sni="relay.test", port=port)
            visitor.send(build_revocation_request("relay.test", revocation))
            assert b" 204 " in await visitor.rest()
        await wait_until(lambda: old.closed is not None, "the old session's end")
        assert "revoked" in old.drained
        assert (new.closed, other.closed) == (None, None)
        answer, _, _ = await world.dial(handshake(old_token))
        assert isinstance(answer, Refused)
        assert answer.status == 401

    play(scenario)


def test_a_revocation_that_every_session_repeats_is_verified_once(
    play: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(token: str, *arguments: Any, **options: Any) -> Any:
        asked.append(token)
        return verify_revocation(token, *arguments, **options)

    monkeypatch.setattr(sessions, "verify_revocation", counting)

    async def scenario(world: Any) -> None:
        ends = [await world.session(subject=name, credential=None) for name in ("a", "b", "c")]
        good, bad = world.issuer.revocation("gone"), "not.one.atall"
        for number, end in enumerate(ends):
            end.session.revoke((good, bad))
            await wait_until(lambda number=number: asked.count(bad) == number + 1, "the statements' arrival")
        assert asked.count(good) == 1
        assert len(world.edge.revocations) == 1
        assert all(end.closed is None for end in ends)

    play(scenario)


def test_a_revocation_by_a_stranger_does_nothing(play: Any, new_issuer: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.session(credential=None)
        stranger = new_issuer()
        visitor = await world.visitor(sni="relay.test", port=world.relay.ports.tunnel[0])
        visitor.send(build_revocation_request("relay.test", stranger.revocation("main")))
        assert b" 401 " in await visitor.rest()
        assert connector.closed is None
        assert len(world.edge.revocations) == 0

    play(scenario)


def test_connectors_may_dial_the_https_door(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], port=world.relay.ports.https[0])
        assert (await (await world.visitor()).get("app.example.com")).status == 200
        visitor = await world.visitor(sni="relay.test")
        assert (await visitor.get("relay.test", "/other")).status == 404
        # Not over plain HTTP, where a credential would be readable.
        plain = await world.visitor()
        plain.send(handshake(world.issuer.credential("main", generate_key())))
        assert (await plain.response()).status == 404

    play(scenario)


def test_an_expiring_credential_drains_and_then_ends_its_session(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        tunnels = world.relay.tunnels
        wall = world.edge.wall
        world.edge.wall = lambda: wall() + 3_550
        tunnels._check_expiry()
        await wait_until(lambda: connector.drained is not None, "the drain")
        assert connector.closed is None
        world.edge.wall = lambda: wall() + 3_700
        tunnels._check_expiry()
        await wait_until(lambda: connector.closed is not None, "the end")

    play(scenario)


def test_an_expired_grant_serves_nothing_and_the_connector_is_told(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector([], grant=world.issuer.grant("main", ["app.example.com"], valid_for=100))
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com")).status == 200
        wall = world.edge.wall
        world.edge.wall = lambda: wall() + 200
        world.relay.tunnels._check_expiry()
        await wait_until(lambda: len(connector.results) == 2, "the word")
        assert connector.results[1].error == "expired"
        assert (await visitor.get("app.example.com")).status == 503
        assert connector.closed is None

    play(scenario)


def test_a8_a_session_whose_probe_fails_gets_no_requests_until_one_passes(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        (session,) = world.relay.tunnels.sessions()
        world.relay.tunnels.stop()
        visitor = await world.visitor()
        answer = connector.link.data_received
        held: list[bytes] = []
        connector.link.data_received = held.append
        session.probe.look()
        session.probe.look()
        assert not session.usable
        assert (await visitor.get("app.example.com")).status == 503
        await wait_until(lambda: bool(held), "the probe at the connector")
        connector.link.data_received = answer
        answer(b"".join(held))
        await wait_until(lambda: session.usable, "the probe's answer")
        assert (await visitor.get("app.example.com")).status == 200

    play(scenario)


def test_a_session_that_answers_requests_needs_no_probe(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        (session,) = world.relay.tunnels.sessions()
        world.relay.tunnels.stop()
        assert (await (await world.visitor()).get("app.example.com")).status == 200
        session.probe.look()
        assert not session.streams
        session.probe.look()
        assert len(session.streams) == 1

    play(scenario)


def test_a_draining_connector_gets_no_new_requests(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        leaving = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(leaving.requests), "a request under way")
        leaving.session.drain("rolling update")
        staying = await world.connector(["app.example.com"])
        (session,) = [item for item in world.relay.tunnels.sessions() if item.session.drain_received] or [None]
        assert session is not None
        assert not session.usable
        other = await world.visitor()
        for _ in range(20):
            assert (await other.get("app.example.com")).status == 200
        assert (len(leaving.requests), len(staying.requests)) == (1, 20)
        leaving.requests[0].respond(200, b"finished")
        assert (await visitor.response()).body == b"finished"

    play(scenario)


def test_a29_a_hostile_flood_of_frames_ends_the_session(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        transport = connector.link._transport
        for number in range(1, 2_000, 2):
            transport.write(encode_frame(number, FrameType.OPEN, b"\0" * 64))
        await wait_until(lambda: connector.closed is not None, "the end")
        assert not len(world.edge.registry)

    play(scenario)


def test_answers_of_the_tunnel_listener_carry_no_more_than_a_problem(play: Any) -> None:
    async def scenario(world: Any) -> None:
        visitor = await world.visitor(sni="relay.test", port=world.relay.ports.tunnel[0])
        visitor.send(b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n")
        data = await visitor.rest()
        answer = parse_answer(data, eof=True)
        assert isinstance(answer, Refused)
        assert (answer.status, answer.reason) == (404, "not_found")

    play(scenario)

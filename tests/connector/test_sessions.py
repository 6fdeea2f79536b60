"""Sessions with real relays on loopback: how many, where, and what happens when relays come, go, refuse or stall."""

import asyncio
import itertools

import pytest

from culvert_connector import session as session_module
from culvert_connector import sessions as sessions_module
from culvert_connector.dialling import addresses as addresses_module
from culvert_ingress.document import ConnectorSettings, RelayTarget
from culvert_ingress.rules import StatusService
from culvert_protocol.codes import ResetCode

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def status(world):
    return world.connector.report()


def test_the_wanted_sessions_stand_prove_themselves_and_carry_the_grant(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 4
            document = await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(4)
            ends = world.relay.sessions
            assert sorted(end.slot for end in ends) == [0, 1, 2, 3]
            assert all(end.proved for end in ends)
            assert {end.connector_id for end in ends} == {world.connector.connector_id}
            assert all(end.grants == [document.grant] for end in ends)
            await tools.until(lambda: world.connector.sessions.probed == 4, "four probed sessions")
            report = status(world)
            assert report.ready
            assert [one.state for one in report.sessions] == ["connected"] * 4
            assert report.key_id == world.connector.sessions.in_use.key_id
            assert not report.relay_errors

    tools.run(main())


def test_sessions_spread_over_addresses_and_every_address_gets_one(tools):
    async def main():
        for sessions, count in ((4, 2), (1, 3)):
            async with tools.world() as world:
                world.sessions = sessions
                for number in range(1, count):
                    relay = tools.Relay(world.issuer, world.certificates, relay_id=f"relay-{number + 1}")
                    world.relays.append(await relay.start())
                names = tuple(relay.address for relay in world.relays)
                target = RelayTarget(names, "relay.test", world.certificates.ca)
                await world.serve(tools.rule(StatusService(204)), relay=target)
                each = max(sessions // count, 1)
                for relay in world.relays:
                    await tools.until(lambda relay=relay, each=each: len(relay.sessions) == each, f"{each} sessions")

    tools.run(main())


def test_a_relay_that_comes_back_beside_another_has_half_of_the_sessions_again(tools, monkeypatch):
    monkeypatch.setattr(sessions_module, "RESOLVE_EVERY", 1.0)

    async def main():
        async with tools.world() as world:
            world.sessions = 4
            other = await tools.Relay(world.issuer, world.certificates, relay_id="relay-2").start()
            world.relays.append(other)
            target = RelayTarget((world.relay.address, other.address), "relay.test", world.certificates.ca)
            await world.serve(tools.rule(StatusService(204)), relay=target)
            port = other.port
            await other.stop()
            await world.relay.connected(4)
            await other.start(port)
            await other.connected(2)
            await tools.until(lambda: len(world.relay.sessions) == 2, "half of the sessions at each relay")
            assert len(other.sessions) == 2

    tools.run(main())


def test_a_relay_that_says_it_has_more_workers_gets_more_sessions(tools):
    async def main():
        async with tools.world() as world:
            world.relay.ids = ("relay-1", "relay-1-b", "relay-1-c")
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(3)

    tools.run(main())


def test_a_relay_that_comes_back_has_every_session_again(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 4
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(4)
            port = world.relay.port
            await world.relay.stop()
            await tools.until(lambda: not world.connector.sessions.probed, "the sessions' end")
            assert world.connector.unready() is not None
            await tools.until(lambda: status(world).relay_errors, "a report of the error")
            assert status(world).relay_errors[0].reason == "RelayUnreachable"
            world.relay.dials = 0
            began = asyncio.get_running_loop().time()
            await world.relay.start(port)
            await world.relay.connected(4)
            assert asyncio.get_running_loop().time() - began < 6
            await tools.until(lambda: not status(world).relay_errors, "the error's end")
            generations = [end.generation for end in world.relay.ever]
            assert generations == sorted(set(generations))
            assert sum(world.connector.counters.reconnects.values()) == 4

    tools.run(main())


def test_one_lost_session_is_replaced_while_the_others_serve(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            await world.origin(tools.answering(OK))
            await world.relay.connected(2)
            lost = world.relay.sessions[0]
            world.relay.cut(lost)
            assert await world.relay.request(end=world.relay.sessions[1]).complete() == b"ok"
            await tools.until(lambda: len(world.relay.ever) == 3, "the new session")
            await world.relay.connected(2)

    tools.run(main())


def test_failures_are_reported_as_what_they_are(tools, unused_port, certificates, tmp_path):
    async def main():
        other = make_other_ca(tmp_path)
        for target, reason, words in (
            (lambda w: RelayTarget((w.relay.address,), "relay.test", other), "CertificateError", "relay's CA"),
            (
                lambda w: RelayTarget((w.relay.address,), "wrong.test", certificates.ca),
                "CertificateError",
                "wrong.test",
            ),
            (lambda w: RelayTarget((f"127.0.0.1:{unused_port}",), None, None), "RelayUnreachable", str(unused_port)),
            (lambda w: RelayTarget(("no-such-name.invalid:443",), None, None), "RelayUnreachable", "no-such-name"),
        ):
            async with tools.world() as world:
                world.source.sink.configuration(world.document(tools.rule(StatusService(204)), relay=target(world)))
                await tools.until(lambda world=world: status(world).relay_errors, reason)
                (error,) = status(world).relay_errors
                assert error.reason == reason
                assert words in error.message
                assert not status(world).ready
                assert not world.relay.sessions

    tools.run(main())


def test_a_credential_that_is_not_accepted_is_a_refusal(tools):
    async def main():
        async with tools.world() as world:
            world.relay.refuse_with = 401
            world.source.sink.configuration(world.document(tools.rule(StatusService(204))))
            await tools.until(lambda: status(world).relay_errors, "the refusal")
            assert status(world).relay_errors[0].reason == "RelayRefused"
            assert "401" in status(world).relay_errors[0].message
            world.relay.refuse_with = None
            await world.relay.connected(1)

    tools.run(main())


def test_an_address_that_has_enough_rests(tools, monkeypatch):
    monkeypatch.setattr(addresses_module, "REST", 3.0)

    async def main():
        async with tools.world() as world:
            world.relay.refuse_with = 409
            world.source.sink.configuration(world.document(tools.rule(StatusService(204))))
            await tools.until(lambda: world.relay.dials, "a dial")
            await asyncio.sleep(1.5)
            assert world.relay.dials == 1
            assert not status(world).relay_errors
            world.relay.refuse_with = None
            await world.relay.connected(1)

    tools.run(main())


def test_sessions_move_from_a_relay_that_drains_and_finish_what_they_have(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            go = asyncio.Event()

            async def handler(client):
                await client.head()
                await go.wait()
                await client.send(OK)

            other = await tools.Relay(world.issuer, world.certificates, relay_id="relay-2").start()
            world.relays.append(other)
            await world.origin(handler)
            names = (world.relay.address, other.address)
            target = RelayTarget(names, "relay.test", world.certificates.ca)
            await world.serve(*world.connector.rollout.applied.rules, relay=target)
            await other.connected(1)
            leaving = list(world.relay.sessions)
            call = world.relay.request(end=leaving[0])
            await tools.until(lambda: world.connector.origins.open, "the request's arrival")
            for end in leaving:
                end.session.drain("the relay restarts")
            await tools.until(lambda: len(other.sessions) == 2, "both sessions at the other relay")
            assert leaving[0].closed is None
            go.set()
            assert await call.complete() == b"ok"
            await tools.until(lambda: all(end.closed is not None for end in leaving), "the drained sessions' end")

    tools.run(main())


def test_requests_that_a_drain_has_overtaken_are_served(tools):
    async def main():
        async with tools.world() as world:
            await world.origin(tools.answering(OK))
            end = world.relay.sessions[0]
            # The OPEN waits in the relay's data queue while the DRAIN, a control frame, goes ahead of it.
            end.session.outbox.set_congested(True)
            call = world.relay.request(end=end)
            end.session.drain("the relay restarts")
            await tools.until(lambda: end.drained, "the connector's own drain")
            await asyncio.sleep(0.3)
            end.session.outbox.set_congested(False)
            assert await call.complete() == b"ok"
            await tools.until(lambda: end.closed is not None, "the session's end")

    tools.run(main())


def test_a_newer_credential_is_presented_in_band(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            world.source.sink.credentials(world.issuer.credentials(age=100))
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(2)
            newer = world.issuer.credentials()
            world.source.sink.credentials(newer)
            await tools.until(lambda: status(world).key_id == newer.key_id, "the report of the new key")
            assert all(end.token == newer.credential for end in world.relay.sessions)
            assert len(world.relay.ever) == 2
            # A session that is dialled later uses it too.
            world.relay.cut(world.relay.sessions[0])
            await world.relay.connected(2)
            assert {end.token for end in world.relay.sessions} == {newer.credential}

    tools.run(main())


def test_d21_a_session_that_drains_gets_the_newer_credential_too_and_counts_until_it_has_it(tools):
    async def main():
        async with tools.world() as world:
            go = asyncio.Event()

            async def handler(client):
                await client.head()
                await go.wait()
                await client.send(OK)

            older = world.issuer.credentials(age=100)
            world.source.sink.credentials(older)
            await world.origin(handler)
            await world.relay.connected(1)
            (old,) = world.relay.sessions
            call = world.relay.request(end=old)
            await tools.until(lambda: world.connector.origins.open, "the request's arrival")
            old.session.drain("the relay restarts")
            await world.relay.connected(2)
            world.relay.answers_credentials = False
            newer = world.issuer.credentials()
            world.source.sink.credentials(newer)
            for session in world.connector.sessions.sessions():
                if session.active:
                    session.credentials = newer
            assert status(world).key_id == older.key_id, "revoking now would cut the request that is under way"
            world.relay.answers_credentials = True
            world.source.sink.credentials(world.issuer.credentials())
            await tools.until(lambda: status(world).key_id not in (older.key_id, newer.key_id), "the newest key")
            assert old.token != older.credential
            go.set()
            assert await call.complete() == b"ok"

    tools.run(main())


def test_d21_a_credential_that_came_while_a_session_was_being_opened_is_presented_when_it_is(tools):
    async def main():
        async with tools.world() as world:
            world.source.sink.credentials(world.issuer.credentials(age=100))
            newer = world.issuer.credentials()
            sessions = world.connector.sessions
            dial = sessions._dial

            async def slow(call):
                dialled = await dial(call)
                if not sessions.sessions():  # the first one: the credential changes between its handshake and its HELLO
                    asyncio.get_running_loop().call_soon(world.source.sink.credentials, newer)
                return dialled

            sessions._dial = slow
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(1)
            await tools.until(lambda: status(world).key_id == newer.key_id, "the report of the new key")
            await tools.until(lambda: world.relay.sessions[0].token == newer.credential, "the new credential")
            assert len(world.relay.ever) == 1

    tools.run(main())


def test_the_old_key_is_reported_until_no_session_uses_it(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            older = world.issuer.credentials(age=100)
            world.source.sink.credentials(older)
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(2)
            world.relay.answers_credentials = False
            newer = world.issuer.credentials()
            world.source.sink.credentials(newer)
            first = world.connector.sessions.sessions()[0]
            first.credentials = newer  # one relay has answered
            assert status(world).key_id == older.key_id
            world.connector.sessions.sessions()[1].credentials = newer
            assert status(world).key_id == newer.key_id

    tools.run(main())


def test_a_credential_refused_in_band_comes_with_new_sessions_before_the_old_ones_go(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            go = asyncio.Event()

            async def handler(client):
                await client.head()
                await go.wait()
                await client.send(OK)

            world.source.sink.credentials(world.issuer.credentials(age=100))
            await world.origin(handler)
            await world.relay.connected(2)
            old = list(world.relay.sessions)
            call = world.relay.request(end=old[0])
            await tools.until(lambda: world.connector.origins.open, "the request's arrival")
            world.relay.takes_credentials = False
            newer = world.issuer.credentials()
            world.source.sink.credentials(newer)

            def never_without():
                assert world.connector.sessions.probed, "there was a moment without any session"
                return all(end.drained for end in old)

            await tools.until(never_without, "the old sessions' drain")
            await tools.until(lambda: status(world).key_id == newer.key_id, "the report of the new key")
            go.set()
            assert await call.complete() == b"ok"
            await tools.until(lambda: len(world.relay.sessions) == 2, "the old sessions' end")
            assert {end.token for end in world.relay.sessions} == {newer.credential}

    tools.run(main())


def test_new_credentials_that_no_relay_accepts_leave_the_old_sessions_alone(tools):
    async def main():
        async with tools.world() as world:
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(1)
            stranger = type(world.issuer)()
            world.source.sink.credentials(stranger.credentials())
            await tools.until(lambda: world.relay.dials >= 4, "a few refusals")
            await tools.until(lambda: not any(True for _ in world.connector.sessions.dialling()), "giving up")
            assert world.relay.sessions == world.relay.ever
            assert world.connector.unready() is None
            assert status(world).key_id != stranger.credentials().key_id

    tools.run(main())


def test_a_stuck_data_path_is_noticed_although_the_heartbeat_goes_on(tools, monkeypatch):
    monkeypatch.setattr(session_module, "PROBE_EVERY", 0.2)

    async def main():
        async with tools.world() as world:
            await world.serve(tools.rule(StatusService(204)))
            stuck = world.relay.sessions[0]
            # Control frames overtake data, so PONG still comes when no DATA does.
            stuck.session.outbox.set_congested(True)
            await tools.until(lambda: len(world.relay.ever) == 2, "another session")
            assert world.relay.ever[1].generation > stuck.generation
            await tools.until(lambda: world.connector.sessions.probed == 1, "the new session's probe")
            assert stuck.drained
            assert stuck.closed is None

    tools.run(main())


@pytest.mark.parametrize("moves", [False, True], ids=["for good", "for a while"])
def test_a8_what_is_left_on_a_stuck_session_ends_unless_its_data_path_proves_that_it_moves(tools, monkeypatch, moves):
    monkeypatch.setattr(session_module, "PROBE_EVERY", 0.2)
    monkeypatch.setattr(session_module, "STUCK_FOR", 1.0)

    async def main():
        async with tools.world() as world:
            silent = asyncio.Event()

            async def handler(client):
                await client.head()
                silent.set()
                await go.wait()
                await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            go = asyncio.Event()
            await world.origin(handler)
            stuck = world.relay.sessions[0]
            call = world.relay.request()
            await asyncio.wait_for(silent.wait(), 10)
            stuck.session.outbox.set_congested(True)
            await tools.until(lambda: stuck.drained, "the session is given up")
            assert stuck.closed is None
            if moves:
                stuck.session.outbox.set_congested(False)
                await asyncio.sleep(1.5)  # longer than it would have been given without
                go.set()
                assert await call.complete() == b"ok"
            else:
                assert (await call.broken())[0] == ResetCode.SESSION_LOST
                go.set()

    tools.run(main())


def test_a_probe_goes_through_the_data_queue(tools):
    async def main():
        async with tools.world() as world:
            held = []

            def on_hello(end):
                end.session.outbox.set_congested(True)
                held.append(end)

            world.relay.on_hello = on_hello
            world.source.sink.configuration(world.document(tools.rule(StatusService(204))))
            await tools.until(lambda: held and held[0].grants, "a session with a grant")
            await asyncio.sleep(0.3)
            assert status(world).sessions[0].state == "connected"
            assert not status(world).sessions[0].probed
            assert world.connector.unready() is not None
            held[0].session.outbox.set_congested(False)
            await tools.until(lambda: world.connector.unready() is None, "readiness")

    tools.run(main())


def test_a_new_relay_behind_the_name_gets_a_session(tools, monkeypatch):
    monkeypatch.setattr(sessions_module, "RESOLVE_EVERY", 0.2)
    monkeypatch.setattr(sessions_module, "RESOLVE_AGE", 0.05)

    async def main():
        addresses = ["127.0.0.1"]

        async def resolve(host, port):
            return list(addresses)

        async with tools.world(resolve=resolve) as world:
            world.sessions = 2
            target = RelayTarget((f"relays.test:{world.relay.port}",), "relay.test", world.certificates.ca)
            await world.serve(tools.rule(StatusService(204)), relay=target)
            await world.relay.connected(2)
            other = tools.Relay(world.issuer, world.certificates, relay_id="relay-2")
            world.relays.append(other)
            await other.start(world.relay.port, host="127.0.0.2")
            addresses.append("127.0.0.2")
            await other.connected(1)
            await tools.until(lambda: len(world.relay.sessions) == 1, "the old session's move")

    tools.run(main())


def test_of_two_relays_behind_one_name_one_is_killed_and_comes_back(tools, monkeypatch):
    monkeypatch.setattr(sessions_module, "RESOLVE_EVERY", 0.5)

    async def main():
        async def resolve(host, port):
            return ["127.0.0.1", "127.0.0.2"]

        async with tools.world(resolve=resolve) as world:
            world.sessions = 4
            await world.origin(tools.answering(OK))
            killed, other = world.relay, tools.Relay(world.issuer, world.certificates, relay_id="relay-2")
            world.relays.append(other)
            await other.start(killed.port, host="127.0.0.2")
            target = RelayTarget((f"relays.test:{killed.port}",), "relay.test", world.certificates.ca)
            await world.serve(*world.connector.rollout.applied.rules, relay=target)
            await tools.until(lambda: len(killed.sessions) == len(other.sessions) == 2, "two sessions at each")
            stop = asyncio.Event()

            async def visitors():
                asked = 0
                while not stop.is_set():
                    end = next(end for end in other.sessions if end.grants and not end.drained)
                    assert await other.request(end=end).complete() == b"ok"
                    asked += 1
                    await asyncio.sleep(0.002)
                return asked

            asking = asyncio.create_task(visitors())
            port = killed.port
            await killed.stop()
            await other.connected(4)
            assert world.connector.unready() is None
            await killed.start(port)
            await tools.until(lambda: len(killed.sessions) == len(other.sessions) == 2, "two sessions at each again")
            stop.set()
            assert await asking > 20

    tools.run(main())


def test_sessions_leave_relays_that_are_no_longer_configured(tools):
    async def main():
        async with tools.world() as world:
            world.sessions = 2
            await world.serve(tools.rule(StatusService(204)))
            await world.relay.connected(2)
            other = await tools.Relay(world.issuer, world.certificates, relay_id="relay-2").start()
            world.relays.append(other)
            target = RelayTarget((other.address,), "relay.test", world.certificates.ca)
            await world.serve(tools.rule(StatusService(204)), relay=target)
            await other.connected(2)
            await tools.until(lambda: not world.relay.sessions, "the old sessions' end")

    tools.run(main())


def test_fewer_sessions_are_wanted(tools):
    async def main():
        async with tools.world() as world:
            await world.serve(tools.rule(StatusService(204)), connector=ConnectorSettings(4, 5))
            await world.relay.connected(4)
            await world.serve(tools.rule(StatusService(204)), connector=ConnectorSettings(1, 5))
            await tools.until(lambda: len(world.relay.sessions) == 1, "three sessions' end")

    tools.run(main())


def test_a_relay_that_cuts_every_session_meets_a_growing_backoff_and_nothing_leaks(tools):
    async def main():
        async with tools.world(random=itertools.cycle([0.5]).__next__) as world:
            await world.serve(tools.rule(StatusService(204)))
            tasks = len(asyncio.all_tasks())
            for _ in range(6):
                await world.relay.connected(1)
                world.relay.cut(world.relay.sessions[0])
                await tools.until(lambda: not world.connector.sessions.sessions(), "the session's end")
            (place,) = world.connector.sessions._places
            await tools.until(lambda: place.failures.count == 6, "six failures in a row")
            assert place.failures.delay(1.0) > 2.0
            await world.relay.connected(1)
            await tools.until(lambda: len(asyncio.all_tasks()) <= tasks, "as many tasks as before")

    tools.run(main())


def test_requests_before_there_is_a_configuration_may_go_elsewhere(tools):
    async def main():
        async with tools.world() as world:
            await world.serve(tools.rule(StatusService(204)))
            world.connector.rollout.serving = None
            assert await world.relay.request().broken() == (ResetCode.REFUSED, "no_configuration")

    tools.run(main())


def make_other_ca(folder):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

"""The order in which a new configuration comes into force, seen from the relay's side."""

import asyncio
import dataclasses

import pytest

from culvert_connector import rollout as rollout_module
from culvert_connector.configuration import Applied, plan_change
from culvert_ingress.document import Document, RelayTarget
from culvert_ingress.rules import OriginRequest, Rule, StatusService
from culvert_protocol.statements import read_grant


def make(version, *hostnames):
    rules = tuple(
        Rule(f"r{number}", hostname, None, StatusService(200 + version), OriginRequest())
        for number, hostname in enumerate(hostnames)
    )
    return Document(version=version, tunnel="t", relay=RelayTarget(("r.test:443",)), rules=rules)


def served(document, host):
    return Applied(document).target(host, b"/").status


def test_additions_need_no_waiting():
    old, new = make(1, "a.test"), make(2, "a.test", "b.test")
    change = plan_change(old, new)
    assert not change.waits
    assert change.first is change.final is new
    assert not plan_change(None, new).waits


def test_what_leaves_is_served_until_the_relays_have_answered_and_what_comes_is_served_at_once():
    change = plan_change(make(1, "a.test", "gone.test"), make(2, "a.test", "new.test"))
    assert change.waits
    assert served(change.first, "gone.test") == 201
    assert served(change.first, "new.test") == 202
    assert served(change.first, "a.test") == 202
    assert served(change.final, "gone.test") == 404


@pytest.mark.parametrize(
    ("old", "new", "host", "first"),
    [
        # An exact name that leaves is not shadowed by a new wildcard or catch-all before its time.
        (("a.test",), ("*.test", ""), "a.test", 201),
        (("a.test",), ("",), "a.test", 201),
        # A wildcard that leaves shadows no new exact name, and is not shadowed by a catch-all.
        (("*.test",), ("a.test", ""), "a.test", 202),
        (("*.test",), ("a.test", ""), "b.test", 201),
    ],
)
def test_leaving_rules_stand_where_they_neither_shadow_nor_are_shadowed(old, new, host, first):
    change = plan_change(make(1, *old), make(2, *new))
    assert change.waits
    assert served(change.first, host) == first


def test_rule_ids_stay_distinct_while_old_and_new_rules_are_served_together():
    change = plan_change(make(1, "gone.test"), make(2, "new.test"))
    ids = [rule.id for rule in change.first.rules]
    assert len(ids) == len(set(ids)) == 2
    assert served(change.first, "gone.test") == 201
    assert served(change.first, "new.test") == 202


def test_a_new_hostname_is_served_before_any_relay_hears_of_it(tools):
    async def main():
        async with tools.world() as world:
            old = tools.rule(StatusService(201), hostname="old.example.com")
            await world.serve(old)
            seen = []

            def on_routes(end):
                names = [name.hostname for name in read_grant(end.grants[-1]).names]
                seen.append((names, world.connector.rollout.serving.target("new.example.com", b"/").status))

            world.relay.on_routes = on_routes
            await world.serve(old, tools.rule(StatusService(202), hostname="new.example.com"))
            assert seen == [(["new.example.com", "old.example.com"], 202)]

    tools.run(main())


def test_a_removed_hostname_is_served_until_the_relay_has_answered(tools):
    async def main():
        async with tools.world() as world:
            keep = tools.rule(StatusService(201), hostname="keep.example.com")
            gone = tools.rule(StatusService(202), hostname="gone.example.com")
            await world.serve(keep, gone)
            world.relay.answers_routes = False
            before = len(world.relay.sessions[0].grants)
            document = world.document(keep)
            world.source.sink.configuration(document)
            await tools.until(lambda: len(world.relay.sessions[0].grants) > before, "the new grant", within=2)
            assert (await world.relay.request(host="gone.example.com").answered()).status == 202
            assert world.connector.report().applied_version == document.version - 1
            world.relay.sessions[0].answer_routes()
            done = lambda: world.connector.report().applied_version == document.version  # noqa: E731
            await tools.until(done, "the end", within=2)  # by the answer, not by giving up on it
            assert (await world.relay.request(host="gone.example.com").answered()).status == 404

    tools.run(main())


def test_a_relay_that_never_answers_does_not_hold_a_removal_up_for_ever(tools, monkeypatch):
    monkeypatch.setattr(rollout_module, "SETTLE_WITHIN", 0.2)

    async def main():
        async with tools.world() as world:
            keep = tools.rule(StatusService(201), hostname="keep.example.com")
            await world.serve(keep, tools.rule(StatusService(202), hostname="gone.example.com"))
            world.relay.answers_routes = False
            document = world.document(keep)
            world.source.sink.configuration(document)
            await tools.until(lambda: world.connector.report().applied_version == document.version, "the end")

    tools.run(main())


def test_a_session_that_ends_meanwhile_is_not_waited_for(tools):
    async def main():
        async with tools.world() as world:
            keep = tools.rule(StatusService(201), hostname="keep.example.com")
            await world.serve(keep, tools.rule(StatusService(202), hostname="gone.example.com"))
            world.relay.answers_routes = False
            document = world.document(keep)
            world.source.sink.configuration(document)
            end = world.relay.sessions[0]
            await tools.until(lambda: len(end.grants) > 1, "the new grant")
            world.relay.answers_routes = True
            began = asyncio.get_running_loop().time()
            world.relay.cut(end)
            await tools.until(lambda: world.connector.report().applied_version == document.version, "the end")
            assert asyncio.get_running_loop().time() - began < 4

    tools.run(main())


def test_older_and_equal_versions_are_ignored(tools):
    async def main():
        async with tools.world() as world:
            first = await world.serve(tools.rule(StatusService(201)))
            second = await world.serve(tools.rule(StatusService(202)))
            for late in (first, dataclasses.replace(second, rules=first.rules)):
                world.source.sink.configuration(late)
            third = await world.serve(tools.rule(StatusService(203)))
            assert world.connector.report().applied_version == third.version
            assert [len(end.grants) for end in world.relay.sessions] == [3]

    tools.run(main())


def test_a_configuration_that_cannot_be_served_changes_nothing_but_the_report(tools):
    async def main():
        async with tools.world() as world:
            good = await world.serve(tools.rule(StatusService(201)))
            bad = RelayTarget((world.relay.address,), "relay.test", "not a certificate")
            world.source.sink.configuration(world.document(tools.rule(StatusService(202)), relay=bad))
            await tools.until(lambda: world.connector.report().config_error, "the report")
            assert "certificate" in world.connector.report().config_error
            assert world.connector.report().applied_version == good.version
            assert (await world.relay.request().answered()).status == 201
            await world.serve(tools.rule(StatusService(203)))
            assert world.connector.report().config_error is None

    tools.run(main())


def test_the_newest_of_many_changes_wins_and_pipes_live_through_them(tools):
    async def main():
        async with tools.world() as world:
            more = asyncio.Event()

            async def handler(client):
                await client.head()
                await client.send(b"HTTP/1.1 200 OK\r\n\r\nbegin")
                await more.wait()
                await client.send(b"end")

            await world.origin(handler)
            call = world.relay.request()
            await tools.until(lambda: call.body == b"begin", "the first part")
            app = world.connector.rollout.applied.rules[0]
            for number in range(100):
                extra = tools.rule(StatusService(200 + number), hostname=f"n{number}.example.com")
                world.source.sink.configuration(last := world.document(app, extra))
                if number % 10 == 0:
                    await asyncio.sleep(0.01)
            await tools.until(lambda: world.connector.rollout.applied == last, "the newest")
            more.set()
            assert await call.complete() == b"beginend"
            assert (await world.relay.request(host="n99.example.com").answered()).status == 299

    tools.run(main())


def test_refused_hostnames_and_grants_reach_the_report(tools):
    async def main():
        async with tools.world() as world:
            world.relay.refuses = {"bad.example.com"}
            document = await world.serve(
                tools.rule(StatusService(201)), tools.rule(StatusService(201), hostname="bad.example.com")
            )
            (refused,) = world.connector.report().refused
            assert (refused.hostname, refused.relay, refused.reason, refused.version) == (
                "bad.example.com",
                "relay-1",
                "not_in_issuer",
                document.version,
            )
            world.relay.refuses = set()
            await world.serve(
                tools.rule(StatusService(201)), tools.rule(StatusService(201), hostname="bad.example.com")
            )
            assert not world.connector.report().refused

    tools.run(main())


def test_revocations_are_passed_on_with_the_grant_and_later(tools):
    async def main():
        async with tools.world() as world:
            first = await world.serve(tools.rule(StatusService(201)), revocations=("one",))
            end = world.relay.sessions[0]
            assert end.revocations == ["one"]
            # The same grant with a new revocation: only the revocation travels.
            changed = world.document(tools.rule(StatusService(201)), revocations=("one", "two"), grant=first.grant)
            world.source.sink.configuration(changed)
            await tools.until(lambda: end.revocations == ["one", "one", "two"], "the revocation")
            assert len(end.grants) == 1

    tools.run(main())

"""What changes in a running relay: `relay.yml`, certificates under load, and what it remembers over a restart."""

import asyncio
import json
import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from culvert_protocol.handshake import Accepted, Refused, build_request
from culvert_protocol.statements import generate_key
from culvert_relay import certificates
from culvert_relay.config import ConfigError
from culvert_relay.tunnels.remembering import read_revocations

UUID = "00000000-0000-4000-8000-0000000000bb"


def rewrite(world: Any, old: str, new: str) -> None:
    path = world.folder / "relay.yml"
    text = path.read_text()
    assert old in text
    fresh = path.with_name("relay.yml.new")
    fresh.write_text(text.replace(old, new, 1))
    fresh.replace(path)


def add_issuer(world: Any, issuer: Any, label: str, names: str) -> None:
    (world.folder / f"{label}.pub").write_bytes(issuer.key.public.pem())
    line = f"  - {{id: {label}, publicKeyFile: ./{label}.pub, hostnames: {names}}}\n"
    rewrite(world, "issuers:\n", "issuers:\n" + line)


def test_an_issuer_that_is_added_may_connect_and_one_that_is_removed_loses_its_sessions(
    play: Any, wait_until: Any, world: Any, new_issuer: Any
) -> None:
    other = new_issuer()

    async def scenario(world: Any) -> None:
        stays = await world.connector(["app.example.com"])
        answer, _, _ = await world.dial(
            build_request("relay.test", other.credential("main", generate_key()), UUID, 0, 1)
        )
        assert isinstance(answer, Refused)
        add_issuer(world, other, "other", '["other.test"]')
        await world.relay.watch.look()
        added = await world.connector(["a.other.test", "other.test"], issuer=other)
        assert added.result() == {"a.other.test": "not_in_issuer", "other.test": "accepted"}
        visitor = await world.visitor()
        assert (await visitor.get("other.test")).status == 200
        text = (world.folder / "relay.yml").read_text().splitlines(keepends=True)
        (world.folder / "relay.yml").write_text("".join(line for line in text if "other.pub" not in line))
        await world.relay.watch.look()
        await wait_until(lambda: added.closed is not None, "the end of the removed issuer's session")
        assert added.drained == "the issuer's key is no longer accepted here"
        assert stays.closed is None
        visitor = await world.visitor()
        assert (await visitor.get("other.test")).status == 404
        assert (await visitor.get("app.example.com")).status == 200

    play(scenario)


def test_an_issuers_names_can_change_under_a_live_session_without_a_request_lost(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com", "new.example.net", "example.com"])
        assert connector.result()["new.example.net"] == "not_in_issuer"
        rewrite(world, '["example.com", "*.example.com"]', '["*.example.com", "*.example.net"]')
        visitor = await world.visitor()

        async def ask() -> None:
            while len(connector.results) < 2:
                assert (await visitor.get("app.example.com")).status == 200

        asking = asyncio.create_task(ask())
        await world.relay.watch.look()
        await asking
        expected = {"app.example.com": "accepted", "new.example.net": "accepted", "example.com": "not_in_issuer"}
        assert connector.result() == expected
        assert (await visitor.get("new.example.net")).status == 200
        assert (await visitor.get("example.com")).status == 404
        assert connector.closed is None

    play(scenario)


@pytest.mark.parametrize(
    ("old", "new"), [("issuers:\n", "issuers: []\nx:\n"), ("./issuer.pub", "./gone.pub"), ("id: relay-1", "id: [")]
)
def test_a_bad_file_leaves_the_old_one_in_force_and_says_so(play: Any, caplog: Any, old: str, new: str) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        rewrite(world, old, new)
        for _ in range(3):
            await world.relay.watch.look()
        said = [record for record in caplog.records if "the old one stays in force" in record.getMessage()]
        assert len(said) == 1
        assert world.relay.watch.config_problem
        assert (await (await world.visitor()).get("app.example.com")).status == 200
        assert connector.closed is None
        rewrite(world, new, old)
        await world.relay.watch.look()
        assert not world.relay.watch.config_problem

    play(scenario)


def test_what_needs_a_restart_is_named(play: Any, caplog: Any) -> None:
    async def scenario(world: Any) -> None:
        rewrite(world, "id: relay-1", "id: relay-9\ngracePeriod: 5s\ntimeouts: {idle: 5s}")
        await world.relay.watch.look()
        (said,) = [record for record in caplog.records if "need a restart" in record.getMessage()]
        assert said.getMessage().endswith(
            ": id, httpsRedirectPort or limits or proxyProtocolFrom or timeouts or trustedProxies, gracePeriod"
        )

    play(scenario)


def test_a_question_by_signal_reads_everything_at_once(play: Any, wait_until: Any, caplog: Any) -> None:
    caplog.set_level("INFO")

    async def scenario(world: Any) -> None:
        world.relay.watch.ask()
        await wait_until(lambda: "configuration read anew" in caplog.text, "the reading")

    play(scenario, look_every=3600.0)


def test_revocations_are_remembered_over_a_restart(play: Any, world: Any, wait_until: Any) -> None:
    rewrite(world, "id: relay-1", "id: relay-1\nstateFile: ./revoked.json")
    key = generate_key()
    old = world.issuer.credential("main", key, issued=-100)

    async def revoke(world: Any) -> None:
        end = await world.session(credential=old, key=key)
        end.session.revoke((world.issuer.revocation("main"),))
        await wait_until(lambda: end.closed is not None, "the session's end")

    play(revoke)
    path = world.folder / "revoked.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item["subject"] for item in json.loads(path.read_text())["revocations"]] == ["main"]

    async def try_again(world: Any) -> None:
        answer, _, _ = await world.dial(build_request("relay.test", old, UUID, 0, 1))
        assert isinstance(answer, Refused)
        assert answer.status == 401
        await world.connector(["app.example.com"])  # a newer credential of that tunnel

    play(try_again)
    path.unlink()  # the control: a relay that has forgotten takes it

    async def forgotten(world: Any) -> None:
        answer, transport, _ = await world.dial(build_request("relay.test", old, UUID, 0, 1))
        assert isinstance(answer, Accepted)
        transport.close()

    play(forgotten)


@pytest.mark.parametrize("text", ["", "{}", '{"revocations": [{"issuer": "x"}]}', '{"revocations": 5}', "[]"])
def test_a_damaged_state_file_stops_the_start(tmp_path: Any, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        read_revocations(path)
    with pytest.raises(ConfigError, match="folder is not there"):
        read_revocations(tmp_path / "none" / "state.json")


def test_a_relay_is_unready_for_a_while_before_it_takes_nothing_new(play: Any, world: Any, wait_until: Any) -> None:
    rewrite(world, "id: relay-1", "id: relay-1\ndrainDelay: 1s")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        started = time.monotonic()
        drain = asyncio.create_task(world.relay.drain(force=asyncio.Event()))
        await wait_until(lambda: world.relay._ready() != "", "unreadiness")
        visitor = await world.visitor()
        response = await visitor.get("app.example.com")
        assert (response.status, response.field("connection")) == (200, None)
        assert connector.drained is None
        await asyncio.wait_for(drain, 10)
        assert time.monotonic() - started > 0.9
        assert connector.drained is not None
        assert await visitor.rest() == b""

    play(scenario)


def test_a_second_signal_cuts_the_delay_short(play: Any, world: Any) -> None:
    rewrite(world, "id: relay-1", "id: relay-1\ndrainDelay: 10m")

    async def scenario(world: Any) -> None:
        force = asyncio.Event()
        drain = asyncio.create_task(world.relay.drain(force=force))
        await asyncio.sleep(0)
        force.set()
        assert (await asyncio.wait_for(drain, 10)).forced

    play(scenario)


def test_a30_a_certificate_is_replaced_under_load_and_a_bad_pair_is_refused(play: Any, pair_maker: Any) -> None:
    async def scenario(world: Any) -> None:
        folder = world.folder / "certs"
        await world.connector(["app.example.com"])
        kept = await world.visitor(sni="app.example.com")
        first = kept.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        stop, served = asyncio.Event(), 0

        async def load() -> None:
            nonlocal served
            while not stop.is_set():
                visitor = await world.visitor(sni="app.example.com")
                assert (await visitor.get("app.example.com")).status == 200
                await visitor.close()
                served += 1

        running = [asyncio.create_task(load()) for _ in range(4)]
        seen = {first}
        for _ in range(5):
            pair_maker(folder, "wildcard", ["*.example.com", "example.com"])
            await world.relay.watch.look()
            fresh = await world.visitor(sni="app.example.com")
            shown = fresh.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert shown not in seen  # new handshakes see the new one
            seen.add(shown)
            assert (await kept.get("app.example.com")).status == 200  # connections that stand live on
        (folder / "wildcard.key").write_bytes((folder / "shop.key").read_bytes())
        await world.relay.watch.look()
        assert world.relay.watch.certificate_problems == 1
        fresh = await world.visitor(sni="app.example.com")
        assert fresh.writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == shown  # the old one stays
        stop.set()
        await asyncio.gather(*running)
        assert served > 20
        assert (await kept.get("app.example.com")).status == 200

    play(scenario)


def test_a30_without_a_look_or_a_check_new_handshakes_would_see_the_old_pair_or_none(
    play: Any, pair_maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: Any) -> None:
        folder = world.folder / "certs"
        first = (await world.visitor(sni="app.example.com")).writer.get_extra_info("ssl_object")
        pair_maker(folder, "wildcard", ["*.example.com", "example.com"])
        second = (await world.visitor(sni="app.example.com")).writer.get_extra_info("ssl_object")
        assert second.getpeercert(binary_form=True) == first.getpeercert(binary_form=True)

        checked = certificates.load_into

        def unchecked(context: ssl.SSLContext, folder: Path, stem: str) -> None:
            with suppress(certificates.CertificateError):
                checked(context, folder, stem)

        monkeypatch.setattr(certificates, "load_into", unchecked)
        (folder / "wildcard.key").write_bytes((folder / "shop.key").read_bytes())
        await world.relay.watch.look()
        assert world.relay.watch.certificate_problems == 0
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await world.visitor(sni="app.example.com")

    play(scenario)

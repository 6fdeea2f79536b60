"""The rfc2136 provider against real servers in trouble: keys, clocks, refusals, lost answers, failover, SOA search."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dns.message
import dns.rcode
import pytest

from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import plan_zones
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.registry import Registry

OWNER, SHOP = "installation-1", "tunnelbinding/shop/shop"


class Fixed:
    """A secret that a test may rotate."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def value(self) -> str:
        return self.text


def wanted(name: str) -> Endpoint:
    return Endpoint(name, "A", ("192.0.2.1",), 300, "", SHOP)


async def publish(made: Any, *names: str) -> list[ChangeResult]:
    """Read, plan and write the names once. Raises AssertionError with the sentence of a failed read."""
    registry = Registry(made)
    view = await registry.view(names)
    assert view.error is None, view.error
    ones = [wanted(name) for name in names]
    listed = [Published(e.name, e.type, e.resource) for e in ones]
    return list(await registry.apply(plan_zones(ones, listed=listed, view=view, owner=OWNER).changes))


def made_with(daemon: Any, secret: str, zone: str, **more: str) -> Any:
    return provider("rfc2136", ProviderConfig(daemon.settings(**more), (zone,), secret=Fixed(secret)))


@pytest.mark.parametrize("key", ["culvert", "long"], ids=["hmac-sha256", "hmac-sha512"])
def test_both_algorithms_sign_reads_and_writes(served: Any, key: str) -> None:
    name = f"{key}.{served.zone}"
    results = asyncio.run(publish(served.server.provider(served.zone, key=key), name))
    assert [r.result for r in results] == [Result.DONE]
    assert (name, "A") in served.read()


def test_d31_a_wrong_secret_is_named_and_reads_nothing(served: Any) -> None:
    wrong = made_with(served.server, "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=", served.zone)
    view = asyncio.run(Registry(wrong).view())
    assert view.zones == ()
    assert view.error is not None
    assert served.zone in view.error
    assert any(word in view.error for word in ("BADSIG", "NOTAUTH")), view.error
    assert "d3Jv" not in view.error


def test_d31_an_unknown_key_is_named(served: Any) -> None:
    secret = served.server.keys["culvert"].secret
    unknown = made_with(served.server, secret, served.zone, **{"tsig-key-name": "nobody"})
    view = asyncio.run(Registry(unknown).view())
    assert view.error is not None
    assert any(word in view.error for word in ("BADKEY", "NOTAUTH")), view.error
    assert secret not in view.error


def test_a_rotated_secret_is_used_at_the_next_message(served: Any) -> None:
    held = Fixed("d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmc=")
    made = provider("rfc2136", ProviderConfig(served.server.settings(), (served.zone,), secret=held))

    async def rotate() -> Result:
        assert (await Registry(made).view()).error is not None
        held.text = served.server.keys["culvert"].secret
        return (await publish(made, f"shop.{served.zone}"))[0].result

    assert asyncio.run(rotate()) is Result.DONE


def test_d31_a_key_that_may_read_and_not_write_fails_each_name_and_changes_nothing(served: Any) -> None:
    before = served.read()
    reader = served.server.provider(served.zone, key="reader")
    results = asyncio.run(publish(reader, f"a.{served.zone}", f"b.{served.zone}"))
    assert [r.result for r in results] == [Result.FAILED] * 2
    # Knot answers BADKEY to a key that its ACL does not allow.
    assert all(any(w in r.message for w in ("REFUSED", "NOTAUTH", "BADKEY")) for r in results), results
    assert served.read() == before


def test_d31_a_zone_that_the_server_cannot_load_is_a_failed_read(server: Callable[[str], Any]) -> None:
    view = asyncio.run(Registry(server("bind").provider("broken.test")).view())
    assert view.zones == ()
    assert view.error is not None
    assert "broken.test" in view.error


SKEWED = """\
import asyncio, json, sys
from culvert_operator.dns.provider import ProviderConfig, provider
from culvert_operator.dns.registry import Registry
settings, secret, zone = json.load(sys.stdin)
class Fixed:
    async def value(self): return secret
made = provider("rfc2136", ProviderConfig(settings, (zone,), secret=Fixed()))
print(asyncio.run(Registry(made).view()).error)
"""


def test_d31_clocks_that_differ_are_named(served: Any, program: Callable[[str], str]) -> None:
    # faketime goes with this side: BIND's allocator cannot live with it.
    faketime = program("faketime")
    told = json.dumps([served.server.settings(), served.server.keys["culvert"].secret, served.zone])
    command = [faketime, "-f", "-1h", sys.executable, "-c", SKEWED]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "BADTIME" in done.stdout or "NOTAUTH" in done.stdout, done.stdout


def test_zones_are_found_by_soa_where_the_tunnel_lists_none(served: Any) -> None:
    made = served.server.provider()
    zone = served.zone

    async def find(*names: str) -> tuple[str, ...]:
        return tuple(await made.zones(names))

    assert asyncio.run(find(f"shop.{zone}")) == (zone,)
    names = [f"*.a.b.{zone}", zone, f"x.www.{zone}", f"www.{zone}", "z59.test"]
    assert set(asyncio.run(find(*names))) == {zone, "z59.test"}
    assert asyncio.run(find("shop.example.org")) == ()
    results = asyncio.run(publish(made, f"shop.{zone}"))
    assert [r.result for r in results] == [Result.DONE]


def test_the_next_server_is_asked_when_the_first_is_away(served: Any, free: Callable[[], int]) -> None:
    servers = f"127.0.0.1:{free()},127.0.0.1:{served.server.port}"
    made = served.server.provider(served.zone, servers=servers)
    results = asyncio.run(publish(made, f"shop.{served.zone}"))
    assert [r.result for r in results] == [Result.DONE]


def test_the_next_server_is_asked_when_the_first_turns_the_update_away(own_server: Any, served: Any) -> None:
    secondary = own_server(served.kind)
    key = served.server.keys["culvert"]
    secondary.keys.clear()  # a server of the same zones that knows none of our keys
    secondary.keys["culvert"] = type(key)("other", key.algorithm, key.secret)
    other = _rebuilt(secondary)
    try:
        other.start()
        made = served.server.provider(served.zone, servers=f"127.0.0.1:{other.port},127.0.0.1:{served.server.port}")
        results = asyncio.run(publish(made, f"shop.{served.zone}"))
    finally:
        other.kill()
    assert [r.result for r in results] == [Result.DONE]


def _rebuilt(daemon: Any) -> Any:
    """The server with the keys that it has now written into its configuration."""
    for file in daemon.folder.glob("*.conf"):
        text = file.read_text().replace('"culvert"', '"other"').replace("id: culvert", "id: other")
        file.write_text(text.replace("[culvert,", "[other,"))
    return daemon


def test_no_server_that_answers_is_a_failed_read_with_each_servers_sentence(free: Callable[[], int]) -> None:
    ports = [free(), free()]
    settings = {"servers": ",".join(f"127.0.0.1:{port}" for port in ports)}
    view = asyncio.run(Registry(provider("rfc2136", ProviderConfig(settings, ("z0.test",)))).view())
    assert view.error is not None
    assert all(str(port) in view.error for port in ports)


UPDATE = 5
"""The opcode of dynamic updates (RFC 2136, section 1.3), in bits 1 to 4 of a message's third byte."""


@dataclass
class Line:
    """One connection through `between`: the visitor's writer, the server's ends, and what passes its answers on."""

    writer: asyncio.StreamWriter
    up_reader: asyncio.StreamReader
    up_writer: asyncio.StreamWriter
    passing: asyncio.Task[None]

    async def stop_passing(self) -> None:
        self.passing.cancel()
        await asyncio.gather(self.passing, return_exceptions=True)


@contextlib.asynccontextmanager
async def between(port: int, update: Callable[[Line, bytes], Awaitable[bool]]) -> AsyncIterator[int]:
    """A proxy that gives every update to ``update``, which says whether to go on, and passes everything else on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        line = Line(writer, up_reader, up_writer, asyncio.create_task(_pass_on(up_reader, writer)))
        try:
            going = True
            while going:
                head = await reader.readexactly(2)
                body = await reader.readexactly(int.from_bytes(head))
                if body[2] >> 3 & 15 == UPDATE:
                    going = await update(line, body)
                else:
                    up_writer.write(head + body)
        except asyncio.IncompleteReadError:
            return
        finally:
            await line.stop_passing()
            for held in (writer, up_writer):
                held.close()
                with contextlib.suppress(OSError):
                    await held.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize(
    "code", ["SERVFAIL", "REFUSED", "NOTAUTH", "NOTIMP", "NOTZONE", "FORMERR", "NXRRSET", "YXRRSET"]
)
def test_d31_every_answer_to_an_update_is_named_and_changes_nothing(server: Callable[[str], Any], code: str) -> None:
    ground = server("bind").ground()
    name = f"shop.{ground.zone}"
    before = ground.foreign()

    async def answer(line: Line, body: bytes) -> bool:
        said = dns.message.make_response(dns.message.from_wire(body, keyring=ground.server.keys["culvert"].tsig))
        said.set_rcode(dns.rcode.from_text(code))
        wire = said.to_wire()
        line.writer.write(len(wire).to_bytes(2) + wire)
        return True

    async def refused() -> list[ChangeResult]:
        async with between(ground.server.port, answer) as port:
            return await publish(ground.server.provider(ground.zone, servers=f"127.0.0.1:{port}"), name)

    (result,) = asyncio.run(refused())
    changed = code in ("NXRRSET", "YXRRSET")  # somebody was faster: read again, then tried again
    assert result.result is (Result.CONFLICT if changed else Result.FAILED)
    assert ("is read again" if changed else code) in result.message
    assert ground.foreign() == before
    assert [r.result for r in asyncio.run(publish(ground.server.provider(ground.zone), name))] == [Result.DONE]


def test_d31_an_answer_lost_after_the_update_was_done_is_read_again_and_not_written_twice(served: Any) -> None:
    name = f"shop.{served.zone}"

    swallowed: list[bytes] = []

    async def swallow(line: Line, body: bytes) -> bool:
        """Let it be done, keep the answer, and hang up."""
        await line.stop_passing()
        line.up_writer.write(len(body).to_bytes(2) + body)
        answer = await line.up_reader.readexactly(2)
        swallowed.append(await line.up_reader.readexactly(int.from_bytes(answer)))
        return False

    async def lose() -> tuple[list[ChangeResult], list[ChangeResult]]:
        async with between(served.server.port, swallow) as port:
            # The second server is not to be asked: whether the first did it is not known.
            both = f"127.0.0.1:{port},127.0.0.1:{served.server.port}"
            first = await publish(served.server.provider(served.zone, servers=both), name)
        assert [answer[3] & 15 for answer in swallowed] == [0]  # response codes: it was done
        return first, await publish(served.server.provider(served.zone), name)

    first, second = asyncio.run(lose())
    assert [r.result for r in first] == [Result.FAILED]
    assert "did not answer" in first[0].message
    assert second == []
    assert served.read()[name, "A"].values == ("192.0.2.1",)


def test_a_server_that_dies_between_read_and_write_fails_the_names_and_is_used_again_later(own_server: Any) -> None:
    daemon = own_server("knot")
    try:
        daemon.start()

        async def die() -> tuple[Sequence[ChangeResult], Sequence[ChangeResult]]:
            registry = Registry(daemon.provider("z0.test"))
            view = await registry.view()
            ones = [wanted(f"n{i}.z0.test") for i in range(3)]
            listed = [Published(e.name, e.type, e.resource) for e in ones]
            plan = plan_zones(ones, listed=listed, view=view, owner=OWNER)
            await asyncio.to_thread(daemon.kill)
            failed = await registry.apply(plan.changes)
            await asyncio.to_thread(daemon.start)
            return failed, await publish(daemon.provider("z0.test"), *(e.name for e in ones))

        failed, later = asyncio.run(die())
    finally:
        daemon.kill()
    assert [r.result for r in failed] == [Result.FAILED] * 3
    assert [r.result for r in later] == [Result.DONE] * 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs dns.rfc2136.servers"),
        ({"servers": "https://a"}, "no HOST:PORT"),
        ({"servers": "a", "tsig-key-name": "k", "tsig-algorithm": "hmac-md5"}, "hmac-sha256 or hmac-sha512"),
        ({"servers": "a"}, "needs the TSIG key's name"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        provider("rfc2136", ProviderConfig(settings, secret=Fixed("YWJj")))


def test_a_secret_that_is_no_base64_is_refused_without_being_shown(server: Callable[[str], Any]) -> None:
    made = made_with(server("bind"), "not base64, and secret!", "z0.test")
    view = asyncio.run(Registry(made).view())
    assert view.error is not None
    assert "base64" in view.error
    assert "not base64, and" not in view.error

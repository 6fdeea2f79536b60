"""Links over a real socket pair, with looptime for everything that waits."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import looptime
import pytest

from culvert_protocol.frames import FrameReader, FrameType, encode_frame
from culvert_protocol.heads import Framing, Kind, Open, ResponseHead
from culvert_protocol.messages import Hello
from culvert_protocol.stream import Stream
from culvert_transport import link
from culvert_transport.heartbeat import TICK, Heart
from culvert_transport.link import LATE, SessionLink

T = TypeVar("T")


class Owner:
    """Hears a link's session and one stream; echoes a request's body as its response when it is the connector."""

    def __init__(self) -> None:
        self.greeted = asyncio.Event()
        self.ended = asyncio.Event()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.received = bytearray()
        self.stream: Stream | None = None
        self.consume = True
        self.resets: list[int] = []
        self.writable = asyncio.Event()

    def on_hello(self, hello: Hello) -> None:
        self.greeted.set()

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        stream.listener = self
        self.stream = stream
        stream.send_head(ResponseHead(200, Framing.CHUNKED))
        if body:
            self.on_data(body)
        if fin:
            self.on_end()

    def on_head(self, head: ResponseHead) -> None:
        pass

    def on_data(self, data: bytes) -> None:
        self.received += data
        if self.stream is not None and self.consume:
            self.stream.consumed(len(data))

    def on_end(self) -> None:
        self.ended.set()

    def on_reset(self, code: int, reason: str) -> None:
        self.resets.append(code)

    def on_writable(self) -> None:
        self.writable.set()

    def on_pong(self, token: bytes) -> None:
        pass

    def on_drain(self, reason: str) -> None:
        pass

    def on_drain_ack(self) -> None:
        pass

    def on_routes(self, routes: Any) -> None:
        pass

    on_routes_result = on_credential = on_credential_result = on_revoke = on_routes

    def on_closed(self, reason: str) -> None:
        self.closed.set_result(reason)


async def link_to(sock: socket.socket, *, relay: bool) -> tuple[SessionLink, Owner, asyncio.Transport]:
    owner = Owner()
    link = SessionLink(relay=relay, listener=owner, loop=asyncio.get_running_loop())
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
    link.session.hello(Hello(relay="r", ids=("r",)) if relay else Hello(proof="p"))
    link.attach(transport)
    return link, owner, transport


def run(test: Callable[[], Awaitable[T]]) -> T:
    """On the machine's own clock."""

    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await test()

    return asyncio.run(bounded())


def run_without_waiting(test: Callable[[], Awaitable[T]]) -> T:
    """On a loop whose clock jumps over idle time."""
    loop = looptime.new_event_loop(start=0, end=300, idle_step=None)
    try:
        return loop.run_until_complete(test())
    finally:
        loop.close()


def test_a_megabyte_crosses_two_links_with_backpressure_and_ends() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        relay, relay_owner, _ = await link_to(a, relay=True)
        _connector, connector_owner, _ = await link_to(b, relay=False)
        await relay_owner.greeted.wait()
        body = bytes(range(256)) * 4096
        stream = relay.session.open(Open(kind=Kind.HTTP), relay_owner)
        for start in range(0, len(body), 65_536):
            relay_owner.writable.clear()
            stream.write(body[start : start + 65_536])
            if stream.blocked:
                await relay_owner.writable.wait()
        stream.finish()
        await connector_owner.ended.wait()
        assert connector_owner.received == body
        relay.close("done")
        assert await relay_owner.closed == "done"
        assert "connection" in await connector_owner.closed

    run(scenario)


def test_frames_of_one_turn_leave_as_one_write() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, transport = await link_to(a, relay=True)
        _, _, _ = await link_to(b, relay=False)
        await owner.greeted.wait()
        writes: list[bytes] = []
        original = transport.write
        transport.write = lambda data: (writes.append(bytes(data)), original(data))[1]  # type: ignore[method-assign]
        for _ in range(10):
            link.session.open(Open(kind=Kind.PROBE), owner, b"x", fin=True)
        await owner.ended.wait()
        assert len(writes) == 1
        link.close("done")

    run(scenario)


@pytest.mark.parametrize("spoke_at", [0.0, 0.3, 0.9, 1.1, 1.7])
def test_a6_a7_a_peer_that_falls_silent_is_dead_within_three_seconds_of_its_last_byte(spoke_at: float) -> None:
    async def scenario() -> float:
        a, b = socket.socketpair()
        _link, owner, _ = await link_to(a, relay=True)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(spoke_at)
        b.sendall(encode_frame(0, FrameType.HELLO, Hello(proof="p").encode()))
        await owner.greeted.wait()
        start = loop.time()
        reason = await owner.closed
        assert "nothing heard" in reason
        b.close()
        return loop.time() - start

    assert 3.0 - LATE - 0.01 <= run_without_waiting(scenario) <= 3.0


@pytest.mark.skipif(not str(link.__file__).endswith(".py"), reason="a compiled module keeps its constants to itself")
def test_a6_a7_without_a_limit_to_silence_a_black_hole_would_never_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, _ = await link_to(a, relay=True)
        await asyncio.sleep(60)
        assert not owner.closed.done()
        link.close("done")
        b.close()

    monkeypatch.setattr("culvert_transport.link.DEAD_AFTER", 1e9)
    run_without_waiting(scenario)


@pytest.mark.skipif(not str(link.__file__).endswith(".py"), reason="a compiled module keeps its constants to itself")
def test_a10_with_less_patience_than_a_round_trip_a_slow_network_would_be_taken_for_a_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> str:
        a, b = socket.socketpair()
        _link, owner, _ = await link_to(a, relay=True)
        _, _, _ = await link_to(b, relay=False)
        return await owner.closed

    monkeypatch.setattr("culvert_transport.link.DEAD_AFTER", 0.2)
    assert "nothing heard" in run_without_waiting(scenario)


def test_a12_without_tls_a_flipped_bit_would_reach_the_other_end_as_data() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        relay, relay_owner, _ = await link_to(a, relay=True)
        _connector, connector_owner, _ = await link_to(d, relay=False)
        body = bytes(50_000)

        async def passing(source: socket.socket, to: socket.socket, *, flip: bool) -> None:
            loop = asyncio.get_running_loop()
            for one in (source, to):
                one.setblocking(False)
            passed = 0
            while data := await loop.sock_recv(source, 65_536):
                if flip and passed < 20_000 <= passed + len(data):
                    at = 20_000 - passed
                    data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
                passed += len(data)
                await loop.sock_sendall(to, data)

        tasks = [asyncio.create_task(passing(b, c, flip=True)), asyncio.create_task(passing(c, b, flip=False))]
        await relay_owner.greeted.wait()
        relay.session.open(Open(kind=Kind.HTTP), relay_owner, body, fin=True)
        await connector_owner.ended.wait()
        assert len(connector_owner.received) == len(body)
        assert connector_owner.received != body
        relay.close("done")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connector_owner.closed if connector_owner.closed.done() else None
        for sock in (b, c):
            sock.close()

    run(scenario)


def test_a_peer_that_answers_pings_stays_and_its_round_trip_is_known() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, _ = await link_to(a, relay=True)
        _, other, _ = await link_to(b, relay=False)
        measured = asyncio.Event()
        trips: list[float] = []

        def note(trip: float) -> None:
            trips.append(trip)
            if len(trips) == 2:
                measured.set()

        link.on_round_trip = note
        await measured.wait()
        assert not owner.closed.done()
        assert not other.closed.done()
        assert link.round_trip is not None
        assert 0 <= link.round_trip < 1
        assert link.session.growth.round_trip == link.round_trip, "what lets windows grow"
        link.close("done")

    run(scenario)


def test_a_process_that_slept_itself_reads_before_it_judges() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, _ = await link_to(a, relay=True)
        now = asyncio.get_running_loop().time()
        # As after SIGSTOP: the last byte is long ago, and the heartbeat comes as late.
        assert link.beat(now + 60, 60.0)
        assert not owner.closed.done()
        assert not link.beat(now + 120, 0.0)
        assert await owner.closed == "nothing heard for 120.00 s, 60.00 s of which this process itself slept"
        b.close()

    run(scenario)


def test_a_process_that_is_always_late_gives_a_silent_peer_up_all_the_same() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, _ = await link_to(a, relay=True)
        now = asyncio.get_running_loop().time()
        beats = 0
        # No heartbeat of this process ever comes in time.
        while (due := link.beat(now, 2.0)) and beats < 10:
            now = due + 2.0
            beats += 1
        assert "of which this process itself slept" in owner.closed.result()
        b.close()

    run(scenario)


class Tap:
    """A network between two links that counts PINGs and PONGs, and can say nothing more."""

    def __init__(self) -> None:
        self.types: list[tuple[float, str, int]] = []
        self.cut = False

    async def link(self, *, connector: Callable[[socket.socket], Awaitable[T]]) -> tuple[SessionLink, Owner, T]:
        """A relay's link, and whatever plays the connector."""
        (a, b), (c, d) = socket.socketpair(), socket.socketpair()
        relay, owner, _ = await link_to(a, relay=True)
        other = await connector(d)
        self.tasks = [
            asyncio.create_task(self._pass(b, c, "relay")),
            asyncio.create_task(self._pass(c, b, "connector")),
        ]
        self.sockets = (b, c)
        return relay, owner, other

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        for sock in self.sockets:
            sock.close()

    def beats(self, who: str, type_: FrameType, since: float = 0.0) -> int:
        return sum(1 for at, by, one in self.types if by == who and one == type_ and at >= since)

    async def _pass(self, source: socket.socket, to: socket.socket, by: str) -> None:
        loop = asyncio.get_running_loop()
        for one in (source, to):
            one.setblocking(False)
        reader = FrameReader()
        while data := await loop.sock_recv(source, 65_536):
            if not self.cut:
                self.types += [(loop.time(), by, type_) for _, type_, _, _ in reader.read(data)]
                await loop.sock_sendall(to, data)


def test_at_rest_one_end_asks_the_other_answers_and_both_live() -> None:
    async def scenario() -> None:
        tap = Tap()
        relay, owner, (_connector, other, _) = await tap.link(connector=lambda sock: link_to(sock, relay=False))
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(100)
        assert not owner.closed.done()
        assert not other.closed.done()
        asked = tap.beats("connector", FrameType.PING)
        assert 70 <= asked <= 100, "once in 1.25 s of silence, and a tick"
        assert tap.beats("relay", FrameType.PONG) == asked
        measured = tap.beats("relay", FrameType.PING)
        assert 8 <= measured <= 12, "only to know the round trip"
        assert tap.beats("connector", FrameType.PONG) == measured
        # With a request under way both ends measure every second.
        relay.session.open(Open(kind=Kind.HTTP), owner)
        since = loop.time()
        await asyncio.sleep(20)
        for who in ("relay", "connector"):
            assert 16 <= tap.beats(who, FrameType.PING, since) <= 20
        # Once the network is gone neither end takes the other's last word for a sign of life.
        tap.cut = True
        start = loop.time()
        reasons = await owner.closed, await other.closed
        assert all("nothing heard" in reason for reason in reasons)
        assert loop.time() - start <= 3.0
        assert begin < start
        tap.end()

    run_without_waiting(scenario)


def test_a_peer_that_asks_by_itself_every_second_is_answered() -> None:
    """Connectors of 0.1 ask whatever they hear, and are dead to themselves without answers."""

    async def older(sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(encode_frame(0, FrameType.HELLO, Hello(proof="p").encode()))
        return reader, writer

    async def scenario() -> None:
        tap = Tap()
        relay, owner, (_reader, writer) = await tap.link(connector=older)
        for number in range(30):
            await asyncio.sleep(1)
            writer.write(encode_frame(0, FrameType.PING, number.to_bytes(8, "little")))
        await asyncio.sleep(0.1)
        assert not owner.closed.done()
        assert tap.beats("relay", FrameType.PONG) == 30
        assert relay.round_trip is None
        relay.close("done")
        writer.close()
        tap.end()

    run_without_waiting(scenario)


def test_a_ping_that_comes_in_pieces_or_with_company_is_answered_too() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, _ = await link_to(a, relay=True)
        reader, writer = await asyncio.open_connection(sock=b)
        writer.write(encode_frame(0, FrameType.HELLO, Hello(proof="p").encode()))
        await owner.greeted.wait()
        ping = encode_frame(0, FrameType.PING, b"12345678")
        pieces = [ping, ping[:5], ping[5:] + ping[:8], ping[8:], ping + ping, encode_frame(0, FrameType.DRAIN) + ping]
        for piece in pieces:
            link.data_received(piece)
        writer.write_eof()
        everything = await reader.read()
        assert everything.count(encode_frame(0, FrameType.PONG, b"12345678")) == 6
        await owner.closed
        writer.close()

    run(scenario)


def test_all_links_of_a_loop_share_one_timer() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        armed: list[float] = []
        original = loop.call_at

        def call_at(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            armed.append(when)
            return original(when, *args, **kwargs)

        loop.call_at = call_at  # type: ignore[method-assign]
        pairs = [socket.socketpair() for _ in range(20)]
        links = [(await link_to(a, relay=True), await link_to(b, relay=False)) for a, b in pairs]
        await asyncio.sleep(10.01)
        assert len([when for when in armed if when <= 10.01]) <= 10.01 / TICK + 2
        for relay, _ in links:
            relay[0].close("done")
        await asyncio.gather(*(owner.closed for _, (_, owner, _) in links))
        await asyncio.sleep(3)
        assert Heart.of(loop)._timer is None, "a loop without links is left alone"

    run_without_waiting(scenario)


def test_a_protocol_error_says_why_before_the_connection_closes() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        _link, owner, _ = await link_to(a, relay=True)
        reader, writer = await asyncio.open_connection(sock=b)
        writer.write(encode_frame(0, FrameType.PING, b"12345678"))
        everything = await reader.read()
        assert b"in phase HELLO" in everything
        assert "in phase HELLO" in await owner.closed
        writer.close()
        await writer.wait_closed()

    run(scenario)


def test_a_peer_that_stops_reading_does_not_grow_the_transport() -> None:
    async def scenario() -> None:
        a, b = socket.socketpair()
        link, owner, transport = await link_to(a, relay=True)
        b.sendall(encode_frame(0, FrameType.HELLO, Hello(proof="p", window=8 << 20).encode()))
        await owner.greeted.wait()
        streams = [link.session.open(Open(), owner) for _ in range(4)]
        for _ in range(200):
            for stream in streams:
                if not stream.blocked:
                    stream.write(bytes(65_536))
            await asyncio.sleep(0)
        assert all(s.blocked for s in streams)
        assert transport.get_write_buffer_size() < 1 << 20
        assert link.queued < 2 << 20
        link.close("done")
        transport.abort()
        b.close()

    run(scenario)

"""Windows that grow and shrink: two sessions back to back, a clock by hand, and any order of what may happen."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_protocol.codes import ResetCode
from culvert_protocol.credit import INITIAL_WINDOW, MAX_WINDOW, RETURN_AT, SESSION_CAP, Allowance
from culvert_protocol.heads import Kind, Open
from culvert_protocol.messages import MAX_STREAMS, Hello
from culvert_protocol.session import Session
from culvert_protocol.stream import Stream

KIB = 1024


class End:
    """One end of a pipe: what arrived and has not been consumed."""

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.unconsumed = 0
        self.ended = False
        self.reset = False

    def on_data(self, data: bytes) -> None:
        self.arrived += data
        self.unconsumed += len(data)

    def on_end(self) -> None:
        self.ended = True

    def on_reset(self, code: int, reason: str) -> None:
        self.reset = True

    def on_head(self, head: Any) -> None:
        raise AssertionError("a pipe has no heads")

    def on_writable(self) -> None:
        """The test looks at `blocked` itself."""


class Owner:
    """Hears a session; keeps the streams that the peer opens."""

    def __init__(self) -> None:
        self.opened: dict[int, tuple[Stream, End]] = {}
        self.closed = ""

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        end = End()
        stream.listener = end
        self.opened[stream.id] = (stream, end)
        if body:
            end.on_data(body)

    def on_closed(self, reason: str) -> None:
        self.closed = reason

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class World:
    """A relay that sends into pipes and a connector that consumes; `now` is the connector's clock."""

    def __init__(self, *, allowance: Allowance | None = None, cap: int = SESSION_CAP) -> None:
        self.now = 0.0
        self.allowance = allowance if allowance is not None else Allowance()
        self.senders, self.receivers = Owner(), Owner()
        self.relay = Session(relay=True, listener=self.senders, on_output=_nothing)
        self.connector = Session(
            relay=False,
            listener=self.receivers,
            on_output=_nothing,
            clock=lambda: self.now,
            allowance=self.allowance,
        )
        self.connector.growth.cap = cap
        self.connector.growth.round_trip = 0.1
        self.relay.hello(Hello(relay="r", ids=("r",)))
        self.connector.hello(Hello(proof="cHJvb2Y"))
        self.move()

    def move(self) -> None:
        """Delivers everything that may leave, both ways."""
        while True:
            down, up = self.relay.outbox.take(), self.connector.outbox.take()
            self.relay.outbox.refill()
            if not down and not up:
                return
            self.connector.receive(down)
            self.relay.receive(up)

    def pipe(self) -> tuple[Stream, Stream, End]:
        self.relay.outbox.set_congested(False)
        ours = self.relay.open(Open(kind=Kind.TCP), End())
        self.move()
        return (ours, *self.receivers.opened[ours.id])

    def drain(self, theirs: Stream, end: End) -> int:
        """Consumes all that has arrived; returns how much."""
        size, end.unconsumed = end.unconsumed, 0
        theirs.consumed(size)
        self.move()
        return size

    def check(self) -> None:
        """What holds whatever happened."""
        assert not self.senders.closed
        assert not self.receivers.closed
        sizes = [stream.window.size for stream in self.connector.streams.values() if stream.window]
        assert all(INITIAL_WINDOW <= size <= MAX_WINDOW for size in sizes)
        assert self.connector.growth.grown == sum(size - INITIAL_WINDOW for size in sizes) == self.allowance.used
        assert self.allowance.used <= self.allowance.limit


def _nothing() -> None:
    """Output is taken by hand."""


def size_of(stream: Stream) -> int:
    return stream.window.size if stream.window else INITIAL_WINDOW


def flow(world: World, pipe: tuple[Stream, Stream, End], size: int, *, seconds: float = 0.0) -> None:
    """Moves so many bytes through a pipe whose reader keeps up, with `seconds` between one round and the next."""
    ours, theirs, end = pipe
    ours.write(bytes(size))
    world.move()
    moved = world.drain(theirs, end)
    while moved < size:
        world.now += seconds
        step = world.drain(theirs, end)
        assert step, "a stream whose reader keeps up goes on"
        moved += step
    assert ours._credit + theirs._owed == size_of(theirs), "the window is what may be sent and what is owed"


def test_a_window_used_up_within_two_round_trips_doubles_up_to_eight_mebibytes() -> None:
    world = World()
    pipe = world.pipe()
    seen = {size_of(pipe[1])}
    for _ in range(600):
        flow(world, pipe, 64 * KIB, seconds=0.001)
        seen.add(size_of(pipe[1]))
        world.check()
    assert seen == {INITIAL_WINDOW << step for step in range(8)}
    assert size_of(pipe[1]) == MAX_WINDOW


@pytest.mark.parametrize("reason", ["slow", "no round trip", "no clock"])
def test_a_window_stays_at_the_floor_without_need(reason: str) -> None:
    world = World()
    if reason == "no round trip":
        world.connector.growth.round_trip = None
    if reason == "no clock":
        world.connector.growth.clock = None
    pipe = world.pipe()
    for _ in range(50):
        flow(world, pipe, 64 * KIB, seconds=0.3 if reason == "slow" else 0.0)
        world.now += 0.3 if reason == "slow" else 0.0
    assert size_of(pipe[1]) == INITIAL_WINDOW


def test_a_stalled_stream_keeps_no_other_from_moving_when_the_caps_are_reached() -> None:
    world = World(allowance=Allowance(192 * KIB))
    greedy, patient = world.pipe(), world.pipe()
    for _ in range(20):
        flow(world, greedy, 64 * KIB)
    assert world.allowance.used == 192 * KIB
    greedy[0].write(bytes(MAX_WINDOW))
    world.move()
    assert greedy[2].unconsumed == size_of(greedy[1]) == 256 * KIB
    flow(world, patient, 10 * MAX_WINDOW // 8)
    assert size_of(patient[1]) == INITIAL_WINDOW
    world.check()


def test_above_the_cap_windows_shrink_as_they_drain_and_never_below_the_floor() -> None:
    world = World(cap=8 * INITIAL_WINDOW)
    pipe = world.pipe()
    for _ in range(20):
        flow(world, pipe, 64 * KIB)
    assert size_of(pipe[1]) == 8 * INITIAL_WINDOW
    others = [world.pipe() for _ in range(8)]
    flow(world, pipe, 30 * INITIAL_WINDOW)
    assert size_of(pipe[1]) == INITIAL_WINDOW
    for other in others:
        flow(world, other, 4 * INITIAL_WINDOW)
    world.check()


def test_the_cap_of_a_session_is_the_floor_of_its_most_streams() -> None:
    assert SESSION_CAP == MAX_STREAMS * INITIAL_WINDOW


@pytest.mark.parametrize("end", ["reset", "session"])
def test_what_a_window_had_grown_by_is_free_when_its_stream_ends(end: str) -> None:
    world = World()
    pipe = world.pipe()
    for _ in range(20):
        flow(world, pipe, 64 * KIB)
    assert world.allowance.used > 0
    if end == "reset":
        pipe[0].reset(ResetCode.CANCEL)
        world.move()
        world.check()
    else:
        world.connector.close("over")
    assert world.allowance.used == 0


def test_a_stream_that_moves_little_is_not_bulk_any_more() -> None:
    world = World()
    pipe = world.pipe()
    flow(world, pipe, RETURN_AT)
    assert (world.relay.bulk_streams, world.connector.bulk_streams) == (1, 1)
    for session in (world.relay, world.connector):
        session.settle()
        assert session.bulk_streams == 1
        session.settle()
        assert session.bulk_streams == 0
    flow(world, pipe, RETURN_AT)
    assert (world.relay.bulk_streams, world.connector.bulk_streams) == (1, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.just(0), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, 5), st.integers(1, 700 * KIB)),
        st.tuples(st.just("consume"), st.integers(0, 5), st.integers(1, 700 * KIB)),
        st.tuples(st.just("read"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 400)),
        st.tuples(st.just("reset"), st.integers(0, 5), st.just(0)),
        st.tuples(st.sampled_from(["down", "up", "congest", "relieve"]), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, limit=st.sampled_from([0, 100 * KIB, 1 << 30]), cap=st.sampled_from([256 * KIB, SESSION_CAP]))
def test_in_any_order_no_window_is_overrun_nothing_is_lost_and_every_stream_gets_through(
    steps: list[tuple[str, int, int]], limit: int, cap: int
) -> None:
    world = World(allowance=Allowance(limit), cap=cap)
    pipes = [world.pipe()]
    sent = {pipes[0][0].id: 0}
    for step, which, size in steps:
        ours, theirs, end = pipes[which % len(pipes)]
        if step == "open" and len(pipes) < 6:
            pipes.append(world.pipe())
            sent[pipes[-1][0].id] = 0
        elif step == "write" and not ours.closed:
            ours.write(bytes(size))
            sent[ours.id] += size
        elif step == "consume":
            size = min(size, end.unconsumed)
            end.unconsumed -= size
            theirs.consumed(size)
        elif step == "read":
            while not theirs.closed and world.drain(theirs, end):
                pass
        elif step == "wait":
            world.now += size / 1000
        elif step == "reset":
            ours.reset(ResetCode.CANCEL)
        elif step == "down":
            world.connector.receive(world.relay.outbox.take())
            world.relay.outbox.refill()
        elif step == "up":
            world.relay.receive(world.connector.outbox.take())
        elif step in ("congest", "relieve"):
            world.relay.outbox.set_congested(step == "congest")
        for _, theirs, end in pipes:
            # Never beyond the window: what was granted is what is free, under way, unconsumed and owed.
            assert theirs.closed or end.unconsumed <= size_of(theirs)
        world.check()
    world.relay.outbox.set_congested(False)
    world.move()
    for ours, theirs, end in pipes:
        while not ours.closed and len(end.arrived) < sent[ours.id]:
            assert world.drain(theirs, end), "no deadlock: a reader that reads gets everything"
        if not ours.closed:
            world.drain(theirs, end)
            assert ours._credit + theirs._owed == size_of(theirs)
            assert ours._credit == theirs._room
            assert not ours.blocked
    assert world.relay.outbox.held == 0
    world.check()

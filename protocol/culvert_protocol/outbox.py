"""What a session has to send: two queues, and the streams that wait for room in them.

Responsible for the order in which frames leave and for saying when sources must pause. Must not know what frames mean.
Invariants: control frames overtake queued data, while data frames (OPEN, DATA, RESET and DRAIN_ACK) keep their order;
streams that wait take turns; queues that a peer makes us grow end the session at their limits.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from culvert_protocol.frames import MAX_MESSAGE

if TYPE_CHECKING:
    from culvert_protocol.stream import Stream

QUEUE_LIMIT: Final = 65_536
"""Data bytes queued in the session above which streams hold their bytes instead."""
CONTROL_LIMIT: Final = 1 << 20
"""Control bytes queued for a peer that does not read; beyond it the session ends."""
_JOIN_BELOW: Final = 4096
"""Payloads up to this size are copied behind their header at once; larger ones only when everything is joined."""


class Outbox:
    """The queues. `on_output` is called when there is something to take, `on_overrun` when a limit is passed.

    `backed_up`: streams must hold their bytes; `congested`: the transport takes control frames only; `held`: bytes that
    streams hold; `waiting`: the streams that wait for `backed_up` to end, in the order in which they began to.
    """

    __slots__ = (
        "_control", "_control_size", "_data", "_on_output", "_on_overrun", "backed_up", "congested", "held", "size",
        "waiting",
    )  # fmt: skip

    def __init__(self, on_output: Callable[[], None], on_overrun: Callable[[], None]) -> None:
        self._on_output = on_output
        self._on_overrun = on_overrun
        self.backed_up = False
        self.congested = False
        self.held = 0
        self.size = 0
        self.waiting: dict[Stream, None] = {}
        self._control: list[bytes] = []
        self._control_size = 0
        self._data: list[bytes] = []

    @property
    def ready(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._control) or (bool(self._data) and not self.congested)

    def data(self, header: bytes, payload: bytes) -> None:
        """Queues a frame in order behind earlier data."""
        queue = self._data
        first = not queue and not self._control and not self.congested
        size = len(payload)
        if size < _JOIN_BELOW:
            queue.append(header + payload)
        else:
            queue.append(header)
            queue.append(payload)
        self.size = size = self.size + size + 8
        if size > QUEUE_LIMIT:
            self.backed_up = True
            if size > QUEUE_LIMIT + CONTROL_LIMIT:
                self._on_overrun()
                return
        if first:
            self._on_output()

    def control(self, frame: bytes) -> None:
        """Queues a frame ahead of data."""
        first = not self._control and (not self._data or self.congested)
        self._control.append(frame)
        self._control_size += len(frame)
        if self._control_size > CONTROL_LIMIT + MAX_MESSAGE:
            self._on_overrun()
        elif first:
            self._on_output()

    def take(self) -> bytes:
        """Everything to write now: control frames first, then data unless the transport is congested."""
        parts = self._control
        if parts:
            self._control = []
            self._control_size = 0
            if not self.congested and self._data:
                parts += self._data
                self._data = []
                self.size = 0
        elif self.congested or not self._data:
            return b""
        else:
            parts = self._data
            self._data = []
            self.size = 0
        if self.backed_up:
            self.backed_up = self.congested or self.size > QUEUE_LIMIT
        return b"".join(parts) if len(parts) > 1 else parts[0]

    def set_congested(self, congested: bool) -> None:
        """The transport went above its high-water mark, or fell below its low one."""
        self.congested = congested
        self.backed_up = congested or self.size > QUEUE_LIMIT
        if not congested:
            self.refill()
            if self._data:
                self._on_output()

    def refill(self) -> None:
        """Lets waiting streams send: one turn for each, in the order in which they began to wait."""
        for _ in range(len(self.waiting)):
            if self.backed_up or not self.waiting:
                return
            stream = next(iter(self.waiting))
            del self.waiting[stream]
            stream.pump()

    def drop_data(self) -> None:
        """The session is over: control frames, a farewell among them, still leave; nothing else does."""
        self.waiting.clear()
        self._data.clear()
        self.size = 0

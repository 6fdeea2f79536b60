"""Saying what goes on during minutes of silence.

Responsible for: lines with elapsed time, one redrawn line on a terminal, a heartbeat line at most every 15 s
elsewhere. Must not know what is being done. The clock is an argument.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

HEARTBEAT_SECONDS: Final = 15.0
_REDRAW_SECONDS: Final = 0.5


def elapsed_text(seconds: float) -> str:
    """`7 s`, `2 min 05 s`."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


class Progress:
    """Writes to `stream`; `now` gives seconds of any monotonic clock."""

    def __init__(self, stream: TextIO | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._now = now
        self._started = now()
        self._last_beat = self._started
        self._drawn = False
        self._terminal = self._stream.isatty()

    def say(self, text: str) -> None:
        """A line of its own, with the time since the beginning."""
        self._clear()
        self._stream.write(f"[{elapsed_text(self._now() - self._started):>12}] {text}\n")
        self._stream.flush()
        self._last_beat = self._now()

    def beat(self, text: str) -> None:
        """Something still goes on: redraws the last line of a terminal, elsewhere speaks up only rarely."""
        now = self._now()
        if not self._terminal:
            if now - self._last_beat >= HEARTBEAT_SECONDS:
                self.say(text)
            return
        if now - self._last_beat >= _REDRAW_SECONDS:
            self._last_beat = now
            self._stream.write(f"\r\033[K[{elapsed_text(now - self._started):>12}] {text[:100]}")
            self._stream.flush()
            self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\033[K")
            self._drawn = False

"""How long a process keeps those waiting who ask how it is: one question after the other, from a process of its own.

    python -m bench.answers http://127.0.0.1:9902/livez       until its standard input ends; then one line of JSON

Questions that are not answered at all (the process is not there yet) do not count.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from subprocess import PIPE, Popen
from types import TracebackType
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.01


def ask(url: str, over: threading.Event) -> list[float]:
    """Seconds of each answer, until it is over."""
    parts, found = urlsplit(url), []
    while not over.wait(PAUSE_SECONDS):
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        began = time.monotonic()
        try:
            connection.request("GET", parts.path)
            connection.getresponse().read()
        except (OSError, HTTPException):
            continue
        finally:
            connection.close()
        found.append(time.monotonic() - began)
    return sorted(found)


class Answers:
    """The same from another process, around a block."""

    def __init__(self, url: str) -> None:
        self._command = [sys.executable, "-m", "bench.answers", url]

    def __enter__(self) -> Answers:
        self._process = Popen(self._command, stdin=PIPE, stdout=PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        output, _errors = self._process.communicate("", timeout=90)
        self.seconds: list[float] = json.loads(output)

    @property
    def slowest(self) -> float:
        """The longest wait, in milliseconds."""
        return max(self.seconds, default=0.0) * 1000

    @property
    def p99(self) -> float:
        """What one of a hundred waited longer than, in milliseconds."""
        return self.seconds[len(self.seconds) * 99 // 100] * 1000 if self.seconds else 0.0


def main() -> None:
    """Ask until standard input ends."""
    over = threading.Event()

    def end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=end, daemon=True).start()
    json.dump(ask(sys.argv[1], over), sys.stdout)


if __name__ == "__main__":
    main()

"""A program of culvert whose event loop notes its longest step: CPU time of one callback, during which nothing else of
the process runs. Time that others take from a busy machine is not in it.

    python -m bench.steps FILE operator run …       as `culvert operator run …`; FILE says the longest step since it was
                                                    last removed, once that was longer than a millisecond
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from asyncio import events
from pathlib import Path
from typing import Any

LEAST_SECONDS = 0.001


def note(file: Path) -> None:
    """From here on, every loop of this process."""
    run = events.Handle._run

    def noted(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        if took > LEAST_SECONDS and took > longest(file):
            file.write_text(json.dumps({"seconds": took, "what": repr(handle)[:2000]}))

    events.Handle._run = noted  # type: ignore[method-assign]


def longest(file: Path) -> float:
    """Seconds of the longest step since the file was last removed."""
    with contextlib.suppress(OSError, ValueError):
        return float(json.loads(file.read_text())["seconds"])
    return 0.0


def main() -> None:
    """Note, and be culvert."""
    from culvert_cli.main import main as culvert

    note(Path(sys.argv[1]))
    sys.argv = ["culvert", *sys.argv[2:]]
    sys.exit(culvert())


if __name__ == "__main__":
    main()

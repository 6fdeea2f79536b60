"""Metrics as both ends of a session keep them: plain numbers while serving, Prometheus' text when someone asks.

Responsible for what an instrument is (name, type, labels, meaning: the reference page is made of these), for
histograms, and for the text exposition format 0.0.4. Must not know what is measured. The text is written here and not
by `prometheus_client`, whose generator takes 14 µs a sample: a relay with a hundred tunnels would stand still for
30 ms at every scrape.

Invariants: adding to a number takes no lock, no look-up of labels and no allocation; a sample has exactly the labels
that its instrument names, and no value of a label can leave its quotes; base units only (seconds, bytes).
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
ROUND_TRIP_BUCKETS: Final[tuple[float, ...]] = (
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
"""Seconds of a round trip between connector and relay; beyond three the session is dead."""
OTHER: Final = "_other"
"""The label of everything beyond the bound on labels; no tunnel can have this name, and no rule should."""


class Histogram:
    """Observations in buckets. `counts` has one place per bound and a last one for what is above all of them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One observation; a value that equals a bound counts below it, as Prometheus' `le` says."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. The methods return its part of the exposition, which is there also when it has no sample yet."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    text: str
    labels: tuple[str, ...] = ()

    def one(self, value: float) -> str:
        """An instrument without labels."""
        return self.many((((), value),))

    def many(self, samples: Iterable[tuple[tuple[str, ...], float]]) -> str:
        """One sample for each combination of labels."""
        name = self.name
        lines = [f"{name}{_braces(self._pairs(labels))} {float(value)}\n" for labels, value in samples]
        return self._heading() + "".join(lines)

    def buckets(self, samples: Iterable[tuple[tuple[str, ...], Histogram]]) -> str:
        """A histogram for each combination of labels."""
        name = self.name
        lines = [self._heading()]
        for labels, histogram in samples:
            pairs = self._pairs(labels)
            before = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
            total = 0
            for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
                total += count
                lines.append(f'{before}le="{bound}"}} {total}.0\n')
            braces = _braces(pairs)
            lines.append(f"{name}_sum{braces} {histogram.total}\n{name}_count{braces} {total}.0\n")
        return "".join(lines)

    def _heading(self) -> str:
        text = self.text.replace("\\", "\\\\").replace("\n", "\\n")
        return f"# HELP {self.name} {text}\n# TYPE {self.name} {self.kind}\n"

    def _pairs(self, values: tuple[str, ...]) -> str:
        return ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(self.labels, values, strict=True))


def _braces(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

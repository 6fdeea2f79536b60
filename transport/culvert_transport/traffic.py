"""The numbers of requests that belong together: a tunnel's at the relay, a rule's at the connector.

Responsible for what is counted of requests at either end, in the same words: answers by class of status and by who is
to blame, ends without a whole response, bytes of bodies each way, time to the first byte. Must not know what tells the
groups apart. Invariant: every request is counted once, as an answer, as a break-off, or (cut within its response) as
both.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from culvert_transport.instruments import Histogram, Instrument

FIRST_BYTE_BUCKETS: Final[tuple[float, ...]] = (
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
    5.0,
    10.0,
    30.0,
)
"""Seconds until a response begins: from an origin in the same rack to one that computes for half a minute."""
ERROR_SOURCES: Final = ("none", "visitor", "relay", "session", "connector", "origin")
"""Values of the label `source`: who is to blame for an answer or an end; `none` is an answer that an origin gave
or a rule prescribed, whatever its status."""
_HUNDREDS: Final = tuple(f"{hundred}xx" for hundred in range(10))


class Answers:
    """Final answers by class of status and by who is to blame. `fine[status // 100]` are those without a fault."""

    __slots__ = ("blamed", "fine")

    def __init__(self) -> None:
        self.fine = [0] * 10
        self.blamed: dict[str, list[int]] = {}

    def add(self, status: int, source: str) -> None:
        """One answer; `source` is one of ERROR_SOURCES."""
        if source == "none":
            self.fine[status // 100] += 1
            return
        row = self.blamed.get(source)
        if row is None:
            row = self.blamed[source] = [0] * 10
        row[status // 100] += 1

    def samples(self) -> Iterator[tuple[str, str, int]]:
        """(class of status, source, how many), without those that never came."""
        for source, row in (("none", self.fine), *self.blamed.items()):
            for hundred, count in enumerate(row):
                if count:
                    yield _HUNDREDS[hundred], source, count


class Traffic:
    """One group's numbers. `received` are body bytes from visitors, `sent` those to them; `labels` name the group.

    `stalls`: how often a source had to pause because its stream took no more, for want of credit or of room.
    """

    __slots__ = ("aborted", "answers", "first_byte", "labels", "received", "sent", "stalls")

    def __init__(self, *labels: str) -> None:
        self.labels = labels
        self.answers = Answers()
        self.aborted: dict[str, int] = {}
        self.first_byte = Histogram(FIRST_BYTE_BUCKETS)
        self.received = 0
        self.sent = 0
        self.stalls = 0

    def abort(self, source: str) -> None:
        """A request ended without a whole response; `source` is who broke off."""
        self.aborted[source] = self.aborted.get(source, 0) + 1

    @property
    def used(self) -> bool:
        """Whether any request has come this far."""
        return self.received > 0 or any(self.first_byte.counts)


@dataclass(frozen=True, slots=True)
class TrafficInstruments:
    """The metrics of groups that `labels` name."""

    requests: Instrument
    aborted: Instrument
    received: Instrument
    sent: Instrument
    first_byte: Instrument
    stalls: Instrument

    @classmethod
    def of(
        cls, prefix: str, labels: tuple[str, ...], *, group: str, first_byte: str, stalls: str
    ) -> "TrafficInstruments":
        """Named `prefix`_…; `group` is what the labels name, `first_byte` the time that is measured, `stalls` what
        had to wait."""
        return cls(
            Instrument(
                "counter",
                f"{prefix}_requests_total",
                f"Answers, by {group}, class of status and who is to blame (none: nobody, whatever the status).",
                (*labels, "code_class", "source"),
            ),
            Instrument(
                "counter",
                f"{prefix}_requests_aborted_total",
                f"Requests that ended without a whole response, by {group} and who broke off. Those that already had "
                "a status are in the other counter too.",
                (*labels, "source"),
            ),
            Instrument(
                "counter", f"{prefix}_received_bytes_total", f"Body bytes received from visitors, by {group}.", labels
            ),
            Instrument("counter", f"{prefix}_sent_bytes_total", f"Body bytes sent to visitors, by {group}.", labels),
            Instrument("histogram", f"{prefix}_time_to_first_byte_seconds", f"{first_byte}, by {group}.", labels),
            Instrument("counter", f"{prefix}_stalls_total", f"{stalls}, by {group}.", labels),
        )

    def __iter__(self) -> Iterator[Instrument]:
        return iter((self.requests, self.aborted, self.received, self.sent, self.first_byte, self.stalls))

    def parts(self, groups: Iterable[Traffic]) -> Iterator[str]:
        """Their part of the exposition, in order."""
        listed = list(groups)
        used = [traffic for traffic in listed if traffic.used]
        yield self.requests.many(
            ((*traffic.labels, code_class, source), count)
            for traffic in listed
            for code_class, source, count in traffic.answers.samples()
        )
        yield self.aborted.many(
            ((*traffic.labels, source), count) for traffic in listed for source, count in traffic.aborted.items()
        )
        yield self.received.many((traffic.labels, traffic.received) for traffic in used)
        yield self.sent.many((traffic.labels, traffic.sent) for traffic in used)
        yield self.first_byte.buckets((traffic.labels, traffic.first_byte) for traffic in used)
        yield self.stalls.many((traffic.labels, traffic.stalls) for traffic in used)

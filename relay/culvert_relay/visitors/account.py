"""What one request comes to: for its tunnel's numbers as it goes, for its line in the access log when it is over.

Responsible for counting each answer, each break-off and each byte once. Must not know frames or connections. Part of
the hot path: additions to plain numbers, one look at the clock at the beginning and one at the response's head.
Invariant: a request is blamed on the first who broke it off.
"""

from time import monotonic

from culvert_relay.tallies import Tally


class Account:
    """One request's numbers. `tally` is where they are added to, `began` a moment of the monotonic clock.

    `status` and `source` are of the response's head, 0 and "" before it; `broken` is who broke off, or "".
    """

    __slots__ = ("began", "broken", "first_byte", "received", "sent", "source", "status", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.began = monotonic()
        self.first_byte = 0.0
        self.received = 0
        self.sent = 0
        self.status = 0
        self.source = ""
        self.broken = ""

    def count_head(self, status: int, source: str) -> None:
        """The final head has come; `source` is one of ERROR_SOURCES."""
        self.status = status
        self.source = source
        self.first_byte = elapsed = monotonic() - self.began
        tally = self.tally
        tally.first_byte.observe(elapsed)
        if source == "none":
            tally.answers.fine[status // 100] += 1
        else:
            tally.answers.add(status, source)

    def count_break(self, source: str) -> None:
        """The request ends without a whole response."""
        if not self.broken:
            self.broken = source
            self.tally.abort(source)

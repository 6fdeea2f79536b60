"""The one exception of the HTTP/1.1 codecs.

Responsible for: carrying what a caller needs to answer (status), to attribute (reason token for `Culvert-Error`)
and to explain (a sentence with a fix). Must not know who sent the bytes or how the answer is written.
Invariant: whatever bytes a codec is fed, nothing but `HTTPError` (or `PathError` from `path`) leaves it.
"""


class HTTPError(Exception):
    """A message that is refused.

    `status` is the HTTP status to answer with (4xx/5xx for a visitor's request, 502 for an origin's response);
    `reason` a stable token `[a-z0-9_]+`, at most 64 bytes; `sentence` says what was wrong and what to send instead,
    and never repeats a stranger's bytes; `close` tells whether the connection must be closed after the answer, because
    its framing cannot be trusted any more (always, today: RFC 9112 section 11.2).
    """

    __slots__ = ("close", "reason", "sentence", "status")

    status: int
    reason: str
    sentence: str
    close: bool

    def __init__(self, status: int, reason: str, sentence: str, close: bool = True) -> None:
        super().__init__(status, reason, sentence, close)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.close = close

    def __str__(self) -> str:
        return self.sentence

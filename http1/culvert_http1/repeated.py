"""Heads that say again what the one before said: most of a connection's do.

Responsible for reading one connection's heads, and for not reading field lines twice that are the same to the byte.
Must not know what is asked for. Invariant: a head comes out as `parse_request_head` would have it (a property test
compares them), because what is remembered depends on nothing but the bytes that are compared.
"""

import re
from typing import Final

from .limits import HeadLimits
from .request import ORDINARY_LINE, RequestHead, parse_request_head

REMEMBERED: Final = 2048
"""Bytes of a head up to which it is remembered: what an idle connection keeps."""
_LINE: Final = re.compile(ORDINARY_LINE)


class RequestHeads:
    """The heads of one connection.

    Remembered is the last one behind which nothing came: its request line, and the rest, which, if it is of the usual
    shape, says the same of any other ordinary request line. Such heads are shared: whoever changes one takes
    `RequestHead.marked`.
    """

    __slots__ = ("_head", "_limits", "_line", "_rest")

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._line = b""
        self._rest = b""
        self._head: RequestHead | None = None

    def read(self, data: bytes | bytearray, scanned: int = 0) -> RequestHead | None:
        """See `parse_request_head`."""
        known = self._head
        if known is not None and data.endswith(self._rest):
            size = len(data)
            length = size - len(self._rest)
            if length == len(self._line) and data.startswith(self._line):
                return known
            line = _LINE.fullmatch(data, 0, length) if known.usual else None
            if line is not None and size <= self._limits.unmeasured:
                method, target, path = line.groups()
                return RequestHead(
                    method, target, path, known.authority, known.host, known.port, 1, known.framing, 0, True, False,
                    b"", known.block, (), size, True,
                )  # fmt: skip
        head = parse_request_head(data, limits=self._limits, scanned=scanned)
        if head is not None and head.size == len(data) <= REMEMBERED and isinstance(data, bytes):
            length = len(head.method) + len(head.target) + 2 if head.usual else data.find(b"\r")
            self._line = data[:length]
            self._rest = data[length:]
            self._head = head
        return head

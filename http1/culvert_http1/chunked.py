"""The chunked transfer coding (RFC 9112 section 7.1).

Responsible for: taking a body out of its chunks and putting one in. Must not know heads or connections.
Invariant: any split of the same bytes gives the same body and the same end or error; nothing is kept between calls
but a few numbers, so a peer cannot make the decoder grow.

Stricter than the RFC where parsers differ: 1 to 16 hexadecimal digits, CRLF only, extensions bounded and dropped,
trailers well-formed, bounded and dropped.
"""

import re
from typing import Final, NoReturn

from .errors import HTTPError
from .grammar import TEXT, TOKEN
from .limits import DEFAULT_LIMITS, HeadLimits

LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a body, without trailers."""

# What the decoder expects next.
_SIZE: Final = 0  # digits of a size, or what may follow them
_BLANK: Final = 1  # white space between a size and the ';' of its extension
_EXTENSION: Final = 2
_SIZE_LF: Final = 3
_DATA: Final = 4
_DATA_CR: Final = 5
_DATA_LF: Final = 6
_LINE: Final = 7  # the beginning of a trailer line, or the empty line
_NAME: Final = 8  # the rest of a trailer's name
_VALUE: Final = 9
_LINE_LF: Final = 10
_END_LF: Final = 11
_DONE: Final = 12

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)\r\n")
_DIGITS: Final = re.compile(rb"[0-9A-Fa-f]*+")
_BLANKS: Final = re.compile(rb"[ \t]*+")
_TEXTS: Final = re.compile(TEXT + rb"*+")
_TOKENS: Final = re.compile(TOKEN + rb"*+")

_CR: Final = 0x0D
_LF: Final = 0x0A


def encode_chunk(data: bytes) -> bytes:
    """`data` as one chunk; b"" for no data, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ChunkedDecoder:
    """Takes the data out of a chunked body, piece by piece.

    `status` is that of the errors: 400 for a visitor's body (431 for trailers that are too large), 502 for an origin's.
    """

    __slots__ = ("_digits", "_extra", "_limits", "_rest", "_state", "_status", "done", "leftover")

    done: bool
    """The body has ended, trailers included."""
    leftover: bytes
    """What came after the end: the next message's bytes."""

    def __init__(self, *, status: int = 400, limits: HeadLimits = DEFAULT_LIMITS) -> None:
        self.done = False
        self.leftover = b""
        self._limits = limits
        self._status = status
        self._state = _SIZE
        self._rest = 0  # bytes of the present chunk to come; while its size is read, the value so far
        self._digits = 0  # digits of the present size
        self._extra = 0  # bytes of the present chunk's extension, or of all trailers

    def twin(self) -> "ChunkedDecoder":
        """A decoder at the same place of the same body, for a look ahead that this one knows nothing of."""
        twin = ChunkedDecoder(status=self._status, limits=self._limits)
        twin.done, twin.leftover, twin._state = self.done, self.leftover, self._state
        twin._rest, twin._digits, twin._extra = self._rest, self._digits, self._extra
        return twin

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of body in `data`, not empty, in order; a piece that is all of `data` is not copied.

        Raises `HTTPError`; after that the decoder must not be used again.
        """
        pieces: list[bytes] = []
        position = 0
        size = len(data)
        if self._state == _DONE:
            self.leftover += data
            return pieces
        while position < size:
            state = self._state
            if state == _DATA:
                rest = self._rest
                if rest > size - position:
                    pieces.append(data[position:] if position else data)
                    self._rest = rest - (size - position)
                    return pieces
                stop = position + rest
                pieces.append(data[position:stop])
                if data[stop : stop + 2] == b"\r\n":
                    position = stop + 2
                    self._state = _SIZE
                else:
                    position = stop
                    self._state = _DATA_CR
                self._rest = 0
            elif state == _SIZE and not self._digits:
                match = _SIZE_LINE.match(data, position)
                if match is not None:
                    self._rest = int(match.group(1), 16)
                    position = match.end()
                    self._begin_chunk()
                else:
                    position = self._size(data, position)
            elif state < _DATA:
                position = self._size(data, position)
            elif state < _LINE:
                if data[position] != (_CR if state == _DATA_CR else _LF):
                    self._refuse("A chunk's data is not followed by CRLF; send as many bytes as its size says.")
                position += 1
                self._state = _DATA_LF if state == _DATA_CR else _SIZE
            elif state < _DONE:
                position = self._trailer(data, position)
            else:
                self.leftover = data[position:]
                return pieces
        return pieces

    def _begin_chunk(self) -> None:
        """The size line has ended."""
        self._digits = 0
        self._extra = 0
        self._state = _DATA if self._rest else _LINE

    def _size(self, data: bytes, position: int) -> int:
        """One step through a size line that is in pieces or has an extension; the position after it."""
        state = self._state
        if state == _SIZE:
            stop = _scan(_DIGITS, data, position)
            self._digits += stop - position
            if self._digits > 16:
                self._refuse("A chunk size is over 16 digits; send fewer.")
            if stop > position:
                self._rest = self._rest << (4 * (stop - position)) | int(data[position:stop], 16)
            if stop == len(data):
                return stop
            if not self._digits:
                self._refuse("A chunk does not begin with its size in hexadecimal digits.")
            return self._after_size(data, stop, "A chunk size is not followed by CRLF or an extension.")
        if state == _BLANK:
            stop = _scan(_BLANKS, data, position)
            self._count_extension(stop - position)
            if stop == len(data):
                return stop
            if data[stop] != 0x3B:
                self._refuse("White space follows a chunk size; remove it.")
            self._state = _EXTENSION
            return stop
        if state == _EXTENSION:
            stop = _scan(_TEXTS, data, position)
            self._count_extension(stop - position)
            if stop == len(data):
                return stop
            return self._after_size(data, stop, "A chunk extension holds a control byte; remove it.")
        if data[position] != _LF:
            self._refuse("A chunk size line ends with CR alone; end it with CRLF.")
        self._begin_chunk()
        return position + 1

    def _after_size(self, data: bytes, position: int, sentence: str) -> int:
        byte = data[position]
        if byte == _CR:
            self._state = _SIZE_LF
            return position + 1
        if self._state == _SIZE and byte == 0x3B:
            self._state = _EXTENSION
        elif self._state == _SIZE and byte in (0x20, 0x09):
            self._state = _BLANK
        else:
            self._refuse(sentence)
        return position

    def _count_extension(self, count: int) -> None:
        self._extra += count
        if self._extra > self._limits.extension:
            self._refuse(f"A chunk extension is over {self._limits.extension} bytes; leave extensions out.")

    def _trailer(self, data: bytes, position: int) -> int:
        """One step through the trailer section; the position after it."""
        state = self._state
        byte = data[position]
        if state == _END_LF:
            if byte != _LF:
                self._refuse("The end of a chunked body is CR without LF; end it with CRLF.")
            self._state = _DONE
            self.done = True
            return position + 1
        if state == _LINE and byte == _CR:
            self._state = _END_LF
            return position + 1
        if state == _LINE_LF:
            if byte != _LF:
                self._refuse("A trailer line ends with CR alone; end it with CRLF.")
            stop = position + 1
            self._state = _LINE
        elif state == _VALUE:
            stop = _scan(_TEXTS, data, position)
            if stop < len(data):
                if data[stop] != _CR:
                    self._refuse("A trailer holds a control byte or a bare LF; end it with CRLF.")
                stop += 1
                self._state = _LINE_LF
        else:
            stop = _scan(_TOKENS, data, position)
            if state == _LINE and stop == position:
                self._refuse("A trailer has no name; write 'Name: value'.")
            self._state = _NAME
            if stop < len(data):
                if data[stop] != 0x3A:
                    self._refuse("A trailer's name is not followed by a colon; write 'Name: value'.")
                stop += 1
                self._state = _VALUE
        self._extra += stop - position
        if self._extra > self._limits.trailers:
            raise HTTPError(
                431 if self._status == 400 else self._status,
                "trailers_too_large" if self._status == 400 else "bad_response",
                f"The trailers are over {self._limits.trailers} bytes; send fewer.",
            )
        return stop

    def _refuse(self, sentence: str) -> NoReturn:
        raise HTTPError(self._status, "bad_chunk" if self._status == 400 else "bad_response", sentence)


def _scan(pattern: re.Pattern[bytes], data: bytes, position: int) -> int:
    match = pattern.match(data, position)
    return position if match is None else match.end()

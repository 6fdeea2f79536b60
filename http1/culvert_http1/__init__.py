"""Strict HTTP/1.1 codecs, sans-I/O: bytes in, values out (RFC 9110, RFC 9112).

Responsible for: reading heads of requests (relay) and responses (connector), chunked bodies, and paths for matching.
Must not know sockets, sessions, routes or the clock. Invariant: every message has one reading here or is refused
with an `HTTPError`, and that does not depend on how its bytes were split.
"""

from .chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk
from .errors import HTTPError
from .fields import check_fields
from .framing import Framing
from .limits import DEFAULT_LIMITS, HeadLimits
from .path import PathError, normalise_path
from .reasons import REASONS, STATUS_LINES, status_line
from .request import ALLOWED_METHODS, RequestHead, parse_request_head
from .response import ResponseHead, parse_response_head

__all__ = [
    "ALLOWED_METHODS",
    "DEFAULT_LIMITS",
    "LAST_CHUNK",
    "REASONS",
    "STATUS_LINES",
    "ChunkedDecoder",
    "Framing",
    "HTTPError",
    "HeadLimits",
    "PathError",
    "RequestHead",
    "ResponseHead",
    "check_fields",
    "encode_chunk",
    "normalise_path",
    "parse_request_head",
    "parse_response_head",
    "status_line",
]

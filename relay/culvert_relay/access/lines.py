"""One request as a line of the access log.

Responsible for which fields a line has and for their text. Pure. Must not know where lines go.

Invariants: a line is one JSON object of ASCII without a line break, whatever a visitor sent; every line has the same
keys; no field of a request but `traceparent` is ever in it, and its query only when that was asked for.
"""

from json.encoder import encode_basestring_ascii
from typing import Final, NamedTuple

from culvert_relay.access.marking import traceparent_of

MAX_PATH: Final = 2_048
"""Bytes of a path, and of a query, that a line shows."""
_text: Final = encode_basestring_ascii


class Line(NamedTuple):
    """What a line tells. Times are seconds; None is "there was none" or "nobody knows".

    `status` is the one that the visitor got (or would have, had it stayed), `error_source` one of ERROR_SOURCES,
    `error` the reason token of an answer of the relay's own. `aborted`: the response did not come to its end.
    Bytes are those of bodies as they went through the tunnel.
    """

    request_id: bytes = b""
    block: bytes = b""
    visitor: bytes = b""
    scheme: int = 0
    method: bytes = b""
    host: bytes = b""
    target: bytes = b""
    status: int = 0
    error_source: str = ""
    error: str = ""
    aborted: bool = False
    received: int = 0
    sent: int = 0
    duration: float | None = None
    first_byte: float | None = None
    issuer: str = ""
    tunnel: str = ""
    connector: str = ""


def render(line: Line, *, time: str, query: bool) -> bytes:
    """The line with its line break; `time` is RFC 3339 and means the request's end."""
    path, _, asked = line.target.partition(b"?")
    asked_text = f'"query":{_bytes(asked[:MAX_PATH])},' if query else ""
    return (
        f'{{"time":"{time}","request_id":{_bytes(line.request_id)},"traceparent":{_known(traceparent_of(line.block))},'
        f'"visitor":{_bytes(line.visitor)},"scheme":"{"https" if line.scheme else "http"}",'
        f'"method":{_bytes(line.method)},"host":{_bytes(line.host)},"path":{_bytes(path[:MAX_PATH])},{asked_text}'
        f'"status":{line.status or "null"},"error_source":{_known(line.error_source)},"error":{_known(line.error)},'
        f'"aborted":{"true" if line.aborted else "false"},'
        f'"received_bytes":{line.received},"sent_bytes":{line.sent},'
        f'"duration_seconds":{_seconds(line.duration)},"first_byte_seconds":{_seconds(line.first_byte)},'
        f'"issuer":{_known(line.issuer)},"tunnel":{_known(line.tunnel)},"connector":{_known(line.connector)}}}\n'
    ).encode("ascii")


def _bytes(value: bytes) -> str:
    return _text(value.decode("latin-1")) if value else "null"


def _known(value: str | None) -> str:
    return _text(value) if value else "null"


def _seconds(value: float | None) -> str:
    return "null" if value is None else f"{value:.6f}"

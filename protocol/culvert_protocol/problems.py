"""Refusals on the tunnel listener: problem documents (RFC 9457) in HTTP/1.1 answers.

Responsible for which status says what, and for the text of such an answer. Must not know why a credential was
refused: strangers get one uniform text for every authentication failure, so that an answer tells nothing about
which issuers, tunnels or keys exist.

Invariant: the bytes of an answer depend on status, ``retry_after`` and, for a malformed request only, a detail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PROTOCOL: Final = "culvert/1"
CONTENT_TYPE: Final = "application/problem+json"
_TYPE_PREFIX: Final = "urn:culvert:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table: ``reason`` is the token in ``Culvert-Error`` and in the problem's type."""

    status: int
    phrase: str
    reason: str
    detail: str
    fields: tuple[tuple[str, str], ...] = ()


_ROWS: Final = (
    Problem(400, "Bad Request", "bad_request", "The request is malformed."),
    Problem(
        401,
        "Unauthorized",
        "unauthenticated",
        "The credential was not accepted. Check that it has not expired and that its issuer is configured here.",
        (("WWW-Authenticate", 'Bearer realm="culvert"'),),
    ),
    Problem(403, "Forbidden", "forbidden", "This issuer or tunnel may not open sessions here."),
    Problem(404, "Not Found", "not_found", "Only culvert connectors are served at this address."),
    Problem(405, "Method Not Allowed", "method_not_allowed", "This resource knows another method."),
    Problem(
        409,
        "Conflict",
        "enough_sessions",
        "This relay has enough sessions of this connector; leave the address at rest and try the others.",
    ),
    Problem(413, "Content Too Large", "too_large", "The body is larger than a statement may be."),
    Problem(
        426,
        "Upgrade Required",
        "unsupported_version",
        f"This relay speaks {PROTOCOL}; update the connector.",
        (("Upgrade", PROTOCOL),),
    ),
    Problem(429, "Too Many Requests", "too_many_attempts", "Too many attempts; try again later."),
    Problem(431, "Request Header Fields Too Large", "head_too_large", "The request's head is too large."),
    Problem(503, "Service Unavailable", "draining", "This relay takes no new sessions; try another address."),
)
#: Every refusal by its status.
PROBLEMS: Final[Mapping[int, Problem]] = {row.status: row for row in _ROWS}


def build_refusal(status: int, *, detail: str | None = None, retry_after: int | None = None) -> bytes:
    """The whole answer for one ``status`` of ``PROBLEMS``; the connection closes after it.

    ``retry_after`` in whole seconds. ``detail`` replaces the table's text for 400 only: ``ValueError`` otherwise.
    """
    problem = PROBLEMS[status]
    if detail is not None and status != 400:
        raise ValueError(f"The text of a {status} is uniform; log the detail instead.")
    document = {
        "type": _TYPE_PREFIX + problem.reason,
        "title": problem.phrase,
        "status": status,
        "detail": problem.detail if detail is None else detail,
    }
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    fields = [
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Culvert-Error", f"relay; {problem.reason}"),
        *problem.fields,
        *([("Retry-After", str(retry_after))] if retry_after is not None else []),
        ("Connection", "Upgrade, close" if status == 426 else "close"),
    ]
    lines = [f"HTTP/1.1 {status} {problem.phrase}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def read_problem(body: bytes) -> tuple[str, str]:
    """(reason token, detail) of a problem document, ``("", "")`` for anything else; both are a stranger's text,
    made safe for one line of a log: printable ASCII, at most 64 and 300 characters.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    kind, detail = document.get("type"), document.get("detail")
    reason = kind.removeprefix(_TYPE_PREFIX) if isinstance(kind, str) else ""
    return one_line(reason, 64), one_line(detail, 300) if isinstance(detail, str) else ""


def one_line(text: str, longest: int) -> str:
    """``text`` cut to ``longest`` characters, with everything but printable ASCII shown as '?'."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:longest])

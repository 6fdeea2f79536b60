"""Requests that authenticate their connection rather than themselves: NTLM, and Negotiate as servers carry it out
(RFC 4559 section 6 names the danger: what comes behind them on the connection counts as the same user's).

Responsible for recognising them. Must not know connections or pools. Invariant: neither the case nor the place of the
field hides one.
"""

import re
from typing import Final

_CREDENTIALS: Final = re.compile(rb"(?i)(?:^|\n)authorization:[ \t]*(?:ntlm|negotiate)[ \t\r]")


def authenticates_connection(fields: bytes) -> bool:
    """Whether a block of field lines holds `Authorization: NTLM` or `Authorization: Negotiate`."""
    return b"authorization:" in fields.lower() and _CREDENTIALS.search(fields) is not None

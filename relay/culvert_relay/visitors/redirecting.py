"""From http to https: the answer to a request that came to the wrong door.

Responsible for which requests are sent on, and where to. Pure. Must not know connections or routes.
Invariant: the URL is made of the checked host and target alone; ACME's challenges are never sent on (RFC 8555
section 8.3 begins with http, and a new host has no certificate yet).
"""

from typing import Final

from culvert_http1.request import RequestHead
from culvert_relay.visitors.answers import Answer

CHALLENGES: Final = b"/.well-known/acme-challenge/"


def redirect(head: RequestHead, *, port: int, arrived_over_https: bool) -> Answer | None:
    """308 to the same URL in https at `port`; None for a request that is served where it came.

    `arrived_over_https`: a trusted proxy has taken TLS off, so that a redirect would go round in a circle.
    """
    if arrived_over_https or not head.host or head.path.startswith(CHALLENGES):
        return None
    authority = head.host if port == 443 else b"%b:%d" % (head.host, port)
    location = (b"https://" + authority + head.target).decode("ascii")
    return Answer(308, "relay", "redirect", "This host is served over https.", location=location)

"""Free ports on this machine.

Responsible for choosing TCP ports that nobody listens on. Ports are taken below the range from which Linux gives
ports to outgoing connections (32768 and up) and below NodePorts (30000 and up), so that what is free when looked at
is still free a second later, unless somebody wants precisely this number.
"""

from __future__ import annotations

import random
import socket
from typing import Final

from onenode.refusal import Refusal

FIRST: Final = 10_300  # above the ports by which Kubernetes' programs are commonly known
LAST: Final = 29_999
_ATTEMPTS: Final = 200


def is_free(port: int, address: str) -> bool:
    """Whether `address`:`port` can be bound now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def random_source() -> random.Random:
    """The system's randomness: two processes that start together must not choose the same numbers."""
    return random.SystemRandom()


def choose(count: int, *, source: random.Random, address: str = "127.0.0.1") -> tuple[int, ...]:
    """`count` different free ports. `source` is the randomness: two clusters must not try the same numbers."""
    chosen: set[int] = set()
    for _ in range(_ATTEMPTS * count):
        port = source.randint(FIRST, LAST)
        if port not in chosen and is_free(port, address):
            chosen.add(port)
            if len(chosen) == count:
                return tuple(sorted(chosen))
    raise Refusal(f"No {count} free TCP ports between {FIRST} and {LAST} on {address}.")

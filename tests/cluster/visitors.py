"""The other side of a tunnel, for tests: visitors that ask a relay, and resolvers that ask a name server.

Responsible for: requests and questions that are sent once and never repeated, and waiting for a state. Must not know:
what runs behind the addresses.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rcode

PATIENCE = 120.0
"""Seconds that a state may take on a machine that does much else. What must be quick says so in its test."""


def until(what: Callable[[], Any], *, seconds: float = PATIENCE, every: float = 0.1) -> Any:
    """Ask again and again until the answer is true, and return it; the last answer is the failure's text."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:g} s"
        time.sleep(every)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visitor got; `status` 0: no answer, and `body` says why."""

    status: int
    fields: http.client.HTTPMessage
    body: str


class Watching:
    """Does something over and over in the background and keeps what came of it, until the block ends."""

    def __init__(self, look: Callable[[], Any], *, every: float = 0.02) -> None:
        self.seen: list[Any] = []
        self._look, self._every = look, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.seen.append(self._look())
            self._stop.wait(self._every)

    def __enter__(self) -> Watching:
        self._thread.start()
        until(lambda: self.seen)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)


@dataclass
class Visitors:
    """Visitors of one relay and askers of one name server, all at loopback; they trust the certificate `authority`."""

    authority: Path
    http_port: int
    https_port: int
    dns_port: int
    relay_name: str
    """The name to which published records point."""

    def visit(
        self, host: str, path: str = "/", *, secure: bool = False, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        """One request through the relay, over a connection of its own; never repeated."""
        connection: http.client.HTTPConnection
        if secure:
            connection = _NamedHTTPS(host, self.https_port, ssl.create_default_context(cafile=str(self.authority)))
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request(method, path, body=body, headers={"Host": host})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, http.client.HTTPMessage(), f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def served(self, host: str, *, seconds: float = PATIENCE) -> float:
        """Seconds until a visitor of `host` gets 200."""
        started = time.monotonic()
        last: Answer | None = None

        def served() -> bool:
            nonlocal last
            last = self.visit(host)
            return last.status == 200

        try:
            until(served, seconds=seconds, every=0.01)
        except AssertionError as error:
            error.add_note(f"The last answer for {host} was {last}, fields {last and last.fields.items()}.")
            raise
        return time.monotonic() - started

    def resolve(self, name: str, *, kind: str = "CNAME", over: str = "udp") -> tuple[str, list[str]]:
        """(response code, records) that the zone's name server gives; the code is "" when it does not answer."""
        ask = dns.query.udp if over == "udp" else dns.query.tcp
        try:
            answer = ask(dns.message.make_query(name, kind), "127.0.0.1", port=self.dns_port, timeout=5)
        except (OSError, EOFError, dns.exception.DNSException):
            return "", []
        found = [str(record) for rrset in answer.answer if rrset.name.to_text(True) == name for record in rrset]
        return dns.rcode.to_text(answer.rcode()), found

    def published(self, name: str) -> bool:
        """Whether the resolver points a name at the relay."""
        return self.resolve(name) == ("NOERROR", [f"{self.relay_name}."])


class _NamedHTTPS(http.client.HTTPSConnection):
    """HTTPS to the node, asking for `host` by SNI and judging the certificate for it."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=20, context=context)
        self._named, self._trust = host, context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._named)

"""The servers of an RFC 2136 provider: connections, TSIG and failover.

Responsible for: asking one server over TCP, and going on to the next where that cannot do harm.
Must not know: ownership, what a change is for.
Invariants: after a message that may have been carried out (sent, and no answer) no other server is asked: the state is
read again first. An answer that is not signed as the question was is not believed. No secret is in any sentence.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.xfr
import dns.zone

from culvert_operator.dns.provider import ProviderError, Secret

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
TRANSFER_SECONDS = 120.0

ALGORITHMS: dict[str, dns.name.Name] = {"hmac-sha256": dns.tsig.HMAC_SHA256, "hmac-sha512": dns.tsig.HMAC_SHA512}

# What a peer says of our signature → what a person does about it (RFC 8945, section 5.2).
_PEER: dict[type[dns.exception.DNSException], str] = {
    dns.tsig.PeerBadKey: "does not know the TSIG key or does not allow it this (BADKEY); compare name and ACL",
    dns.tsig.PeerBadSignature: "says that the TSIG signature is wrong (BADSIG); compare the secret",
    dns.tsig.PeerBadTime: "says that the clocks differ too much for TSIG (BADTIME); set both by NTP",
}


_backend: Any = dns.asyncbackend.get_backend("asyncio")


class Unreached(Exception):
    """Nothing was asked: no connection. The text is a sentence."""


class Lost(Exception):
    """The question was sent and no answer came that can be believed. The text is a sentence."""


class Unbelieved(Lost):
    """The answer is malformed, or not signed although the question was: some servers' word on zones they lack."""


class Refused(Exception):
    """The server turned the question away for certain. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class Server:
    """``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Signing:
    """A TSIG key's name and algorithm, and where its secret is."""

    name: str
    algorithm: str
    secret: Secret

    async def key(self) -> dns.tsig.Key:
        """The key as it is now. Raises ProviderError."""
        encoded = await self.secret.value()
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not secret:
            raise ProviderError("the TSIG secret is not base64 text; store what tsig-keygen prints after 'secret'.")
        return dns.tsig.Key(dns.name.from_text(self.name), secret, ALGORITHMS[self.algorithm])


class Line:
    """One connection to one server."""

    def __init__(self, server: Server, key: dns.tsig.Key | None) -> None:
        self.server = server
        self._key = key
        self._socket: Any = None

    async def open(self) -> None:
        """Connect to the first of the server's addresses that answers. Raises Unreached."""
        if self._socket is not None:
            return
        problem: Exception | None = None
        for family, address in await addresses(self.server):
            try:
                self._socket = await _backend.make_socket(
                    family, socket.SOCK_STREAM, 0, None, (address, self.server.port), CONNECT_SECONDS
                )
            except (OSError, EOFError, dns.exception.DNSException) as error:
                problem = error
            else:
                return
        raise Unreached(f"{self.server} cannot be reached: {_said(problem)}.")

    async def ask(self, message: dns.message.Message) -> dns.message.Message:
        """The answer to a message, which is signed here. Raises Unreached, Lost or Refused."""
        await self.open()
        if self._key is not None:
            message.use_tsig(self._key)
        try:
            answer = await dns.asyncquery.tcp(message, self.server.host, timeout=ANSWER_SECONDS, sock=self._socket)
        except dns.tsig.PeerError as error:
            await self.close()
            raise Refused(_peer(self.server, error)) from error
        except dns.exception.FormError as error:
            await self.close()
            raise Unbelieved(f"{self.server} gives an answer that is not believed: {_said(error)}.") from error
        except (OSError, EOFError, dns.exception.DNSException) as error:
            await self.close()
            said = f"{self.server} did not answer ({_said(error)}); the zone is read before the next try."
            raise Lost(said) from error
        if self._key is not None and not answer.had_tsig:
            await self.close()
            raise Unbelieved(f"{self.server} answers without a TSIG signature, which is not believed.")
        return answer

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            held, self._socket = self._socket, None
            with contextlib.suppress(OSError):
                await held.close()


class Servers:
    """The servers in their order; the one that answered last is asked first."""

    def __init__(self, servers: tuple[Server, ...], signing: Signing | None) -> None:
        self._servers = servers
        self._signing = signing
        self._first = 0

    @contextlib.asynccontextmanager
    async def lines(self) -> AsyncIterator[tuple[Line, ...]]:
        """A line to each server (not connected yet), in the order in which to try them. Raises ProviderError."""
        key = await self._signing.key() if self._signing is not None else None
        made = tuple(Line(server, key) for server in self._ordered())
        try:
            yield made
        finally:
            for line in made:
                await line.close()

    def _ordered(self) -> Iterator[Server]:
        for number in range(len(self._servers)):
            yield self._servers[(self._first + number) % len(self._servers)]

    def prefer(self, server: Server) -> None:
        """Ask this one first from now on."""
        self._first = self._servers.index(server)

    async def transfer(self, zone: str) -> dns.zone.Zone:
        """The whole zone, from the first server that gives it. Raises ProviderError with each server's answer."""
        key = await self._signing.key() if self._signing is not None else None
        problems = []
        for server in self._ordered():
            try:
                found = await _transfer(server, zone, key)
            except (Unreached, Lost, Refused) as error:
                problems.append(str(error))
            else:
                self.prefer(server)
                return found
        raise ProviderError(f"the zone {zone} cannot be read: {' '.join(problems)}")


async def _transfer(server: Server, zone: str, key: dns.tsig.Key | None) -> dns.zone.Zone:
    found = dns.zone.Zone(dns.name.from_text(zone), relativize=False)
    query, _ = dns.xfr.make_query(found)
    if key is not None:
        query.use_tsig(key)
    problem: Exception | None = None
    for _, address in await addresses(server):
        try:
            await dns.asyncquery.inbound_xfr(
                address, found, query, server.port, timeout=ANSWER_SECONDS, lifetime=TRANSFER_SECONDS
            )
        except dns.tsig.PeerError as error:
            raise Refused(_peer(server, error)) from error
        except dns.xfr.TransferError as error:
            said = f"{server} refuses the transfer ({dns.rcode.to_text(error.rcode)}); allow AXFR to the TSIG key."
            raise Refused(said) from error
        except (OSError, EOFError, dns.exception.DNSException) as error:
            problem = error
        else:
            return found
    raise Lost(f"{server} did not transfer the zone ({_said(problem)}).")


async def addresses(server: Server) -> list[tuple[int, str]]:
    """(family, address) of a server's name. Raises Unreached."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise Unreached(f"the server name {server.host} cannot be resolved: {_said(error)}.") from error
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _peer(server: Server, error: Exception) -> str:
    said = next((text for kind, text in _PEER.items() if isinstance(error, kind)), f"refuses TSIG ({error})")
    return f"{server} {said}."


def _said(error: Exception | None) -> str:
    text = str(error or "").rstrip(".")
    return text or (type(error).__name__ if error is not None else "no address")

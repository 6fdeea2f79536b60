"""The rfc2136 provider: any authoritative server that does dynamic updates and transfers.

Responsible for: zones by SOA or as given, reading by AXFR, one UPDATE per name.
Must not know: ownership.
Invariants: what a read returns is a whole zone of one server; a name's failure is that name's only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from culvert_ingress.addresses import AddressError, split_address
from culvert_operator.dns.endpoint import Endpoint, RecordSet
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
)
from culvert_operator.dns.providers.rdata import name_of, record_sets, text_of
from culvert_operator.dns.providers.rfc2136.messages import UnsayableError, meaning_of, update_message
from culvert_operator.dns.providers.rfc2136.servers import (
    ALGORITHMS,
    Line,
    Lost,
    Refused,
    Server,
    Servers,
    Signing,
    Unbelieved,
    Unreached,
)

ZONE_SECONDS = 300.0
MAX_KNOWN_NAMES = 10_000


class RFC2136Provider:
    """See the module."""

    def __init__(
        self, servers: Servers, zones: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._servers = servers
        self._given = zones
        self._clock = clock
        self._known: dict[str, tuple[str | None, float]] = {}

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The zones that the Tunnel lists, else those that the servers' SOA records say hold ``names``."""
        if self._given:
            return self._given
        now = self._clock()
        unknown = sorted(name for name in names if self._known.get(name, (None, 0.0))[1] <= now)
        if unknown:
            found = await self._search(unknown)
            if len(self._known) + len(found) > MAX_KNOWN_NAMES:
                self._known.clear()
            self._known |= {name: (zone, now + ZONE_SECONDS) for name, zone in found.items()}
        held = (self._known.get(name, (None, 0.0))[0] for name in names)
        return tuple(sorted({zone for zone in held if zone is not None}))

    async def _search(self, names: Sequence[str]) -> dict[str, str | None]:
        problems = []
        async with self._servers.lines() as lines:
            for line in lines:
                try:
                    found = {name: await zone_of(line, name) for name in names}
                except (Unreached, Lost, Refused) as error:
                    problems.append(str(error))
                else:
                    self._servers.prefer(line.server)
                    return found
        raise ProviderError(f"the zones cannot be found: {' '.join(problems)}")

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """Every record set of the zone, by AXFR."""
        return tuple(record_sets(await self._servers.transfer(zone)).values())

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """One UPDATE per change, over one connection."""
        results: list[ChangeResult] = []
        async with self._servers.lines() as lines:
            for change in changes:
                try:
                    results.append(await self._change(lines, zone, change))
                except Unreached as error:
                    if not results:
                        raise ProviderError(str(error)) from error
                    rest = changes[len(results) :]
                    results += [ChangeResult(c.name, c.action, Result.FAILED, str(error)) for c in rest]
                    break
        return tuple(results)

    async def _change(self, lines: Sequence[Line], zone: str, change: RecordChange) -> ChangeResult:
        """The end of one change: the first server's word, or another's where the first cannot. Raises Unreached."""
        problem: ChangeResult | None = None
        away: list[str] = []
        for line in lines:
            try:
                answer = await line.ask(update_message(zone, change))
            except Unreached as error:
                away.append(str(error))
                continue
            except UnsayableError as error:
                return ChangeResult(change.name, change.action, Result.FAILED, str(error))
            except Lost as error:
                return ChangeResult(change.name, change.action, Result.FAILED, str(error))
            except Refused as error:
                problem = problem or ChangeResult(change.name, change.action, Result.FAILED, str(error))
                continue
            meaning = meaning_of(answer.rcode())
            said = meaning.sentence.format(server=line.server, name=change.name, zone=zone)
            result = ChangeResult(change.name, change.action, meaning.result, said)
            if not meaning.elsewhere:
                self._servers.prefer(line.server)
                return result
            problem = problem or result
        if problem is None:
            raise Unreached(" ".join(away))
        return problem

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Servers store endpoints as they are."""
        return tuple(endpoints)

    async def close(self) -> None:
        """Connections live only as long as a read or a round of changes."""


async def zone_of(line: Line, name: str) -> str | None:
    """The zone of the server that holds ``name``; None when it has none. Raises Unreached, Lost or Refused."""
    at = name.removeprefix("*.")
    while True:
        try:
            answer = await line.ask(dns.message.make_query(name_of(at), dns.rdatatype.SOA))
        except Unbelieved:
            return None
        aliases = any(r.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.DNAME) for r in answer.answer)
        if not aliases:
            break
        # An alias has no SOA, and the answer may go on into its target's zone; the name above is in the same zone.
        at = at.partition(".")[2]
        if not at:
            return None
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not answer.flags & dns.flags.AA:
        return None
    found = (r.name for r in (*answer.answer, *answer.authority) if r.rdtype == dns.rdatatype.SOA)
    return next((text_of(owner) for owner in found if name_of(at).is_subdomain(owner)), None)


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point; settings ``servers`` (by commas), ``tsig-key-name``, ``tsig-algorithm``; the secret is base64."""
    servers = tuple(_server(text) for text in config.settings.get("servers", "").split(",") if text.strip())
    if not servers:
        raise ProviderError("the rfc2136 provider needs dns.rfc2136.servers, for instance ns1.example.com:53.")
    signing = None
    if config.secret is not None:
        algorithm = config.settings.get("tsig-algorithm") or "hmac-sha256"
        key_name = config.settings.get("tsig-key-name", "")
        if algorithm not in ALGORITHMS:
            raise ProviderError(f"the TSIG algorithm {algorithm!r} is not supported; use {' or '.join(ALGORITHMS)}.")
        if not key_name:
            raise ProviderError("the rfc2136 provider needs the TSIG key's name, dns.rfc2136.tsig.keyName.")
        signing = Signing(key_name, algorithm, config.secret)
    zones = tuple(zone.rstrip(".").lower() for zone in config.zones)
    return RFC2136Provider(Servers(servers, signing), zones)


def _server(text: str) -> Server:
    text = text.strip()
    try:
        host, port = split_address(text if _has_port(text) else f"{text}:53")
    except AddressError as error:
        raise ProviderError(f"the DNS server {text!r} is no HOST:PORT: {error}") from None
    return Server(host, port)


def _has_port(text: str) -> bool:
    return text.rpartition("]")[2].count(":") == 1

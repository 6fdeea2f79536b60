"""Candidates: rules that are well-formed and granted, before anybody asks who holds their hostname.

Responsible for: RuleSpec → :class:`Candidate` or :class:`Rejected`, in one spelling. Must not know: claims, Services.
Invariant: a bad rule rejects itself only; the outcome does not depend on the order in which bindings are listed
(quotas are counted in order of the bindings' age, namespace and name).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from culvert_ingress.durations import DurationError
from culvert_ingress.durations import parse as parse_duration
from culvert_ingress.header_edits import HeaderEditError, check_header_edits
from culvert_ingress.hostnames import is_wildcard, normalise_pattern
from culvert_ingress.origin_fields import OriginFieldError, check_host_header, check_server_name
from culvert_ingress.path_rewrite import rewrite_of
from culvert_ingress.paths import PathValueError, check_path
from culvert_ingress.relay_ports import HTTP_ALONE, changes_http
from culvert_ingress.rule_json import PROXY_PROTOCOLS
from culvert_ingress.rules import HeaderEdits, OriginRequest, PathMatch, PathType
from culvert_operator.api.binding import Binding, RuleSpec
from culvert_operator.api.claim import FALLBACK, ClaimPath
from culvert_operator.api.cluster import Namespace
from culvert_operator.grants import Grants, NotGranted
from culvert_operator.keys import ObjectKey
from culvert_protocol.granted import check_sources, port_name, port_of

MIN_STATUS, MAX_STATUS = 200, 599
_RULE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_EVERY_PATH, _DEFAULTS = PathMatch(PathType.PREFIX, "/"), OriginRequest()
_PATH_TYPES = {"PathPrefix": PathType.PREFIX, "Exact": PathType.EXACT, "RegularExpression": PathType.REGEX}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule that could be served; ``origin`` lacks only the CA, which is a reference.

    The ``hostname`` of a TCP rule is ``tcp:<port>``: ports are claimed, granted and reported as names are.
    """

    binding: Binding
    rule: RuleSpec
    hostname: str
    path: PathMatch
    origin: OriginRequest
    sources: tuple[str, ...] = ()
    claim_path: ClaimPath = field(init=False)
    """What the rule asks of the hostname's claim."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "claim_path", ClaimPath(str(self.path.type), self.path.value, self.binding.meta.name))

    @property
    def yields(self) -> bool:
        """Whether its wildcard leaves the names below it to other namespaces."""
        return self.rule.wildcard == FALLBACK

    @property
    def terms(self) -> tuple[str, tuple[str, ...], bool]:
        """What all rules of one hostname must have in common: the relay knows no rules, a claim has one holder."""
        return self.rule.protocol, self.sources, self.yields


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rule that is not served, with the reason of the condition Accepted. ``hostname`` is "" when it is none."""

    rule: RuleSpec
    hostname: str
    reason: str
    message: str


Outcome = Candidate | Rejected

CONFLICTS = frozenset({"HostnameConflict", "PortConflict"})
"""Reasons of a rule whose name somebody else has."""


def taken(hostname: str) -> str:
    """The reason of a rule whose hostname or port (``tcp:<port>``) somebody else has."""
    return "HostnameConflict" if port_of(hostname) is None else "PortConflict"


def by_age(binding: Binding) -> tuple[str, str, str]:
    """Sort key: oldest object first, then by name; the same for everybody who looks."""
    return (binding.meta.created, binding.meta.namespace, binding.meta.name)


def names(binding: Binding) -> frozenset[str]:
    """What the well-formed rules of a binding claim, granted or not."""
    forms = (_form(rule) for rule in binding.rules)
    return frozenset(form.hostname for form in forms if not form.problem)


def examine(
    bindings: Iterable[Binding], *, grants: Grants, namespaces: Mapping[str, Namespace]
) -> dict[ObjectKey, tuple[Outcome, ...]]:
    """The outcome of every rule of every binding, in the rules' order."""
    used: Counter[tuple[int, str]] = Counter()
    found: dict[ObjectKey, tuple[Outcome, ...]] = {}
    for binding in sorted(bindings, key=by_age):
        namespace = namespaces.get(binding.meta.namespace) or Namespace(binding.meta.namespace, {})
        seen: dict[tuple[str, PathMatch], str] = {}
        outcomes: list[Outcome] = []
        for rule in binding.rules:
            outcome = _examine(binding, rule, grants, namespace, used)
            if isinstance(outcome, Candidate):
                twin = seen.setdefault((outcome.hostname, outcome.path), rule.name)
                if twin != rule.name:
                    said = f"The rule {twin} of this object already has {outcome.hostname} with this path; remove one."
                    outcome = Rejected(rule, outcome.hostname, taken(outcome.hostname), said)
            outcomes.append(outcome)
        found[binding.meta.key] = tuple(outcomes)
    return found


def _examine(
    binding: Binding, rule: RuleSpec, grants: Grants, namespace: Namespace, used: Counter[tuple[int, str]]
) -> Outcome:
    form = _form(rule)
    hostname = form.hostname
    if form.problem:
        return Rejected(rule, hostname, "InvalidRule", form.problem)
    if rule.protocol == "TCP":
        granted = grants.allow_port(rule.relay_port, namespace)
    else:
        granted = grants.allow(hostname, namespace)
    if isinstance(granted, NotGranted):
        return Rejected(rule, hostname, granted.reason, granted.message)
    slot = (granted.index, namespace.name)
    if used[slot] >= granted.max_rules:
        return Rejected(
            rule,
            hostname,
            "QuotaExceeded",
            f"The namespace {namespace.name} may have {granted.max_rules} rules in this Tunnel (grants[{granted.index}]"
            ".maxRules); remove rules or ask the Tunnel's owner.",
        )
    used[slot] += 1
    return Candidate(binding, rule, hostname, form.path, form.origin, form.sources)


@dataclass(frozen=True, slots=True)
class _Form:
    """What a rule says in the one spelling, or ``problem``, a sentence."""

    hostname: str = ""
    path: PathMatch = _EVERY_PATH
    origin: OriginRequest = _DEFAULTS
    sources: tuple[str, ...] = ()
    problem: str = ""


@lru_cache(maxsize=16384)
def _form(rule: RuleSpec) -> _Form:
    # It depends on nothing but the rule, and every rule of a Tunnel is examined in every round.
    try:
        hostname = _name(rule)
    except ValueError as error:
        return _Form(problem=str(error))
    try:
        sources = tuple(sorted(check_sources(rule.allowed_sources)))
        path = _path(rule)
        return _Form(hostname, path, _origin(rule, path), sources)
    except (PathValueError, DurationError, OriginFieldError, ValueError) as error:
        return _Form(hostname, problem=str(error))


def _name(rule: RuleSpec) -> str:
    """What the rule claims: its hostname in normal form, or its port."""
    if _RULE_NAME.fullmatch(rule.name) is None:
        raise ValueError("A rule's name has lower-case letters, digits and hyphens, for instance web.")
    if rule.protocol not in ("HTTP", "TCP", "TLS"):
        raise ValueError(f"The protocol {rule.protocol!r} is not known; write HTTP, TCP or TLS.")
    if rule.protocol != "TCP":
        name = str(normalise_pattern(rule.hostname))
        if rule.wildcard and not is_wildcard(name):
            raise ValueError("wildcard is about a hostname such as *.example.com; remove it.")
        return name
    if not 1 <= rule.relay_port <= 65535:
        raise ValueError("A TCP rule needs a relayPort from 1 to 65535.")
    return port_name(rule.relay_port)


def _path(rule: RuleSpec) -> PathMatch:
    kind = _PATH_TYPES.get(rule.path_type)
    if kind is None:
        raise ValueError(f"The path type {rule.path_type!r} is not known; write {', '.join(_PATH_TYPES)}.")
    value = rule.path
    if rule.protocol != "HTTP" and (kind is not PathType.PREFIX or value != "/"):
        raise ValueError("TCP and TLS have no paths; remove path.")
    if kind is PathType.PREFIX:
        # /api and /api/ are the same prefix (whole segments); two spellings would be two claims.
        value = value.rstrip("/") or "/"
    return check_path(PathMatch(kind, value))


def _origin(rule: RuleSpec, path: PathMatch) -> OriginRequest:
    if (rule.service is None) == (rule.http_status is None):
        raise ValueError("A rule has either a service or an httpStatus.")
    if rule.http_status is not None and not MIN_STATUS <= rule.http_status <= MAX_STATUS:
        raise ValueError(f"httpStatus {rule.http_status} is not a final status; write {MIN_STATUS} to {MAX_STATUS}.")
    if rule.service is not None and rule.service.scheme not in ("http", "https"):
        raise ValueError(f"The scheme {rule.service.scheme!r} is not known; write http or https.")
    if rule.protocol != "HTTP" and rule.service is None:
        raise ValueError("A TCP or TLS rule needs a service.")
    if rule.origin.proxy_protocol not in PROXY_PROTOCOLS:
        raise ValueError(f"The proxyProtocol {rule.origin.proxy_protocol!r} is not known; write None, V1 or V2.")
    written, rewrite = rule.origin, rule.origin.path_rewrite
    if written.match_sni_to_host and written.origin_server_name is not None:
        raise ValueError("matchSNItoHost takes the name of each request; remove it, or originServerName.")
    header, name = rule.origin.http_host_header, rule.origin.origin_server_name
    found = OriginRequest(
        connect_timeout=_limit("connectTimeout", written.connect_timeout),
        tls_timeout=_limit("tlsTimeout", written.tls_timeout),
        tcp_keep_alive=parse_duration(rule.origin.tcp_keep_alive),
        keep_alive_timeout=parse_duration(rule.origin.keep_alive_timeout),
        keep_alive_connections=rule.origin.keep_alive_connections,
        http_host_header=check_host_header(header) if header is not None else None,
        origin_server_name=check_server_name(name) if name is not None else None,
        no_tls_verify=rule.origin.no_tls_verify,
        proxy_protocol=PROXY_PROTOCOLS[rule.origin.proxy_protocol],
        response_timeout=parse_duration(written.response_timeout),
        match_sni_to_host=written.match_sni_to_host,
        disable_chunked_encoding=written.disable_chunked_encoding,
        path_rewrite=None
        if rewrite is None
        else rewrite_of(path, strip=rewrite.strip_prefix, replace=rewrite.replace_prefix),
        request_headers=_edits("requestHeaders", written.request_headers),
        response_headers=_edits("responseHeaders", written.response_headers),
    )
    if rule.protocol != "HTTP" and changes_http(found):
        raise ValueError(f"{', '.join(HTTP_ALONE)} are about HTTP; remove them from a TCP or TLS rule.")
    return found


def _limit(key: str, written: str) -> int:
    """A duration in which something has to happen, so that none at all would fail every request."""
    found = parse_duration(written)
    if found == 0:
        raise ValueError(f"{key} {written} leaves no time at all; write a duration above zero, for instance 30s.")
    return found


def _edits(key: str, edits: HeaderEdits) -> HeaderEdits | None:
    try:
        return check_header_edits(edits)
    except HeaderEditError as error:
        raise ValueError(f"{key}: {error}") from None

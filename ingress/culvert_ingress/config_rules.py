"""The `ingress` list of `config.yml`: rules in the file's order, and the ones that could never match.

Responsible for: reading each rule, the catch-all at the end and only there, and shadowed rules. Must not know the rest
of the file. A rule is shadowed when one earlier rule takes every request that it could match: an equal or wider
hostname with the same path expression or with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from culvert_ingress.config_edits import Edits
from culvert_ingress.config_keys import ORIGIN_REQUEST, RULE
from culvert_ingress.config_reading import Problems, Section
from culvert_ingress.config_services import ServiceError, parse_service
from culvert_ingress.hostnames import HostnameError, normalise_pattern, wildcard_suffixes
from culvert_ingress.origin_fields import OriginFieldError, check_host_header
from culvert_ingress.paths import PathValueError, check_path
from culvert_ingress.relay_ports import problem_of
from culvert_ingress.rule_json import PROXY_PROTOCOLS
from culvert_ingress.rules import OriginRequest, PathMatch, PathType, Rule, Service, StatusService, TCPService

__all__ = ["RuleFiles", "read_rules"]

MAX_RULES = 20_000
MAX_KEPT_CONNECTIONS = 100_000
MAX_TIMEOUT_MS = 86_400_000

_CATCH_ALL = "'- service: http_status:404'"
_READ = tuple[int, Rule]


@dataclass(frozen=True, slots=True)
class RuleFiles:
    """The paths that one rule names: of `caPool` and of `basicAuth`."""

    ca_pool: str | None = None
    basic_auth: str | None = None


def read_rules(top: Section, problems: Problems) -> tuple[tuple[Rule, ...], tuple[RuleFiles, ...]]:
    """The rules, and beside each the paths of the files that it names."""
    defaults, default_pool = _origin_request(top.get("originRequest"), OriginRequest(), None, problems, rule=None)
    defaults = Edits(top.get("originRequest"), defaults, problems, rule=None).of_file()
    items = top.get("ingress")
    if not isinstance(items, list) or not items:
        what = (
            "has no ingress rules"
            if items is None or items == []
            else "has something other than a list of rules in ingress"
        )
        problems.add(None, f"The file {what}; add an 'ingress' list, with {_CATCH_ALL} as its last rule.")
        return (), ()
    if len(items) > MAX_RULES:
        problems.add(None, f"The file has more than {MAX_RULES} ingress rules; split them over several tunnels.")
        return (), ()
    rules: list[Rule] = []
    files: list[RuleFiles] = []
    sound: list[_READ] = []
    for number, item in enumerate(items, 1):
        before = len(problems.found)
        section = Section(item, RULE, problems, rule=number, name="")
        request, pool = _origin_request(section.get("originRequest"), defaults, default_pool, problems, rule=number)
        service, path = _service(section), _path(section)
        edits = Edits(section.get("originRequest"), request, problems, rule=number)
        request = edits.of_rule(path, service)
        rule = Rule(f"rule-{number}", _hostname(section), path, service, request, _relay_port(section))
        rules.append(rule)
        users = section.text("basicAuth")
        files.append(RuleFiles(pool, users))
        if users is not None and isinstance(rule.service, TCPService):
            section.problem("basicAuth is for HTTP services; remove it, and let the service authenticate its visitors.")
        problem = problem_of(rule) if len(problems.found) == before else None
        if problem is not None:
            section.problem(problem)
        if len(problems.found) == before:
            sound.append((number, rule))
    _check_catch_all(sound, len(items), problems)
    _check_ports(sound, problems)
    _check_shadows(sound, problems)
    return tuple(rules), tuple(files)


def _hostname(section: Section) -> str:
    value = section.get("hostname")
    if value is None or value == "" or value == "*":
        return ""
    text = section.text("hostname")
    try:
        return normalise_pattern(text) if text is not None else ""
    except HostnameError as error:
        section.problem(f"hostname: {error}")
        return ""


def _path(section: Section) -> PathMatch | None:
    if section.get("path") is None or section.get("path") == "":
        return None
    text = section.text("path")
    if text is None:
        return None
    try:
        return check_path(PathMatch(PathType.SEARCH, text))
    except PathValueError as error:
        section.problem(f"path: {error}")
        return None


def _service(section: Section) -> Service:
    if not section.has("service"):
        section.problem("The rule has no service; add one such as 'service: http://localhost:3000'.")
        return StatusService(404)
    text = section.text("service")
    try:
        return parse_service(text) if text is not None else StatusService(404)
    except ServiceError as error:
        section.problem(str(error))
        return StatusService(404)


def _relay_port(section: Section) -> int | None:
    if section.get("relayPort") is None:
        return None
    return section.integer("relayPort", default=1, low=1, high=65535)


def _origin_request(
    value: object, defaults: OriginRequest, default_pool: str | None, problems: Problems, *, rule: int | None
) -> tuple[OriginRequest, str | None]:
    """The rule's settings over the file's over the built-in ones, and the path of the certificates."""
    if value is None:
        return defaults, default_pool
    section = Section(value, ORIGIN_REQUEST, problems, rule=rule, name="originRequest")
    most = MAX_TIMEOUT_MS
    request = replace(
        defaults,
        connect_timeout=_positive(section, "connectTimeout", defaults.connect_timeout),
        tls_timeout=_positive(section, "tlsTimeout", defaults.tls_timeout),
        tcp_keep_alive=section.duration("tcpKeepAlive", default=defaults.tcp_keep_alive, most=most),
        keep_alive_timeout=section.duration("keepAliveTimeout", default=defaults.keep_alive_timeout, most=most),
        response_timeout=section.duration("responseTimeout", default=defaults.response_timeout, most=most),
        keep_alive_connections=section.integer(
            "keepAliveConnections", default=defaults.keep_alive_connections, low=0, high=MAX_KEPT_CONNECTIONS
        ),
        http_host_header=_host_header(section) if section.get("httpHostHeader") != "" else None,
        origin_server_name=section.server_name("originServerName") if section.get("originServerName") != "" else None,
        no_tls_verify=section.boolean("noTLSVerify", default=defaults.no_tls_verify),
        proxy_protocol=_proxy_protocol(section, defaults.proxy_protocol),
        match_sni_to_host=section.boolean("matchSNItoHost", default=defaults.match_sni_to_host),
        disable_chunked_encoding=section.boolean("disableChunkedEncoding", default=defaults.disable_chunked_encoding),
    )
    if section.get("httpHostHeader") is None:
        request = replace(request, http_host_header=defaults.http_host_header)
    if section.get("originServerName") is None:
        request = replace(request, origin_server_name=defaults.origin_server_name)
    pool = default_pool
    if section.get("caPool") is not None:
        pool = section.text("caPool") if section.get("caPool") != "" else None
    return request, pool


def _positive(section: Section, key: str, default: int) -> int:
    milliseconds = section.duration(key, default=default, most=MAX_TIMEOUT_MS)
    if milliseconds == 0:
        section.problem(f"originRequest.{key} must be longer than 0s; write a duration such as 30s.")
    return milliseconds


def _proxy_protocol(section: Section, default: int) -> int:
    text = section.text("proxyProtocol")
    if text is None:
        return default
    if text not in PROXY_PROTOCOLS:
        section.problem(f"originRequest.proxyProtocol must be None, V1 or V2, not {text[:40]!r}.")
    return PROXY_PROTOCOLS.get(text, default)


def _host_header(section: Section) -> str | None:
    text = section.text("httpHostHeader")
    try:
        return check_host_header(text) if text is not None else None
    except OriginFieldError as error:
        section.problem(f"originRequest.httpHostHeader: {error}")
        return None


def _check_catch_all(sound: Sequence[_READ], count: int, problems: Problems) -> None:
    for number, rule in sound:
        catch_all = not rule.hostname and rule.path is None and not rule.by_port_only
        if number == count and not catch_all:
            problems.add(
                number, f"The last rule must match every request, without hostname and path; add {_CATCH_ALL} after it."
            )
        elif number != count and catch_all:
            problems.add(
                number,
                "It matches every request, so that the rules after it never could; give it a hostname or a path, "
                "or make it the last.",
            )


def _check_ports(sound: Sequence[_READ], problems: Problems) -> None:
    first: dict[int, int] = {}
    for number, rule in sound:
        if rule.relay_port is None:
            continue
        earlier = first.setdefault(rule.relay_port, number)
        if earlier != number:
            problems.add(number, f"Rule #{earlier} has relayPort {rule.relay_port} already; give each rule its own.")


def _check_shadows(sound: Sequence[_READ], problems: Problems) -> None:
    first: dict[tuple[str, str | None], int] = {}
    for number, rule in sound:
        if rule.by_port_only:
            continue
        path = None if rule.path is None else rule.path.value
        name = rule.hostname
        wider = [f"*.{suffix}" for suffix in wildcard_suffixes(name)]
        hosts = [name, *wider] if not name else [name, *wider, ""]
        taken = [
            first[key] for host in hosts for key in ((host, None), (host, path)) if key in first and key != ("", None)
        ]
        if taken:
            earlier = min(taken)
            problems.add(
                number,
                f"It can never match, because rule #{earlier} takes every request that it would; "
                f"move it in front of rule #{earlier}, or remove it.",
            )
        first.setdefault((name, path), number)

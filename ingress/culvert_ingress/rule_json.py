"""Rules as JSON objects, one reader and one writer for each kind of service.

Responsible for: the `rules` part of the configuration document, schema 1. Must not know the rest of the document.
Invariant: `read_rule(write_rule(rule)) == rule` for every valid rule, and what `read_rule` returns is valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from culvert_ingress.addresses import AddressError, host_name_or_ip
from culvert_ingress.certificates import MAX_PEM, CertificateError, check_certificates
from culvert_ingress.durations import DurationError, format_ms, parse
from culvert_ingress.header_edits import MAX_EDITS, MAX_NAME, HeaderEditError, check_header_edits
from culvert_ingress.hostnames import HostnameError, normalise_pattern
from culvert_ingress.origin_fields import OriginFieldError, check_host_header, check_server_name, check_socket_path
from culvert_ingress.path_rewrite import check_rewrite
from culvert_ingress.paths import MAX_VALUE, PathValueError, check_path
from culvert_ingress.reading import ObjectReader, ReadingError
from culvert_ingress.relay_ports import TCP_SCHEMES, problem_of
from culvert_ingress.rules import (
    HeaderEdits,
    HelloWorldService,
    HTTPService,
    OriginRequest,
    PathMatch,
    PathRewrite,
    PathType,
    Rule,
    Service,
    StatusService,
    TCPService,
    UnavailableService,
    UnixService,
)

__all__ = ["MAX_USERS", "PROXY_PROTOCOLS", "read_rule", "write_rule"]

PROXY_PROTOCOLS = {"None": 0, "V1": 1, "V2": 2}
MAX_ID = 512
MAX_USERS = 1000
MAX_MESSAGE = 1024
MAX_HOST = 255
MAX_KEPT_CONNECTIONS = 100_000

JSON = dict[str, Any]

_SENTENCES = (HostnameError, PathValueError, AddressError, CertificateError, DurationError, OriginFieldError)


def read_rule(value: object, place: str) -> Rule:
    """A rule from its JSON object. Raises ReadingError."""
    reader = ObjectReader(value, place)
    relay_port = reader.integer("relayPort", low=1, high=65535) if reader.has("relayPort") else None
    rule = Rule(
        id=reader.text("id", longest=MAX_ID),
        hostname=_hostname(reader),
        path=_path(reader),
        service=_service(reader.take("service"), reader.at("service")),
        origin_request=_origin_request(reader.take("originRequest"), reader.at("originRequest")),
        relay_port=relay_port,
        basic_auth=_digests(reader) if reader.has("basicAuth") else (),
    )
    reader.finish()
    problem = problem_of(rule)
    if problem is not None:
        raise ReadingError(f"{place}: {problem}")
    if rule.origin_request.path_rewrite is not None:
        try:
            check_rewrite(rule.path, rule.origin_request.path_rewrite)
        except PathValueError as error:
            raise ReadingError(f"{place}.originRequest: {error}") from None
    return rule


def write_rule(rule: Rule) -> JSON:
    """The JSON object of a rule, with every key that schema 1 has; later ones only where they say something."""
    written: JSON = {
        "id": rule.id,
        "hostname": rule.hostname,
        "path": None if rule.path is None else {"type": str(rule.path.type), "value": rule.path.value},
        "service": _write_service(rule.service),
        "originRequest": _write_origin_request(rule.origin_request),
    }
    if rule.relay_port is not None:
        written["relayPort"] = rule.relay_port
    if rule.basic_auth:
        written["basicAuth"] = list(rule.basic_auth)
    return written


def _digests(reader: ObjectReader) -> tuple[str, ...]:
    digests = reader.texts("basicAuth", most=MAX_USERS, longest=64)
    if not digests or not all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests):
        raise ReadingError(f"{reader.at('basicAuth')} must list SHA-256 digests in hexadecimal, at least one.")
    return digests


def _checked(check: Callable[[str], str], value: str, place: str) -> str:
    try:
        return check(value)
    except _SENTENCES as error:
        raise ReadingError(f"{place}: {error}") from None


def _in_normal_form(check: Callable[[str], str], value: str, place: str) -> str:
    normal = _checked(check, value, place)
    if normal != value:
        raise ReadingError(f"{place} is {value[:80]!r}, which is not in normal form; write {normal!r}.")
    return value


def _hostname(reader: ObjectReader) -> str:
    value = reader.text("hostname", longest=MAX_HOST, empty=True)
    return _in_normal_form(normalise_pattern, value, reader.at("hostname")) if value else ""


def _path(reader: ObjectReader) -> PathMatch | None:
    value = reader.take("path")
    if value is None:
        return None
    inner = ObjectReader(value, reader.at("path"))
    path = PathMatch(
        inner.choice("type", {str(kind): kind for kind in PathType}), inner.text("value", longest=MAX_VALUE)
    )
    inner.finish()
    try:
        return check_path(path)
    except PathValueError as error:
        raise ReadingError(f"{inner.at('value')}: {error}") from None


def _service(value: object, place: str) -> Service:
    reader = ObjectReader(value, place)
    service: Service = reader.choice("type", _SERVICES)(reader)
    reader.finish()
    return service


def _http(reader: ObjectReader) -> Service:
    scheme = reader.choice("scheme", {"http": "http", "https": "https"})
    host = _in_normal_form(host_name_or_ip, reader.text("host", longest=MAX_HOST), reader.at("host"))
    return HTTPService(scheme, host, reader.integer("port", low=1, high=65535))


def _tcp(reader: ObjectReader) -> Service:
    scheme = reader.choice("scheme", {name: name for name in sorted(TCP_SCHEMES)})
    host = _in_normal_form(host_name_or_ip, reader.text("host", longest=MAX_HOST), reader.at("host"))
    return TCPService(scheme, host, reader.integer("port", low=1, high=65535))


def _unix(reader: ObjectReader) -> Service:
    path = _checked(check_socket_path, reader.text("path", longest=MAX_HOST), reader.at("path"))
    return UnixService(path, reader.boolean("tls"))


_SERVICES: Mapping[str, Callable[[ObjectReader], Service]] = {
    "http": _http,
    "unix": _unix,
    "tcp": _tcp,
    "httpStatus": lambda reader: StatusService(reader.integer("status", low=200, high=599)),
    "helloWorld": lambda reader: HelloWorldService(),
    "unavailable": lambda reader: UnavailableService(reader.text("message", longest=MAX_MESSAGE, empty=True)),
}


def _write_service(service: Service) -> JSON:
    match service:
        case HTTPService(scheme, host, port):
            return {"type": "http", "scheme": scheme, "host": host, "port": port}
        case TCPService(scheme, host, port):
            return {"type": "tcp", "scheme": scheme, "host": host, "port": port}
        case UnixService(path, tls):
            return {"type": "unix", "path": path, "tls": tls}
        case StatusService(status):
            return {"type": "httpStatus", "status": status}
        case HelloWorldService():
            return {"type": "helloWorld"}
        case UnavailableService(message):
            return {"type": "unavailable", "message": message}


_DURATIONS = {
    "connectTimeout": "connect_timeout",
    "tlsTimeout": "tls_timeout",
    "tcpKeepAlive": "tcp_keep_alive",
    "keepAliveTimeout": "keep_alive_timeout",
    "responseTimeout": "response_timeout",
}
_EDITS = {"requestHeaders": "request_headers", "responseHeaders": "response_headers"}
_SWITCHES = {"matchSNItoHost": "match_sni_to_host", "disableChunkedEncoding": "disable_chunked_encoding"}


def _origin_request(value: object, place: str) -> OriginRequest:
    """Every key may be missing: then the default of `OriginRequest` holds."""
    reader = ObjectReader(value, place)
    found: JSON = {}
    for key, name in _DURATIONS.items():
        text = reader.optional_text(key, longest=40)
        if text is not None:
            try:
                found[name] = parse(text)
            except DurationError as error:
                raise ReadingError(f"{reader.at(key)}: {error}") from None
    if reader.has("keepAliveConnections"):
        found["keep_alive_connections"] = reader.integer("keepAliveConnections", low=0, high=MAX_KEPT_CONNECTIONS)
    if reader.has("proxyProtocol"):
        found["proxy_protocol"] = reader.choice("proxyProtocol", PROXY_PROTOCOLS)
    if reader.has("noTLSVerify"):
        found["no_tls_verify"] = reader.boolean("noTLSVerify")
    host_header = reader.optional_text("httpHostHeader", longest=MAX_HOST + 6)
    if host_header is not None:
        found["http_host_header"] = _checked(check_host_header, host_header, reader.at("httpHostHeader"))
    server_name = reader.optional_text("originServerName", longest=MAX_HOST)
    if server_name is not None:
        found["origin_server_name"] = _in_normal_form(check_server_name, server_name, reader.at("originServerName"))
    authority = reader.multiline("ca", longest=MAX_PEM)
    if authority is not None:
        found["ca"] = _checked(check_certificates, authority, reader.at("ca"))
    if reader.has("pathRewrite"):
        found["path_rewrite"] = _rewrite(ObjectReader(reader.take("pathRewrite"), reader.at("pathRewrite")))
    for key, name in _EDITS.items():
        if reader.has(key):
            found[name] = _edits(ObjectReader(reader.take(key), reader.at(key)))
    for key, name in _SWITCHES.items():
        if reader.has(key):
            found[name] = reader.boolean(key)
    reader.finish()
    return OriginRequest(**found)


def _rewrite(reader: ObjectReader) -> PathRewrite:
    rewrite = PathRewrite(
        reader.text("prefix", longest=MAX_VALUE, empty=True) if reader.has("prefix") else None,
        reader.text("replacement", longest=MAX_VALUE, empty=True),
    )
    reader.finish()
    return rewrite


def _edits(reader: ObjectReader) -> HeaderEdits | None:
    pairs = {"set": _pairs(reader, "set"), "add": _pairs(reader, "add")}
    removed = reader.texts("remove", most=MAX_EDITS, longest=MAX_NAME) if reader.has("remove") else ()
    reader.finish()
    try:
        return check_header_edits(HeaderEdits(**pairs, remove=removed))
    except HeaderEditError as error:
        raise ReadingError(f"{reader.place}: {error}") from None


def _pairs(reader: ObjectReader, key: str) -> tuple[tuple[str, str], ...]:
    if not reader.has(key):
        return ()
    found = []
    for index, item in enumerate(reader.array(key, longest=MAX_EDITS)):
        inner = ObjectReader(item, f"{reader.at(key)}[{index}]")
        name, value = inner.text("name", longest=MAX_NAME), inner.take("value")
        inner.finish()
        if not isinstance(value, str):  # its form is checked with the others: a tab is no mistake here
            raise ReadingError(f"{inner.at('value')} must be text.")
        found.append((name, value))
    return tuple(found)


def _write_origin_request(request: OriginRequest) -> JSON:
    written: JSON = {
        **{key: format_ms(getattr(request, name)) for key, name in _DURATIONS.items()},
        "keepAliveConnections": request.keep_alive_connections,
        "httpHostHeader": request.http_host_header,
        "originServerName": request.origin_server_name,
        "noTLSVerify": request.no_tls_verify,
        "ca": request.ca,
    }
    if request.proxy_protocol:
        written["proxyProtocol"] = f"V{request.proxy_protocol}"
    if request.path_rewrite is not None:
        rewrite = request.path_rewrite
        written["pathRewrite"] = {
            **({} if rewrite.prefix is None else {"prefix": rewrite.prefix}),
            "replacement": rewrite.replacement,
        }
    for key, name in _EDITS.items():
        edits = getattr(request, name)
        if edits is not None:
            written[key] = _write_edits(edits)
    for key, name in _SWITCHES.items():
        if getattr(request, name):
            written[key] = True
    return written


def _write_edits(edits: HeaderEdits) -> JSON:
    written: JSON = {
        kind: [{"name": name, "value": value} for name, value in pairs]
        for kind, pairs in (("set", edits.set), ("add", edits.add))
        if pairs
    }
    if edits.remove:
        written["remove"] = list(edits.remove)
    return written

"""Which rule would answer a URL, in words: `culvert tunnel ingress rule URL`.

Responsible for: taking the URL apart as a relay would, and saying which rule matches. Must not fetch anything. The
path's normal form is the HTTP codec's business, which stands beside this package: it comes in as a function.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from culvert_ingress.config_services import describe_service
from culvert_ingress.hostnames import HostnameError, normalise
from culvert_ingress.matching import HasRules, Router
from culvert_ingress.rules import PathRewrite, PathType, Rule

__all__ = ["ExplainError", "describe_rule", "explain"]

_SCHEMES = ("http", "https", "ws", "wss")
_KEPT = "%/:@!$&'()*+,;=-._~"


class ExplainError(ValueError):
    """A URL that no rule can be found for; the text is a sentence that says what to write instead."""


def explain(source: HasRules, url: str, *, normalise_path: Callable[[bytes], bytes] = bytes) -> str:
    """The rule of a ConfigFile or Document that matches `url`, as lines of text. Raises ExplainError."""
    host, path = _split(url)
    rule = Router(source).match(host, normalise_path(path))
    if rule is None:
        status = getattr(source, "fallback_status", 404)
        return f"No rule matches; the fallback answers with status {status}."
    return f"Matched rule #{source.rules.index(rule) + 1}\n{describe_rule(rule)}"


def describe_rule(rule: Rule) -> str:
    """The conditions and the service of a rule, and the path that it gets, one per line, indented."""
    lines = [f"  id: {rule.id}"]
    if rule.hostname:
        lines.append(f"  hostname: {rule.hostname}")
    if rule.path is not None:
        kind = "" if rule.path.type is PathType.SEARCH else f" ({rule.path.type})"
        lines.append(f"  path: {rule.path.value}{kind}")
    if rule.relay_port is not None:
        lines.append(f"  relayPort: {rule.relay_port}")
    lines.append(f"  service: {describe_service(rule.service)}")
    if rule.origin_request.path_rewrite is not None:
        lines.append(f"  pathRewrite: {_describe_rewrite(rule.origin_request.path_rewrite)}")
    return "\n".join(lines)


def _describe_rewrite(rewrite: PathRewrite) -> str:
    if rewrite.prefix is None:
        return f"the path becomes {rewrite.replacement}"
    if not rewrite.prefix:
        return f"{rewrite.replacement or '/'} is put in front"
    return f"{rewrite.prefix} becomes {rewrite.replacement}" if rewrite.replacement else f"{rewrite.prefix} is left out"


def _split(url: str) -> tuple[str, bytes]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise ExplainError(f"{url[:80]!r} is not a URL; write one such as https://app.example.com/path.")
    ends = [position for character in "/?#" if (position := rest.find(character)) >= 0]
    authority, tail = rest[: min(ends)] if ends else rest, rest[min(ends) :] if ends else ""
    if "@" in authority:
        raise ExplainError("The URL has a user name in front of its host; write it without.")
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host = authority
    path = tail.partition("#")[0].partition("?")[0] or "/"
    try:
        return normalise(host), quote(path, safe=_KEPT).encode()
    except HostnameError as error:
        raise ExplainError(str(error)) from None

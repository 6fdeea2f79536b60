"""What `originRequest` of a `config.yml` changes in requests and responses: `requestHeaders`, `responseHeaders`,
`pathRewrite`.

Responsible for: reading these three, and for saying when they stand where they could do nothing. Must not know the
other keys. A rule's own edits stand in the place of the file's, whole; the file's apply to HTTP services alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from culvert_ingress.config_keys import Key, Verdict
from culvert_ingress.config_reading import Problems, Section
from culvert_ingress.header_edits import HeaderEditError, check_header_edits
from culvert_ingress.path_rewrite import rewrite_of
from culvert_ingress.paths import PathValueError
from culvert_ingress.relay_ports import HTTP_ALONE, changes_http
from culvert_ingress.rules import (
    HeaderEdits,
    HTTPService,
    OriginRequest,
    PathMatch,
    PathRewrite,
    Service,
    UnixService,
)

__all__ = ["Edits"]

_LISTS = {"set": Key(Verdict.HONOURED, ""), "add": Key(Verdict.HONOURED, ""), "remove": Key(Verdict.HONOURED, "")}
_PAIR = {"name": Key(Verdict.HONOURED, ""), "value": Key(Verdict.HONOURED, "")}
_REWRITE = {"stripPrefix": Key(Verdict.HONOURED, ""), "replacePrefix": Key(Verdict.HONOURED, "")}
_PAIRS = "must be a list with items such as {name: X-Team, value: shop}"


class Edits:
    """The three keys of one `originRequest`, over what `request` says already."""

    def __init__(self, value: object, request: OriginRequest, problems: Problems, *, rule: int | None) -> None:
        self._value: Mapping[object, object] = value if isinstance(value, Mapping) else {}
        self._request = request
        self._problems = problems
        self._rule = rule

    def of_file(self) -> OriginRequest:
        """The file's defaults."""
        if self._value.get("pathRewrite") is not None:
            self._problem("originRequest.pathRewrite is about the path of a rule; write it in the rule.")
        return self._with_headers()

    def of_rule(self, path: PathMatch | None, service: Service) -> OriginRequest:
        """A rule's settings; the file's edits are left out of a service that has neither requests nor responses."""
        if isinstance(service, HTTPService | UnixService):
            if self._request.match_sni_to_host and self._request.origin_server_name:
                self._problem(
                    "originRequest.originServerName is one name, and matchSNItoHost takes that of each request; "
                    "remove one."
                )
            return replace(self._with_headers(), path_rewrite=self._rewrite(path))
        own = [key for key in HTTP_ALONE if self._value.get(key)]
        if own:
            self._problem(f"originRequest.{own[0]} needs a service that is asked by HTTP; remove it from this rule.")
        if not changes_http(self._request):
            return self._request
        return replace(
            self._request,
            request_headers=None,
            response_headers=None,
            match_sni_to_host=False,
            disable_chunked_encoding=False,
        )

    def _with_headers(self) -> OriginRequest:
        return replace(
            self._request,
            request_headers=self._edits("requestHeaders", self._request.request_headers),
            response_headers=self._edits("responseHeaders", self._request.response_headers),
        )

    def _edits(self, key: str, default: HeaderEdits | None) -> HeaderEdits | None:
        if self._value.get(key) is None:
            return default
        place = f"originRequest.{key}"
        before = len(self._problems.found)
        section = Section(self._value[key], _LISTS, self._problems, rule=self._rule, name=place)
        edits = HeaderEdits(
            self._pairs(section, place, "set"), self._pairs(section, place, "add"), self._names(section, place)
        )
        if len(self._problems.found) > before:
            return None
        try:
            return check_header_edits(edits)
        except HeaderEditError as error:
            self._problem(f"{place}: {error}")
            return None

    def _pairs(self, section: Section, place: str, kind: str) -> tuple[tuple[str, str], ...]:
        items = section.get(kind)
        if items is None:
            return ()
        if not isinstance(items, list):
            self._problem(f"{place}.{kind} {_PAIRS}.")
            return ()
        found = []
        for index, item in enumerate(items):
            pair = Section(item, _PAIR, self._problems, rule=self._rule, name=f"{place}.{kind}[{index}]")
            name, value = pair.get("name"), pair.get("value")
            if isinstance(name, str) and isinstance(value, str):
                found.append((name, value))
            else:
                self._problem(f"{place}.{kind}[{index}] needs name and value as text; put numbers in quotes.")
        return tuple(found)

    def _names(self, section: Section, place: str) -> tuple[str, ...]:
        items = section.get("remove")
        if items is None:
            return ()
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            self._problem(f"{place}.remove must be a list of names such as [X-Powered-By].")
            return ()
        return tuple(items)

    def _rewrite(self, path: PathMatch | None) -> PathRewrite | None:
        value = self._value.get("pathRewrite")
        if value is None:
            return None
        section = Section(value, _REWRITE, self._problems, rule=self._rule, name="originRequest.pathRewrite")
        before = len(self._problems.found)
        strip, put = section.text("stripPrefix"), section.text("replacePrefix")
        if len(self._problems.found) > before:
            return None
        try:
            return rewrite_of(path, strip=strip, replace=put)
        except PathValueError as error:
            self._problem(f"originRequest.pathRewrite: {error}")
            return None

    def _problem(self, message: str) -> None:
        self._problems.add(self._rule, message)

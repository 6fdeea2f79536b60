"""Header rules, path rewriting and the switches beside them in `config.yml`."""

from __future__ import annotations

import textwrap

import pytest

from culvert_ingress.config_file import ConfigErrors, load
from culvert_ingress.document import Document
from culvert_ingress.rules import HeaderEdits, OriginRequest, PathRewrite


def config(rule: str, *, top: str = "") -> str:
    return (
        "tunnel: t\nrelay: relay.example.com:443\n"
        + textwrap.dedent(top)
        + "ingress:\n"
        + textwrap.indent(textwrap.dedent(rule), "  ")
        + "\n  - service: http_status:404\n"
    )


def origin(text: str) -> OriginRequest:
    return load(text).rules[0].origin_request


RULE = """\
- hostname: app.example.com
  path: ^/api/
  service: https://localhost:8443
  originRequest:
    matchSNItoHost: true
    disableChunkedEncoding: true
    pathRewrite: {stripPrefix: /api}
    requestHeaders:
      set: [{name: X-Team, value: shop}]
      remove: [Cookie]
    responseHeaders:
      add: [{name: Strict-Transport-Security, value: "max-age=31536000"}]
"""


def test_every_key_has_its_effect_and_reaches_the_document() -> None:
    file = load(config(RULE))
    assert file.rules[0].origin_request == OriginRequest(
        match_sni_to_host=True,
        disable_chunked_encoding=True,
        path_rewrite=PathRewrite("/api"),
        request_headers=HeaderEdits(set=(("X-Team", "shop"),), remove=("Cookie",)),
        response_headers=HeaderEdits(add=(("Strict-Transport-Security", "max-age=31536000"),)),
    )
    document = file.compile(version=1, grant="g")
    assert document.schema == 2, "a connector of an earlier version is not given keys that it does not know"
    assert Document.loads(document.dumps()) == document
    assert (
        load(config("- hostname: a.example.com\n  service: http://localhost:1\n")).compile(version=1, grant="g").schema
        == 1
    )


def test_the_files_edits_are_the_default_of_http_services_alone() -> None:
    top = """\
    originRequest:
      disableChunkedEncoding: true
      requestHeaders: {set: [{name: X-Team, value: all}]}
    """
    rules = """\
    - hostname: a.example.com
      service: http://localhost:1
    - hostname: b.example.com
      service: http://localhost:1
      originRequest: {requestHeaders: {remove: [Cookie]}, disableChunkedEncoding: false}
    - hostname: c.example.com
      service: tcp://localhost:22
    """
    found = [rule.origin_request for rule in load(config(rules, top=top)).rules]
    assert found[0] == OriginRequest(
        request_headers=HeaderEdits(set=(("X-Team", "all"),)), disable_chunked_encoding=True
    )
    assert found[1] == OriginRequest(request_headers=HeaderEdits(remove=("Cookie",)))
    assert found[2] == found[3] == OriginRequest()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("requestHeaders: {set: [{name: Host, value: a}]}", "Rule #1: .*requestHeaders: .*httpHostHeader"),
        ("responseHeaders: {remove: [Content-Length]}", "Rule #1: .*responseHeaders: .*where a message ends"),
        ("requestHeaders: {set: {X-Team: shop}}", r"requestHeaders.set must be a list with items such as \{name"),
        ("requestHeaders: {set: [{name: X-Team, value: 1}]}", r"set\[0\] needs name and value as text"),
        ("requestHeaders: {set: [{name: X-Team}]}", r"set\[0\] needs name and value as text"),
        ("requestHeaders: {set: [{nam: X-Team, value: a}]}", r"set\[0\].nam' is not a known key .*'name'"),
        ("requestHeaders: {remove: X-Team}", r"remove must be a list of names such as \[X-Powered-By\]"),
        ("requestHeaders: {delete: [X-Team]}", "requestHeaders.delete' is not a known key"),
        ('requestHeaders: {set: [{name: X-Team, value: "a\\r\\nHost: b"}]}', "one line of visible ASCII"),
        ("pathRewrite: {stripPrefix: /other}", "Not every path of this rule"),
        ("pathRewrite: {}", "either stripPrefix or replacePrefix"),
        ("pathRewrite: /api", "pathRewrite must be keys with values"),
        ("pathRewrite: {stripPrefix: 1}", "stripPrefix must be text"),
        ("matchSNItoHost: true, originServerName: a.internal", "remove one"),
        ("matchSNItoHost: 1", "must be true or false"),
    ],
)
def test_a_mistake_is_a_sentence(options: str, said: str) -> None:
    rule = f"""\
    - hostname: app.example.com
      path: ^/api/
      service: https://localhost:8443
      originRequest: {{{options}}}
    """
    with pytest.raises(ConfigErrors, match=said):
        load(config(rule))


@pytest.mark.parametrize("service", ["http_status:410", "hello_world", "tcp://localhost:22"])
def test_edits_of_a_service_that_is_not_asked_by_http_are_an_error(service: str) -> None:
    rule = f"""\
    - hostname: app.example.com
      service: {service}
      originRequest: {{responseHeaders: {{remove: [Server]}}}}
    """
    with pytest.raises(ConfigErrors, match="responseHeaders needs a service that is asked by HTTP"):
        load(config(rule))


def test_a_rewrite_belongs_into_a_rule() -> None:
    with pytest.raises(ConfigErrors, match="write it in the rule"):
        load(config("", top="originRequest: {pathRewrite: {stripPrefix: /api}}\n"))

"""Which rule would answer a URL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from culvert_ingress.config_file import load
from culvert_ingress.explain import ExplainError, describe_rule, explain
from culvert_ingress.rules import OriginRequest, PathMatch, PathRewrite, PathType, Rule, StatusService

CONFIG = load(
    r"""
tunnel: t
relay: relay.example.com:443
ingress:
  - hostname: app.example.com
    path: \.jpg$
    service: http://localhost:3000
  - hostname: "*.example.com"
    service: unix:/run/app.sock
  - service: http_status:404
"""
)


@pytest.mark.parametrize(
    ("url", "lines"),
    [
        (
            "https://App.Example.com.:8443/a.jpg?x=1#y",
            [
                "Matched rule #1",
                "  id: rule-1",
                "  hostname: app.example.com",
                r"  path: \.jpg$",
                "  service: http://localhost:3000",
            ],
        ),
        (
            "http://app.example.com",
            ["Matched rule #2", "  id: rule-2", "  hostname: *.example.com", "  service: unix:/run/app.sock"],
        ),
        (
            "https://app.example.com?x=.jpg",
            ["Matched rule #2", "  id: rule-2", "  hostname: *.example.com", "  service: unix:/run/app.sock"],
        ),
        ("wss://other.org/x", ["Matched rule #3", "  id: rule-3", "  service: http_status:404"]),
    ],
)
def test_the_rule_that_matches_is_said_in_words(url: str, lines: list[str]) -> None:
    assert explain(CONFIG, url).splitlines() == lines


@pytest.mark.parametrize(
    ("path", "written", "said"),
    [
        ("^/api/", "stripPrefix: /api", "/api is left out"),
        ("^/api/", "replacePrefix: /v2", "/api becomes /v2"),
        ("^/api/", "replacePrefix: /", "/api is left out"),
    ],
)
def test_a_rewriting_of_the_path_is_said(path: str, written: str, said: str) -> None:
    config = load(
        f"""
tunnel: t
relay: relay.example.com:443
ingress:
  - hostname: app.example.com
    path: {path}
    service: http://localhost:3000
    originRequest: {{pathRewrite: {{{written}}}}}
  - service: http_status:404
"""
    )
    assert explain(config, "https://app.example.com/api/x").splitlines()[-1] == f"  pathRewrite: {said}"
    assert "pathRewrite" not in explain(config, "https://app.example.com/")


@pytest.mark.parametrize(
    ("path", "rewrite", "said"),
    [
        (PathMatch(PathType.EXACT, "/old"), PathRewrite(None, "/new/"), "the path becomes /new/"),
        (PathMatch(PathType.PREFIX, "/"), PathRewrite("", "/v2"), "/v2 is put in front"),
    ],
)
def test_a_rewriting_that_only_bindings_can_ask_for_is_said(path: PathMatch, rewrite: PathRewrite, said: str) -> None:
    rule = Rule("r", "", path, StatusService(404), OriginRequest(path_rewrite=rewrite))
    assert describe_rule(rule).splitlines()[-1] == f"  pathRewrite: {said}"


def test_the_path_is_matched_in_the_form_that_the_caller_gives_it() -> None:
    seen: list[bytes] = []

    def normalise_path(path: bytes) -> bytes:
        seen.append(path)
        return b"/x.jpg"

    assert explain(CONFIG, "https://app.example.com/bü cher", normalise_path=normalise_path).startswith(
        "Matched rule #1"
    )
    assert seen == [b"/b%C3%BC%20cher"]


def test_the_fallback_of_a_document_is_named() -> None:
    document = CONFIG.compile(version=1, grant="")
    document = replace(document, rules=document.rules[:1], fallback_status=421)
    assert explain(document, "https://other.org/") == "No rule matches; the fallback answers with status 421."


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("app.example.com", "is not a URL; write one such as https://app.example.com/path"),
        ("ftp://app.example.com", "is not a URL"),
        ("https://", "is empty"),
        ("https://127.0.0.1/", "is an IP address"),
        ("https://[::1]:80/", "is an IP address"),
        ("https://a b.com/", "has a character"),
    ],
)
def test_what_is_not_a_url_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(ExplainError, match=sentence):
        explain(CONFIG, url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ExplainError, match="user name") as refusal:
        explain(CONFIG, "https://admin:hunter2@app.example.com/")
    assert "hunter2" not in str(refusal.value)

"""``culvert tunnel ingress`` and where the configuration file is looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Culvert = Callable[..., Any]
GOOD = """\
tunnel: home
credentials-file: ./home.json
relay: [relay.example.com:443]
protocol: quic
ingress:
  - hostname: app.example.com
    path: ^/api
    service: http://localhost:3000
  - hostname: "*.example.com"
    service: http://localhost:4000
  - service: http_status:404
"""
BAD = """\
ingress:
  - hostname: app.example.com
    service: gopher://localhost
  - hostname: "*foo.com"
    service: http://localhost:1
"""


def write(path: str, text: str = GOOD) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_validate_says_ok_and_warns_on_standard_error(culvert: Culvert) -> None:
    write("config.yml")
    checked = culvert("tunnel", "ingress", "validate")
    assert checked.code == 0
    assert checked.out == "config.yml: OK, 3 rules\n"
    assert "warning: config.yml: protocol has no effect" in checked.err


def test_validate_names_every_mistake_with_its_rule(culvert: Culvert) -> None:
    write("config.yml", BAD)
    checked = culvert("tunnel", "ingress", "validate")
    assert checked.code == 1
    assert checked.out == ""
    lines = checked.err.splitlines()
    assert len(lines) == 2
    assert any(line.startswith("culvert: config.yml: Rule #1: ") and "gopher" in line for line in lines)
    assert any(line.startswith("culvert: config.yml: Rule #2: ") and "*foo.com" in line for line in lines)


@pytest.mark.parametrize(
    ("url", "number", "service"),
    [
        ("https://app.example.com/api/x?y", 1, "http://localhost:3000"),
        ("https://app.example.com/%61pi", 1, "http://localhost:3000"),
        ("https://APP.example.com:8443/other", 2, "http://localhost:4000"),
        ("http://a.b.example.com", 2, "http://localhost:4000"),
        ("https://elsewhere.org/", 3, "http_status:404"),
    ],
)
def test_rule_shows_the_rule_that_answers(culvert: Culvert, url: str, number: int, service: str) -> None:
    write("config.yml")
    shown = culvert("tunnel", "ingress", "rule", url)
    assert shown.code == 0
    assert f"Matched rule #{number}\n" in shown.out
    assert f"service: {service}\n" in shown.out


@pytest.mark.parametrize("url", ["app.example.com", "ftp://app.example.com", "https://10.0.0.1/", "https://a.org/%2f"])
def test_rule_refuses_what_no_visitor_could_ask(culvert: Culvert, url: str) -> None:
    write("config.yml")
    refused = culvert("tunnel", "ingress", "rule", url)
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith("culvert: ")
    assert refused.out == ""


@pytest.mark.parametrize("at", range(4))
def test_config_may_stand_anywhere_after_tunnel(culvert: Culvert, at: int) -> None:
    write("else/where.yml")
    words = ["ingress", "rule", "https://elsewhere.org/"]
    words[at:at] = ["--config", "else/where.yml"]
    shown = culvert("tunnel", *words)
    assert shown.code == 0
    assert shown.out.startswith("else/where.yml: Matched rule #3")


def test_the_innermost_config_counts(culvert: Culvert) -> None:
    write("inner.yml")
    checked = culvert("tunnel", "--config", "outer.yml", "ingress", "validate", "--config", "inner.yml")
    assert checked.code == 0
    assert checked.out.startswith("inner.yml: OK")


def test_the_places_are_tried_in_order(culvert: Culvert, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> str:
        return str(culvert("tunnel", "ingress", "validate").out).partition(":")[0]

    home = write("../home/.culvert/config.yml").resolve()
    assert Path(found()) == home
    write("config.yml")
    assert found() == "config.yml"
    monkeypatch.setenv("CULVERT_CONFIG", "named.yml")
    missing = culvert("tunnel", "ingress", "validate")
    assert missing.code == 1
    assert "Cannot read named.yml: no such file" in missing.err
    write("named.yml")
    assert found() == "named.yml"


def test_no_file_anywhere_names_every_place(culvert: Culvert) -> None:
    if Path("/etc/culvert/config.yml").exists():
        pytest.skip("this machine has a configuration of its own")
    refused = culvert("tunnel", "ingress", "validate")
    assert refused.code == 1
    for place in ("./config.yml", "~/.culvert/config.yml", "/etc/culvert/config.yml", "--config"):
        assert place in refused.err


def test_a_file_that_is_no_text_is_refused(culvert: Culvert) -> None:
    Path("config.yml").write_bytes(b"\xff\xfe\x00")
    refused = culvert("tunnel", "ingress", "validate")
    assert refused.code == 1
    assert "not UTF-8 text" in refused.err

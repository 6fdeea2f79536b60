"""The command as a whole: help everywhere, exit codes, logging flags, and what is not imported."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from culvert_cli import outcome
from culvert_cli.main import build_parser, version

Culvert = Callable[..., Any]


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, (*words, name))


COMMANDS = list(parsers(build_parser()))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_commands_are_those_of_the_documentation() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        "", "keys", "keys create", "keys show", "tunnel", "tunnel create", "tunnel renew", "tunnel run",
        "tunnel ingress", "tunnel ingress validate", "tunnel ingress rule", "relay", "relay run", "relay validate",
        "access", "access tcp", "connector", "connector run", "operator", "operator run", "operator retire",
        "dns", "dns plan", "dns records", "dns cleanup", "tunnel route", "tunnel route dns",
    }  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_level_has_help_with_examples(culvert: Culvert, words: tuple[str, ...]) -> None:
    shown = culvert(*words, "--help")
    assert shown.code == 0
    assert shown.err == ""
    head, examples = shown.out.split("\nexamples:\n")
    assert f"  culvert {' '.join(words)}".rstrip() in "\n" + examples
    assert "--log-level" in head
    assert max(map(len, shown.out.splitlines())) <= 120


@pytest.mark.parametrize("words", [w for w in COMMANDS if w in {v[:-1] for v in COMMANDS}], ids=" ".join)
def test_a_group_alone_is_wrong_usage_and_shows_its_help(culvert: Culvert, words: tuple[str, ...]) -> None:
    shown = culvert(*words)
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.startswith(f"usage: {' '.join(('culvert', *words))} ")
    assert "examples:" in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["keys", "nonsense"],
        ["keys", "create"],
        ["keys", "create", "--ou", "x"],
        ["keys", "show"],
        ["tunnel", "create"],
        ["tunnel", "run", "a", "b"],
        ["tunnel", "run", "--relay", "relay.example.com"],
        ["tunnel", "run", "--relay", "relay.example.com:0"],
        ["relay", "run"],
        ["connector", "run"],
        ["operator", "run", "--default-tunnel", "main", "--namespace", "n", "--connector-image", "i"],
        ["operator", "run", "--allowed-hostnames", "10.0.0.1", "--namespace", "n", "--connector-image", "i"],
        ["--log-level", "loud", "keys", "show", "x"],
    ],
)
def test_wrong_usage_exits_with_2_and_a_message(culvert: Culvert, words: list[str], roles: dict[str, Any]) -> None:
    refused = culvert(*words)
    assert refused.code == 2
    assert refused.err
    assert refused.out == ""
    assert roles == {}


def test_version(culvert: Culvert) -> None:
    shown = culvert("--version")
    assert (shown.code, shown.out) == (0, f"culvert {version()}\n")
    assert version()[0].isdigit()


# --- what runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The roles' entry points, replaced by ones that note how they were called and return 7 (or fail)."""
    calls: dict[str, Any] = {}

    def entry(name: str) -> Callable[..., int]:
        def call(*values: object, **options: object) -> int:
            calls[name] = (*values, options) if options else values
            return 7

        return call

    real = outcome.importlib.import_module
    modules = {
        "culvert_connector.main": SimpleNamespace(
            run_from_file=entry("run_from_file"), run_in_cluster=entry("run_in_cluster")
        ),
        "culvert_relay.main": SimpleNamespace(run=entry("relay"), validate=entry("validate")),
        "culvert_operator.main": SimpleNamespace(run=entry("operator")),
        "culvert_operator.retirement": SimpleNamespace(run=entry("retire")),
    }
    monkeypatch.setattr(outcome.importlib, "import_module", lambda name: modules.get(name) or real(name))
    return calls


def test_relay_run_and_validate_call_the_relay(
    culvert: Culvert, roles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert culvert("relay", "run", "--config", "relay.yml").code == 7
    assert roles["relay"] == (Path("relay.yml"),)
    assert culvert("relay", "--config", "r2.yml", "validate").code == 7
    assert roles["validate"] == (Path("r2.yml"),)
    monkeypatch.setenv("CULVERT_CONFIG", "r3.yml")
    assert culvert("relay", "run").code == 7
    assert roles["relay"] == (Path("r3.yml"),)


def test_tunnel_run_hands_over_what_the_command_line_overrides(culvert: Culvert, roles: dict[str, Any]) -> None:
    assert culvert("tunnel", "--config", "c.yml", "run").code == 7
    nothing = {"url": None, "relays": (), "relay_ca": None, "credentials_file": None, "metrics": None}
    assert roles["run_from_file"] == (Path("c.yml"), None, nothing)
    words = ["--relay", "a:1", "--relay", "[::1]:2", "--relay-ca", "ca.pem", "--credentials-file", "f.json"]
    words += ["--metrics", "127.0.0.1:0"]
    assert culvert("tunnel", "run", "home", "--config", "c.yml", *words).code == 7
    overrides = {"relays": ("a:1", "[::1]:2"), "relay_ca": Path("ca.pem"), "credentials_file": Path("f.json")}
    overrides |= {"url": None, "metrics": "127.0.0.1:0"}
    assert roles["run_from_file"] == (Path("c.yml"), "home", overrides)
    assert culvert("tunnel", "run", "--url", "http://localhost:3000", *words).code == 7
    assert roles["run_from_file"] == (None, None, overrides | {"url": "http://localhost:3000"})


def test_connector_run_calls_the_connector(culvert: Culvert, roles: dict[str, Any]) -> None:
    assert culvert("connector", "run", "--config-dir", "c", "--credentials-dir", "k").code == 7
    assert roles["run_in_cluster"] == (Path("c"), Path("k"))


def test_operator_retire_hands_over_where_it_lives(culvert: Culvert, roles: dict[str, Any]) -> None:
    assert culvert("operator", "retire", "--namespace", "ns").code == 7
    options, said = roles["retire"]
    assert (options.namespace, options.scopes) == ("ns", (None,))
    assert said == {"log_level": "info", "log_format": "text", "release": None}
    words = ["--tunnel-namespaces=ns,edge", "--watch-namespaces=shop", "--default-tunnel=edge/main"]
    assert culvert("operator", "retire", "--namespace", "ns", "--helm-release", "culvert", *words).code == 7
    options, said = roles["retire"]
    assert (options.scopes, str(options.default_tunnel)) == (("edge", "ns", "shop"), "edge/main")
    assert said["release"] == "culvert"
    refused = culvert("operator", "retire", "--namespace", "ns", "--watch-namespaces=*")
    assert (refused.code, "--watch-namespaces" in refused.err) == (2, True)


def test_operator_run_hands_over_its_options(
    culvert: Culvert, roles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--tunnel-namespaces", "a, b", "--tunnel-namespaces", "c", "--default-tunnel", "a/main"]
    monkeypatch.setenv("CULVERT_NAMESPACE", "culvert-system")
    monkeypatch.setenv("CULVERT_IMAGE", "culvert:dev")
    assert culvert("operator", "run", *words, "--allowed-hostnames", "*.Example.com", "--log-level", "debug").code == 7
    (settings,) = roles["operator"]
    options = settings.options
    assert (settings.log_level, settings.log_format) == ("debug", "text")
    assert options.namespace == "culvert-system"
    assert options.image == "culvert:dev"
    assert options.tunnel_namespaces == ("a", "b", "c")
    assert options.allowed_hostnames == ("*.example.com",)
    assert str(options.default_tunnel) == "a/main"


def test_an_operator_without_a_namespace_or_an_image_is_wrong_usage(culvert: Culvert, roles: dict[str, Any]) -> None:
    for words in (["--namespace", "n"], ["--connector-image", "i"]):
        if words[0] == "--connector-image" and Path("/var/run/secrets/kubernetes.io").exists():
            continue  # inside a Pod the namespace is known
        refused = culvert("operator", "run", *words)
        assert refused.code == 2
        assert "The operator needs" in refused.err or "the operator needs" in refused.err
    assert roles == {}


def test_a_missing_library_is_a_sentence_that_names_the_extra(
    culvert: Culvert, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'kopf'", name="kopf")

    monkeypatch.setattr(outcome.importlib, "import_module", missing)
    refused = culvert("operator", "run", "--namespace", "n", "--connector-image", "i")
    assert refused.code == 1
    assert "needs the Python package 'kopf'; install it with: pip install 'culvert[operator]'" in refused.err


def test_interruption_is_a_failure_without_a_traceback(culvert: Culvert, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(outcome.importlib, "import_module", interrupted)
    stopped = culvert("relay", "run", "--config", "r.yml")
    assert (stopped.code, stopped.err) == (1, "culvert: interrupted.\n")


# --- logging ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "variable", "level"),
    [
        ([], None, "INFO"),
        ([], "debug", "DEBUG"),
        (["--log-level", "error"], "debug", "ERROR"),
    ],
)
def test_the_flag_wins_over_the_environment(
    culvert: Culvert,
    roles: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variable: str | None,
    level: str,
) -> None:
    if variable:
        monkeypatch.setenv("CULVERT_LOG_LEVEL", variable)
    for position in (["relay", "run", *words], ["relay", *words, "run"], [*words, "relay", "run"]):
        logging.getLogger().setLevel("CRITICAL")
        assert culvert(*position, "--config", "r.yml").code == 7
        assert logging.getLevelName(logging.getLogger().level) == level


def test_json_logs_by_the_environment(culvert: Culvert, roles: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CULVERT_LOG_FORMAT", "json")
    assert culvert("relay", "run", "--config", "r.yml").code == 7
    (handler,) = logging.getLogger().handlers
    assert type(handler.formatter).__name__ == "JSONFormatter"


@pytest.mark.parametrize("variable", ["CULVERT_LOG_LEVEL", "CULVERT_LOG_FORMAT"])
def test_a_wrong_environment_is_wrong_usage(
    culvert: Culvert, roles: dict[str, Any], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "loud")
    refused = culvert("relay", "run", "--config", "r.yml")
    assert refused.code == 2
    assert f"{variable} is 'loud'; use one of" in refused.err
    assert roles == {}


# --- as a process -------------------------------------------------------------------------------------------

PROBE = """
import sys
from culvert_cli.main import main
code = main(sys.argv[1:])
heavy = ("aiohttp", "kubernetes", "kopf", "asyncio", "uvloop", "prometheus_client", "culvert_relay",
         "culvert_connector", "culvert_operator.main")
print("loaded:", [name for name in heavy if name in sys.modules])
sys.exit(code)
"""


def process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["operator", "run", "--help"],
        ["keys", "create", "--out", "k"],
        ["tunnel", "ingress", "validate", "--config", "missing.yml"],
    ],
)
def test_light_commands_load_no_server_and_no_cluster_client(words: list[str]) -> None:
    assert "loaded: []\n" in process(*words).stdout


def test_a_reader_that_goes_away_is_a_failure_without_a_traceback(tmp_path: Path) -> None:
    script = "import sys; from culvert_cli.main import main; sys.exit(main(['keys', 'show', *sys.argv[1:]]))"
    made = process("keys", "create", "--out", "k")
    assert made.returncode == 0
    with subprocess.Popen(
        [sys.executable, "-c", script, "k/issuer.pub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout
        child.stdout.close()
        assert child.stderr
        errors = child.stderr.read()
        assert child.wait(60) == 1
    assert errors == b""

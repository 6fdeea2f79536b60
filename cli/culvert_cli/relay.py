"""``culvert relay``: the edge that visitors and connectors meet at."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from culvert_cli.arguments import Subparsers, add_command, add_config, add_group
from culvert_cli.outcome import UsageError, load_role

VARIABLE = "CULVERT_CONFIG"
_CONFIG_HELP = f"the relay's configuration, relay.yml (environment: {VARIABLE})"


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    parser, group = add_group(
        commands,
        "relay",
        about="Run a relay.\n\nThe relay has the public address: visitors connect to it, and connectors dial it.",
        examples="culvert relay validate --config relay.yml\nculvert relay run --config relay.yml",
    )
    add_config(parser, text=_CONFIG_HELP)
    run = add_command(
        group,
        "run",
        about=(
            "Run a relay.\n\nSIGTERM drains it: connectors move their sessions elsewhere first; a second SIGTERM stops "
            "at once."
        ),
        examples="culvert relay run --config relay.yml",
        run=_run,
    )
    add_config(run, text=_CONFIG_HELP)
    validate = add_command(
        group,
        "validate",
        about="Check a relay's configuration.\n\nReads the file and the keys and certificates it names; opens no port.",
        examples="culvert relay validate --config relay.yml",
        run=_validate,
    )
    add_config(validate, text=_CONFIG_HELP)


def _run(arguments: argparse.Namespace) -> int:
    path = _config(arguments)
    code: int = load_role("culvert_relay.main", extra="relay").run(path)
    return code


def _validate(arguments: argparse.Namespace) -> int:
    path = _config(arguments)
    code: int = load_role("culvert_relay.main", extra="relay").validate(path)
    return code


def _config(arguments: argparse.Namespace) -> Path:
    given: Path | None = getattr(arguments, "config", None)
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    raise UsageError("A relay has no usual place for its configuration; name it with --config relay.yml.")

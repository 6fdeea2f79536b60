"""``culvert tunnel ingress``: check a ``config.yml``, and ask it which rule would answer a URL."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from culvert_cli.arguments import Subparsers, add_command, add_config, add_group
from culvert_cli.config_search import HELP as CONFIG_HELP
from culvert_cli.config_search import find_config
from culvert_cli.outcome import SUCCESS, CommandError
from culvert_cli.private_files import read_file

if TYPE_CHECKING:
    from culvert_ingress.config_file import ConfigFile

MAX_CONFIG: Final = 16 << 20


def add(tunnel_commands: Subparsers) -> None:
    """Adds the group below ``culvert tunnel``."""
    parser, group = add_group(
        tunnel_commands,
        "ingress",
        about="Check the rules of a configuration file.\n\nNothing is contacted: only the file is read.",
        examples="culvert tunnel ingress validate\nculvert tunnel ingress rule https://app.example.com/path",
    )
    add_config(parser, text=CONFIG_HELP)
    validate = add_command(
        group,
        "validate",
        about="Check a configuration file.\n\nEvery mistake is named, with its rule's number; warnings change nothing.",
        examples="culvert tunnel ingress validate\nculvert tunnel --config ./config.yml ingress validate",
        run=_validate,
    )
    add_config(validate, text=CONFIG_HELP)
    rule = add_command(
        group,
        "rule",
        about="Show which rule answers a URL.\n\nThe first rule that matches hostname and path, in the file's order.",
        examples=(
            "culvert tunnel ingress rule https://app.example.com/path\n"
            "culvert tunnel ingress rule --config ./config.yml https://app.example.com/"
        ),
        run=_rule,
    )
    rule.add_argument("url", metavar="URL", help="what a visitor would ask for")
    add_config(rule, text=CONFIG_HELP)


def _validate(arguments: argparse.Namespace) -> int:
    path = find_config(arguments)
    config = _load(path)
    count = len(config.rules)
    print(f"{path}: OK, {count} rule{'' if count == 1 else 's'}")
    return SUCCESS


def _rule(arguments: argparse.Namespace) -> int:
    from culvert_http1.path import PathError, normalise_path
    from culvert_ingress.explain import ExplainError, explain

    path = find_config(arguments)
    config = _load(path)
    try:
        print(f"{path}: {explain(config, arguments.url, normalise_path=normalise_path)}")
    except (ExplainError, PathError) as error:
        raise CommandError(str(error)) from None
    return SUCCESS


def _load(path: Path) -> ConfigFile:
    from culvert_ingress.config_file import ConfigErrors, load

    try:
        text = read_file(path, most=MAX_CONFIG).decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    try:
        config = load(text)
    except ConfigErrors as error:
        raise CommandError(*(f"{path}: {problem}" for problem in error.problems)) from None
    for warning in config.warnings:
        print(f"culvert: warning: {path}: {warning}", file=sys.stderr)
    return config

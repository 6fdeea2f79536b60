"""The look and the shared parts of every command's arguments.

Responsible for: help with examples at every level, flags that may stand anywhere (``--config``, logging), values
read into what they mean. Must not know any command.

Invariant: a flag that is shared by several levels is never given a default by the parser; otherwise a level below
would overwrite what was said above it. Defaults are applied where the value is used.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

Command: TypeAlias = Callable[[argparse.Namespace], int]
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")

_LIFETIME: Final = re.compile(r"([0-9]{1,9})([wdhms])\Z")
_UNIT_SECONDS: Final = {"w": 7 * 86_400, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
SHORTEST_LIFETIME: Final = 300
LONGEST_LIFETIME: Final = 100 * 365 * 86_400
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})\Z")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written, one column for every command's arguments."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def new_parser(prog: str, *, about: str, examples: str) -> argparse.ArgumentParser:
    """The top parser; ``add_command`` and ``add_group`` make the others look the same."""
    return _dress(argparse.ArgumentParser(prog=prog, **_look(about, examples)))


def add_command(
    subparsers: Subparsers, name: str, *, about: str, examples: str, run: Command
) -> argparse.ArgumentParser:
    """A command that does something: ``run`` gets the parsed arguments and returns the exit code."""
    parser = _dress(subparsers.add_parser(name, help=_summary(about), **_look(about, examples)))
    parser.set_defaults(run=run)
    return parser


def add_group(
    subparsers: Subparsers, name: str, *, about: str, examples: str
) -> tuple[argparse.ArgumentParser, Subparsers]:
    """A command that only has commands below it; alone it prints its help and is wrong usage."""
    parser = _dress(subparsers.add_parser(name, help=_summary(about), **_look(about, examples)))
    return parser, subcommands(parser)


def subcommands(parser: argparse.ArgumentParser) -> Subparsers:
    """The place for commands below ``parser``."""
    return parser.add_subparsers(title="commands", metavar="COMMAND", dest=argparse.SUPPRESS)


def add_config(parser: argparse.ArgumentParser, *, text: str) -> None:
    """``--config FILE``; several levels of one command may have it, the innermost one counts."""
    parser.add_argument("--config", metavar="FILE", type=Path, default=argparse.SUPPRESS, help=text)


def lifetime(text: str) -> int:
    """Seconds of ``365d``, ``12h``, ``2w``, ``90m`` or ``600s``; from 5 minutes to 100 years."""
    match = _LIFETIME.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number with one of the units w, d, h, m, s, such as 365d")
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if not SHORTEST_LIFETIME <= seconds <= LONGEST_LIFETIME:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 5 minutes (5m) and 100 years (36500d)")
    return seconds


def address(text: str) -> str:
    """``host:port`` of a relay, an IPv6 address in brackets."""
    match = _ADDRESS.match(text)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port, such as relay.example.com:443")
    return text


def listener(text: str) -> str:
    """``host:port`` to listen on, an IPv6 address in brackets; port 0 for any free one."""
    match = _ADDRESS.match(text)
    if match is None or int(match[1]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port, such as 127.0.0.1:20241")
    return text


def _look(about: str, examples: str) -> dict[str, Any]:
    indented = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return {
        "description": about,
        "epilog": f"examples:\n{indented}",
        "formatter_class": _HelpFormatter,
        "allow_abbrev": False,
    }


def _summary(about: str) -> str:
    sentence = about.strip().split("\n", 1)[0].rstrip(".")
    return sentence[0].lower() + sentence[1:]


def _dress(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    logs = parser.add_argument_group("logging")
    logs.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=argparse.SUPPRESS,
        help="how much is logged (environment: CULVERT_LOG_LEVEL; default: info)",
    )
    logs.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default=argparse.SUPPRESS,
        help="text for people, json for collectors (environment: CULVERT_LOG_FORMAT; default: text)",
    )
    return parser

"""The entry point: builds the parser, sets up logging, calls one command, turns its end into an exit code.

Must not import a role or a library that only some commands need; the command modules here describe arguments only.
Invariant: whatever goes wrong in a foreseen way is a sentence on standard error and exit code 1 or 2, never a
traceback.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from culvert_cli import access, connector, dns, ingress, keys, operator, relay, tunnel
from culvert_cli.arguments import LOG_FORMATS, LOG_LEVELS, new_parser, subcommands
from culvert_cli.outcome import FAILURE, USAGE, CommandError, UsageError

ABOUT = """\
Publish services that have no public address.

A connector next to the services dials out to a relay; the relay takes visitors' requests and sends them back down
those sessions. In Kubernetes an operator does the rest."""
EXAMPLES = """\
culvert keys create --out ./keys
culvert relay run --config relay.yml
culvert tunnel create home --issuer-key keys/issuer.key --hostname app.example.com --credentials-file home.json
culvert tunnel run --config config.yml"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = new_parser("culvert", about=ABOUT, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"culvert {version()}")
    commands = subcommands(parser)
    keys.add(commands)
    tunnel_commands = tunnel.add(commands)
    ingress.add(tunnel_commands)
    dns.add_route(tunnel_commands)
    relay.add(commands)
    access.add(commands)
    connector.add(commands)
    operator.add(commands)
    dns.add(commands)
    return parser


def version() -> str:
    """The installed distribution's version."""
    try:
        return importlib.metadata.version("culvert")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``culvert`` with ``argv`` (default: the process's) and returns the exit code."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # --help and --version are successes, anything else is usage
        return USAGE if stop.code else 0
    if not hasattr(arguments, "run"):
        _innermost(parser, sys.argv[1:] if argv is None else argv).print_help(sys.stderr)
        return USAGE
    try:
        _set_up_logging(arguments)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        for sentence in str(error).splitlines():
            print(f"culvert: {sentence}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILURE
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not trip over that again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except KeyboardInterrupt:
        print("culvert: interrupted.", file=sys.stderr)
        return FAILURE
    return code


def _set_up_logging(arguments: argparse.Namespace) -> None:
    from culvert_transport.logs import configure

    # Kept with the arguments: a role that sets its logging up itself is told the same.
    arguments.log_level = _choice(arguments, "log_level", "CULVERT_LOG_LEVEL", LOG_LEVELS, "info")
    arguments.log_format = _choice(arguments, "log_format", "CULVERT_LOG_FORMAT", LOG_FORMATS, "text")
    configure(arguments.log_level, arguments.log_format)


def _choice(arguments: argparse.Namespace, name: str, variable: str, allowed: Sequence[str], default: str) -> str:
    given: str | None = getattr(arguments, name, None)
    if given is not None:
        return given
    value = os.environ.get(variable, "") or default
    if value not in allowed:
        raise UsageError(f"The environment's {variable} is {value!r}; use one of {', '.join(allowed)}.")
    return value


def _innermost(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the group that was named without one of its commands."""
    for word in argv:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                parser = action.choices[word]
    return parser


if __name__ == "__main__":
    sys.exit(main())

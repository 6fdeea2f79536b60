"""``culvert access``: reach TCP services of a tunnel through a relay's HTTPS port."""

from __future__ import annotations

import argparse
from pathlib import Path

from culvert_cli.arguments import Subparsers, add_command, add_group, address
from culvert_cli.outcome import UsageError, load_role


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    _, group = add_group(
        commands,
        "access",
        about=(
            "Reach a TCP service behind a tunnel.\n\nFor rules with a tcp://, ssh://, rdp:// or smb:// service, "
            "through the relay's HTTPS port."
        ),
        examples="culvert access tcp --hostname home.example.com --listen 127.0.0.1:2222",
    )
    tcp = add_command(
        group,
        "tcp",
        about=(
            "Carry TCP connections to a tunnel's service.\n\nWithout --listen it carries standard input and output, as "
            "ssh's ProxyCommand wants. Bytes travel over\nWebSocket in TLS; ends and resets of either side reach the "
            "other."
        ),
        examples=(
            "culvert access tcp --hostname db.example.com --listen 127.0.0.1:5432\n"
            "ssh -o ProxyCommand='culvert access tcp --hostname %h' me@home.example.com"
        ),
        run=_tcp,
    )
    tcp.add_argument("--hostname", metavar="H", required=True, help="the hostname of the rule")
    tcp.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_listening,
        help="accept connections here (port 0: any free one; default: standard input and output)",
    )
    tcp.add_argument(
        "--relay", metavar="HOST:PORT", type=address, help="the relay's HTTPS address (default: the hostname, port 443)"
    )
    tcp.add_argument(
        "--relay-ca", metavar="PEM", type=Path, help="who signs the relay's certificates (default: the system's)"
    )


def _tcp(arguments: argparse.Namespace) -> int:
    from culvert_ingress.hostnames import HostnameError, normalise

    try:
        hostname = normalise(arguments.hostname)
    except HostnameError as error:
        raise UsageError(f"--hostname: {error}") from None
    access = load_role("culvert_access.main", extra="all")
    code: int = access.run(
        hostname=hostname,
        relay=_split(arguments.relay) if arguments.relay else None,
        authority=arguments.relay_ca,
        listen=arguments.listen,
    )
    return code


def _listening(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port, such as 127.0.0.1:2222")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)

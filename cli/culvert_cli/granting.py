"""What a tunnel is to be granted, as options of a command and as lines of its output.

Responsible for the options beyond ``--hostname``, for normalising what they say, and for naming every mistake at once.
Must not know keys or files.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from culvert_cli.outcome import CommandError

if TYPE_CHECKING:
    from culvert_cli.issuing import Wanted
    from culvert_protocol.granted import GrantedName, GrantedPort
    from culvert_protocol.statements import Grant


def add_streams(parser: argparse.ArgumentParser) -> None:
    """The options for TCP ports, TLS names and who may come."""
    parser.add_argument(
        "--tls-hostname",
        metavar="H",
        action="append",
        help="a name whose TLS is passed through to a tls:// service; may be repeated",
    )
    parser.add_argument(
        "--tcp-port",
        metavar="P",
        action="append",
        type=_port,
        help="a TCP port of the relay for a rule with relayPort; may be repeated",
    )
    parser.add_argument(
        "--allowed-source",
        metavar="[NAME=]CIDR",
        action="append",
        help="a network whose visitors may come, to everything or to one granted hostname or tcp:PORT; may be "
        "repeated (default: everybody may)",
    )


def asked(arguments: argparse.Namespace) -> Wanted | None:
    """What the options ask for; None when they name nothing. Raises ``CommandError`` with every mistake."""
    from culvert_cli.issuing import Wanted
    from culvert_protocol.granted import port_name

    problems: list[str] = []
    names = _patterns(arguments.hostname or [], "--hostname", problems)
    tls = _patterns(arguments.tls_hostname or [], "--tls-hostname", problems)
    ports = list(dict.fromkeys(arguments.tcp_port or []))
    problems += [f"{name} is given as --hostname and as --tls-hostname; keep one." for name in names if name in tls]
    known = [*names, *tls, *map(port_name, ports)]
    if not known and not arguments.allowed_source and not problems:
        return None
    if not known and not problems:
        problems.append(
            "--allowed-source restricts what is granted: give --hostname, --tls-hostname or --tcp-port too."
        )
    sources = _sources(arguments.allowed_source or [], known, problems)
    if problems:
        raise CommandError(*problems)
    return Wanted(names, tls, ports, sources)


def described(grant: Grant) -> list[str]:
    """The lines that a person reads about a grant."""
    from culvert_protocol.granted import port_name

    rows = (
        ("Hostnames:   ", [(name.hostname, name) for name in grant.names]),
        ("TLS names:   ", [(name.hostname, name) for name in grant.tls_names]),
        ("TCP ports:   ", [(port_name(port.port).removeprefix("tcp:"), port) for port in grant.tcp_ports]),
    )
    return [title + ", ".join(_named(text, entry) for text, entry in entries) for title, entries in rows if entries]


def _named(text: str, entry: GrantedName | GrantedPort) -> str:
    return f"{text} (from {', '.join(entry.allowed_sources)})" if entry.allowed_sources else text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _patterns(hostnames: list[str], option: str, problems: list[str]) -> list[str]:
    """Normalised, each once, in the order given."""
    from culvert_ingress.hostnames import HostnameError, normalise_pattern

    found: dict[str, None] = {}
    for hostname in hostnames:
        try:
            found[normalise_pattern(hostname)] = None
        except HostnameError as error:
            problems.append(f"{option}: {error}")
    return list(found)


def _sources(texts: list[str], known: list[str], problems: list[str]) -> dict[str, tuple[str, ...]]:
    from culvert_protocol.granted import check_sources

    given: dict[str, list[str]] = {}
    for text in texts:
        name, separator, network = text.rpartition("=")
        name = name.strip().lower()
        if separator and name not in known:
            problems.append(f"--allowed-source: {name!r} is not granted; name one of {', '.join(known) or 'nothing'}.")
            continue
        for target in [name] if separator else known:
            given.setdefault(target, []).append(network)
    found: dict[str, tuple[str, ...]] = {}
    for target, networks in given.items():
        try:
            found[target] = check_sources(networks)
        except ValueError as error:
            sentence = f"--allowed-source: {error}"
            if sentence not in problems:
                problems.append(sentence)
    return found

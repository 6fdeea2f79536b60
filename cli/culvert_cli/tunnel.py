"""``culvert tunnel``: make and renew a tunnel's credentials, and run its connector outside a cluster."""

from __future__ import annotations

import argparse
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from culvert_cli.arguments import Subparsers, add_command, add_config, add_group, address, lifetime, listener
from culvert_cli.config_search import HELP as CONFIG_HELP
from culvert_cli.config_search import find_config
from culvert_cli.granting import add_streams, asked, described
from culvert_cli.keys import load_issuer_key, load_public_keys
from culvert_cli.outcome import SUCCESS, CommandError, UsageError, load_role
from culvert_cli.private_files import create_file, read_file, replace_file

if TYPE_CHECKING:
    from culvert_cli.issuing import Fresh
    from culvert_protocol.credentials_file import CredentialsFile

YEAR = 365 * 86_400


def add(commands: Subparsers) -> Subparsers:
    """Adds the group to the command line; returns the place for further commands of it."""
    parser, group = add_group(
        commands,
        "tunnel",
        about=(
            "Make a tunnel and run its connector.\n\nFor machines outside a cluster; in Kubernetes the operator does "
            "this."
        ),
        examples=(
            "culvert tunnel create home --issuer-key keys/issuer.key --hostname app.example.com "
            "--credentials-file home.json\n"
            "culvert tunnel ingress validate\n"
            "culvert tunnel run"
        ),
    )
    add_config(parser, text=CONFIG_HELP)
    _add_create(group)
    _add_renew(group)
    _add_run(group)
    return group


def _add_create(group: Subparsers) -> None:
    parser = add_command(
        group,
        "create",
        about=(
            "Make a tunnel's credentials file.\n\nThe file (mode 0600, never overwritten) holds a new private key, a "
            "credential for it, and the grant of the\nhostnames, both signed by the issuer. Nothing is sent anywhere: "
            "relays know the issuer's public key."
        ),
        examples=(
            "culvert tunnel create home --issuer-key keys/issuer.key --hostname app.example.com \\\n"
            "    --hostname '*.dev.example.com' --credentials-file home.json\n"
            "culvert tunnel create demo --issuer-key keys/issuer.key --hostname demo.example.com \\\n"
            "    --credentials-file demo.json --valid-for 12h\n"
            "culvert tunnel create lab --issuer-key keys/issuer.key --tcp-port 20022 --tls-hostname db.example.com \\\n"
            "    --allowed-source tcp:20022=192.0.2.0/24 --credentials-file lab.json"
        ),
        run=_create,
    )
    parser.add_argument("name", metavar="NAME", help="the tunnel's name, for people")
    _add_issuer(parser)
    parser.add_argument(
        "--hostname",
        metavar="H",
        action="append",
        help="a name that the tunnel may serve, *.suffix for all below one; may be repeated",
    )
    add_streams(parser)
    parser.add_argument("--credentials-file", metavar="F", type=Path, required=True, help="the file to write")
    _add_valid_for(parser, "365d")
    add_config(parser, text=argparse.SUPPRESS)


def _add_renew(group: Subparsers) -> None:
    parser = add_command(
        group,
        "renew",
        about=(
            "Renew a tunnel's credentials file.\n\nKeeps the tunnel's id and the age of its claims; makes a new key, "
            "a later credential and a newer grant,\nand replaces the file at once. A running connector takes it over "
            "without losing a session."
        ),
        examples=(
            "culvert tunnel renew --credentials-file home.json --issuer-key keys/issuer.key\n"
            "culvert tunnel renew --credentials-file home.json --issuer-key keys/issuer.key \\\n"
            "    --hostname app.example.com --hostname new.example.com --valid-for 90d"
        ),
        run=_renew,
    )
    parser.add_argument("--credentials-file", metavar="F", type=Path, required=True, help="the file to renew")
    _add_issuer(parser)
    parser.add_argument(
        "--hostname",
        metavar="H",
        action="append",
        help="the names from now on, instead of the old ones; may be repeated (default: the old ones). With any of "
        "the next three options too, what they say replaces all that was granted",
    )
    add_streams(parser)
    _add_valid_for(parser, "as long as the old one")
    add_config(parser, text=argparse.SUPPRESS)


def _add_run(group: Subparsers) -> None:
    parser = add_command(
        group,
        "run",
        about=(
            "Run the tunnel's connector.\n\nDials the relays, serves the rules of the configuration file, and follows "
            "changes of it. SIGTERM or Ctrl-C\nfinishes what is in flight; a second one stops at once.\n\nWith --url "
            "no file is needed: every hostname of the credentials is served from one place."
        ),
        examples=(
            "culvert tunnel run\n"
            "culvert tunnel run --config ./config.yml\n"
            "culvert tunnel run --url http://localhost:3000 --credentials-file home.json \\\n"
            "    --relay relay.example.com:443\n"
            "culvert tunnel --config ./config.yml run my-tunnel"
        ),
        run=_run,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the tunnel, when the file names none")
    parser.add_argument(
        "--url",
        metavar="SERVICE",
        help="instead of a configuration file: the service, such as http://localhost:3000, of every hostname that the "
        "credentials grant; needs --credentials-file and --relay",
    )
    parser.add_argument("--credentials-file", metavar="F", type=Path, help="instead of the file's credentials-file")
    parser.add_argument(
        "--relay",
        metavar="HOST:PORT",
        action="append",
        type=address,
        help="a relay's address, instead of the file's; may be repeated",
    )
    parser.add_argument(
        "--relay-ca", metavar="PEM", type=Path, help="who signs the relays' certificates, instead of the file's"
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        type=listener,
        help="where status and metrics are, instead of the file's; port 0 for any free one (default: 127.0.0.1:20241)",
    )
    add_config(parser, text=CONFIG_HELP)


def _add_issuer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--issuer-key", metavar="FILE", type=Path, required=True, help="the issuer's private key, issuer.key"
    )
    parser.add_argument(
        "--issuer-pub",
        metavar="FILE",
        type=Path,
        help="the public key file that relays have; needed only when the key is a successor in it",
    )


def _add_valid_for(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--valid-for",
        metavar="TIME",
        type=lifetime,
        help=f"how long the credentials hold: a number with w, d, h, m or s (default: {default})",
    )


def _create(arguments: argparse.Namespace) -> int:
    from culvert_cli import issuing
    from culvert_protocol.statements import StatementError

    issuer = load_issuer_key(arguments.issuer_key)
    issuer_id = issuer.public.thumbprint
    if arguments.issuer_pub is not None:
        known = load_public_keys(arguments.issuer_pub)
        if issuer_id not in {key.thumbprint for key in known}:
            raise CommandError(
                f"The key in {arguments.issuer_key} is not in {arguments.issuer_pub}; relays would refuse the tunnel."
            )
        issuer_id = known[0].issuer_id
    if not arguments.name.strip() or len(arguments.name) > 253 or not arguments.name.isprintable():
        raise CommandError("A tunnel's name is 1 to 253 printable characters; choose another one.")
    wanted = asked(arguments)
    if wanted is None:
        raise UsageError("A tunnel serves something: give --hostname, --tls-hostname or --tcp-port.")
    try:
        file = issuing.create(
            issuer,
            issuer_id=issuer_id,
            tunnel=arguments.name,
            tunnel_id=str(uuid.uuid4()),
            wanted=wanted,
            valid_for=arguments.valid_for or YEAR,
            fresh=_fresh(),
        )
    except StatementError as error:
        raise CommandError(str(error)) from None
    create_file(arguments.credentials_file, file.dumps().encode("ascii"))
    _report("Created", file, arguments.credentials_file)
    return SUCCESS


def _renew(arguments: argparse.Namespace) -> int:
    from culvert_cli import issuing
    from culvert_protocol.credentials_file import MAX_SIZE, CredentialsFile, CredentialsFileError
    from culvert_protocol.statements import StatementError

    path: Path = arguments.credentials_file
    issuer = load_issuer_key(arguments.issuer_key)
    known = load_public_keys(arguments.issuer_pub) if arguments.issuer_pub is not None else ()
    try:
        old = CredentialsFile.loads(read_file(path, most=MAX_SIZE))
        new = issuing.renew(
            old,
            issuer,
            issuer_keys=[key.thumbprint for key in known],
            wanted=asked(arguments),
            valid_for=arguments.valid_for or issuing.lifetime_of(old.read_credential()),
            fresh=_fresh(),
        )
    except (CredentialsFileError, issuing.IssuingError, StatementError) as error:
        raise CommandError(f"{path}: {error}") from None
    replace_file(path, new.dumps().encode("ascii"))
    _report("Renewed", new, path)
    return SUCCESS


def _run(arguments: argparse.Namespace) -> int:
    alone = arguments.url is not None
    if alone and getattr(arguments, "config", None) is not None:
        raise UsageError("--url is there for want of a configuration file; leave it out, or --config.")
    if alone and not (arguments.credentials_file and arguments.relay):
        raise UsageError("--url needs --credentials-file FILE and --relay HOST:PORT, which the file would say.")
    connector = load_role("culvert_connector.main", extra="connector")
    code: int = connector.run_from_file(
        None if alone else find_config(arguments),
        arguments.name,
        url=arguments.url,
        relays=tuple(arguments.relay or ()),
        relay_ca=arguments.relay_ca,
        credentials_file=arguments.credentials_file,
        metrics=arguments.metrics,
    )
    return code


def _fresh() -> Fresh:
    from culvert_cli.issuing import Fresh
    from culvert_protocol.keys import generate_key

    return Fresh(key=generate_key(), jti=str(uuid.uuid4()), now_ms=time.time_ns() // 1_000_000)


def _report(verb: str, file: CredentialsFile, path: Path) -> None:
    credential, grant = file.read_credential(), file.read_grant()
    print(f"{verb} tunnel {file.tunnel} ({file.tunnel_id})")
    for line in described(grant) if grant else ():
        print(line)
    print(f"Valid until: {datetime.fromtimestamp(credential.expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC")
    print(f"Credentials: {path}  (secret; name it in config.yml as credentials-file)")

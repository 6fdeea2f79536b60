"""``culvert keys``: an issuer's key pair.

The issuer is who may say that a tunnel exists and which hostnames it serves; relays know it by its public key.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from culvert_cli.arguments import Subparsers, add_command, add_group
from culvert_cli.outcome import SUCCESS, CommandError
from culvert_cli.private_files import PUBLIC, already_there, create_file, is_exposed, read_file

if TYPE_CHECKING:
    from culvert_protocol.keys import IssuerKey, PublicKey

PRIVATE_NAME = "issuer.key"
PUBLIC_NAME = "issuer.pub"


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    _, group = add_group(
        commands,
        "keys",
        about=(
            "Make and show issuers' keys.\n\nAn issuer's private key signs tunnels' credentials; relays get the "
            "public one."
        ),
        examples="culvert keys create --out ./keys\nculvert keys show ./keys/issuer.key",
    )
    create = add_command(
        group,
        "create",
        about=(
            f"Make an issuer's key pair.\n\nWrites {PRIVATE_NAME} (keep it secret) and {PUBLIC_NAME} (give it to "
            "relays)."
        ),
        examples="culvert keys create --out ./keys",
        run=_create,
    )
    create.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for both files; made if missing")
    show = add_command(
        group,
        "show",
        about=(
            "Show public keys and their thumbprints.\n\nThe output is itself a public key file. The first key of a "
            "file names the issuer; those after\nit are its successors, which a relay trusts in the same way."
        ),
        examples=(
            "culvert keys show ./keys/issuer.key > issuer.pub\n"
            "culvert keys show old/issuer.pub new/issuer.pub > both.pub   # 'new' succeeds 'old'\n"
            "culvert keys show --thumbprint issuer.pub"
        ),
        run=_show,
    )
    show.add_argument("files", metavar="FILE", type=Path, nargs="+", help="issuer.key or issuer.pub")
    show.add_argument("--thumbprint", action="store_true", help="print the thumbprints only")


def load_issuer_key(path: Path) -> IssuerKey:
    """The private key in ``path``; warns when others may read the file. ``CommandError`` when it is none."""
    from culvert_protocol.keys import MAX_PEM_SIZE, KeyFormatError, load_issuer_private

    try:
        key = load_issuer_private(read_file(path, most=MAX_PEM_SIZE))
    except KeyFormatError as error:
        raise CommandError(f"{path}: {error}") from None
    if is_exposed(path):
        print(f"culvert: warning: others can read {path}; protect it with: chmod 600 {path}", file=sys.stderr)
    return key


def load_public_keys(path: Path) -> tuple[PublicKey, ...]:
    """The keys of a public key file, the issuer's first one first; ``CommandError`` when it is none."""
    from culvert_protocol.keys import MAX_PEM_SIZE, KeyFormatError, load_issuer_public

    try:
        return load_issuer_public(read_file(path, most=MAX_PEM_SIZE))
    except KeyFormatError as error:
        raise CommandError(f"{path}: {error}") from None


def _create(arguments: argparse.Namespace) -> int:
    from culvert_protocol.keys import generate_issuer_key

    folder: Path = arguments.out
    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"Cannot make the folder {folder}: {reason}; choose another one with --out.") from None
    for path in (private, public):
        if path.is_symlink() or path.exists():
            raise CommandError(already_there(path))
    key = generate_issuer_key()
    create_file(private, key.pem())
    try:
        create_file(public, key.public.pem(), mode=PUBLIC)
    except CommandError:
        private.unlink(missing_ok=True)  # made a moment ago and known to nobody
        raise
    print(f"Private key: {private}  (keep it secret; it signs tunnels)")
    print(f"Public key:  {public}  (relay.yml: issuers[].publicKeyFile)")
    print(f"Thumbprint:  {key.public.thumbprint}")
    return SUCCESS


def _show(arguments: argparse.Namespace) -> int:
    shown: list[PublicKey] = []
    for path in arguments.files:
        shown.extend(_public_keys_of(path))
    for key in dict.fromkeys(shown):
        if arguments.thumbprint:
            print(key.thumbprint)
        else:
            print(f"# thumbprint: {key.thumbprint}\n{key.pem().decode('ascii')}", end="")
    return SUCCESS


def _public_keys_of(path: Path) -> tuple[PublicKey, ...]:
    from culvert_protocol.keys import MAX_PEM_SIZE

    if b"PRIVATE KEY" in read_file(path, most=MAX_PEM_SIZE):
        return (load_issuer_key(path).public,)
    return load_public_keys(path)

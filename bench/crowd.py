"""Many real connectors in one process, for benchmarks of the relay: `python -m bench.crowd --help`.

Each is a tunnel of its own with its sessions and hostnames (`t<tunnel>-<number>.example.com`), and answers requests
itself (200, no origin). It runs until SIGTERM.
"""

import argparse
import asyncio
import resource
import secrets
import signal
import time
from pathlib import Path

from culvert_connector.connector import Connector
from culvert_connector.sources.port import ConfigSink
from culvert_ingress.document import ConnectorSettings, Document, RelayTarget
from culvert_ingress.rules import Rule, StatusService
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.keys import IssuerKey, generate_key, load_issuer_private
from culvert_protocol.statements import GrantedName, sign_credential, sign_grant
from culvert_transport.loop import loop_factory

AT_ONCE = 20
"""Connectors started between two pauses, so that none runs into a time-out of its own making."""


class Given:
    """A source with one configuration."""

    def __init__(self, credentials: CredentialsFile, document: Document) -> None:
        self._credentials = credentials
        self._document = document

    async def run(self, sink: ConfigSink) -> None:
        """See `ConfigSource`."""
        sink.credentials(self._credentials)
        sink.configuration(self._document)
        await asyncio.Event().wait()


def source(issuer: IssuerKey, number: int, given: argparse.Namespace, ca: str) -> Given:
    """One tunnel's credentials and configuration."""
    now = int(time.time())
    key, subject = generate_key(), f"tunnel-{number}"
    names = [f"t{number}-{one}.example.com" for one in range(given.hostnames)]
    credential = sign_credential(
        issuer, subject=subject, public_key=key.public, issued_at=now, not_before=now - 60, expires_at=now + 86_400,
        jti=secrets.token_hex(8),
    )  # fmt: skip
    grant = sign_grant(
        issuer, subject=subject, version=1, names=[GrantedName(name, now * 1000) for name in names], issued_at=now,
        expires_at=now + 86_400,
    )  # fmt: skip
    document = Document(
        version=1,
        tunnel=subject,
        relay=RelayTarget((given.relay,), None, ca),
        rules=tuple(Rule(name, name, None, StatusService(200)) for name in names),
        connector=ConnectorSettings(given.sessions, 1),
        grant=grant,
    )
    return Given(CredentialsFile(subject, subject, credential, key, grant), document)


async def crowd(given: argparse.Namespace) -> None:
    """Runs them all."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    issuer = load_issuer_private(given.issuer_key.read_bytes())
    ca = given.ca.read_text()
    tasks = []
    for number in range(given.first, given.first + given.connectors):
        connector = Connector()
        tasks.append(asyncio.create_task(connector.run(source(issuer, number, given, ca), stop=stop)))
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0.2)
    await asyncio.gather(*tasks)


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description="Many connectors, each a tunnel of its own.")
    parser.add_argument("--relay", required=True, help="host:port of the relay's tunnel address")
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--issuer-key", type=Path, required=True)
    parser.add_argument("--connectors", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first tunnel (default 0)")
    parser.add_argument("--sessions", type=int, default=4, help="of each connector (default 4)")
    parser.add_argument("--hostnames", type=int, default=10, help="of each tunnel (default 10)")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(crowd(given))


if __name__ == "__main__":
    main()

"""The port between the connector and wherever its configuration comes from.

Responsible for naming what a source delivers. Must not know files, Kubernetes, sessions.

Invariant: a source delivers only what it could read whole; what it could not, it reports as a sentence and keeps
silent about, so that the last good one stays in force.
"""

from __future__ import annotations

from typing import Protocol

from culvert_ingress.document import Document
from culvert_protocol.credentials_file import CredentialsFile


class ConfigSink(Protocol):
    """Who takes configurations: the connector. Called on the event loop; nothing here blocks."""

    def configuration(self, document: Document) -> None:
        """A valid document. One that is not newer than the newest so far is ignored."""

    def credentials(self, credentials: CredentialsFile) -> None:
        """Valid credentials."""

    def problem(self, origin: str, sentence: str | None) -> None:
        """What is wrong with the newest thing read from `origin` (a fixed name per source); None: nothing any more."""


class ConfigSource(Protocol):
    """Where configurations come from."""

    async def run(self, sink: ConfigSink) -> None:
        """Delivers what there is at the start, then every change, until cancelled.

        Raises `SourceError` only at the start, when there is nothing that could be served.
        """


class SourceError(Exception):
    """There is nothing to start with; the text is one or more sentences, each with a fix."""

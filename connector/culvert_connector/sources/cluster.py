"""Configuration inside a cluster: a mounted ConfigMap and Secret to start from, both followed at the API server.

Responsible for decoding the two objects, from files and from the API, and for starting from whichever is there: the
mounts need no API server, the watch sees a change at once while the kubelet takes up to a minute and a half.

Must not know: how watching works, sessions. Nothing here imports a Kubernetes client.

Invariants: the connector starts and goes on without the API server; a document older than the newest seen never comes
back (the sink compares versions, this source compares credentials by their time of issue); an object that vanishes
changes nothing. Contents of the Secret never reach a log line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from culvert_connector.sources.kubernetes_api import APIServer, ObjectWatch
from culvert_connector.sources.port import ConfigSink
from culvert_ingress.document import Document, DocumentError
from culvert_protocol.credentials_file import CredentialsFile, CredentialsFileError

log = logging.getLogger(__name__)

CONFIG_KEY: Final = "config.json.gz"
CREDENTIALS_KEY: Final = "credentials.json"
LOOK_EVERY: Final = 2.0
"""Seconds between two looks at the mounted files."""
CONFIG_ORIGIN: Final = "configuration"
CREDENTIALS_ORIGIN: Final = "credentials"


@dataclass(frozen=True, slots=True)
class Names:
    """Which objects to follow."""

    namespace: str
    config_map: str
    secret: str

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Names | None:
        """From CULVERT_NAMESPACE, CULVERT_CONFIGMAP and CULVERT_SECRET; None when one is missing."""
        values = [environment.get(f"CULVERT_{key}", "") for key in ("NAMESPACE", "CONFIGMAP", "SECRET")]
        return cls(*values) if all(values) else None


class ClusterSource:
    """Mounted files and, when `server` and `names` are given, the API."""

    def __init__(
        self,
        config_dir: Path,
        credentials_dir: Path,
        *,
        server: APIServer | None,
        names: Names | None,
        random: Callable[[], float],
    ) -> None:
        self._config_file = config_dir / CONFIG_KEY
        self._credentials_file = credentials_dir / CREDENTIALS_KEY
        self._server = server
        self._names = names
        self._random = random
        self._seen: dict[str, bytes] = {}
        self._version = 0
        self._issued_at = 0
        self._states: dict[str, str | None] = {}

    async def run(self, sink: ConfigSink) -> None:
        """See `port.ConfigSource.run`; never raises SourceError: in a cluster the objects may come later."""
        self._look(sink)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_again(sink))
            if self._server is None or self._names is None:
                log.info("No API server or object names are given: following the mounted files only.")
                return
            for kind, name, take in (
                ("configmaps", self._names.config_map, self._config_map),
                ("secrets", self._names.secret, self._secret),
            ):
                watch = ObjectWatch(
                    self._server,
                    kind=kind,
                    namespace=self._names.namespace,
                    name=name,
                    on_object=lambda item, take=take: take(sink, item),  # type: ignore[misc]
                    on_state=lambda sentence, kind=kind: self._state(kind, sentence),  # type: ignore[misc]
                    random=self._random,
                )
                tasks.create_task(watch.run())

    # -- files -------------------------------------------------------------------------------------------------

    async def _look_again(self, sink: ConfigSink) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._look(sink)

    def _look(self, sink: ConfigSink) -> None:
        for path, take in ((self._config_file, self._document), (self._credentials_file, self._take_credentials)):
            try:
                data = path.read_bytes()
            except OSError:
                continue  # not mounted, or being swapped: the API, or the next look, has it
            key = f"file:{path}"
            if self._seen.get(key) != data:
                self._seen[key] = data
                take(sink, data)

    # -- the API -----------------------------------------------------------------------------------------------

    def _config_map(self, sink: ConfigSink, item: Mapping[str, Any] | None) -> None:
        data = _binary(item, "binaryData", CONFIG_KEY)
        if data is not None:
            self._document(sink, data)

    def _secret(self, sink: ConfigSink, item: Mapping[str, Any] | None) -> None:
        data = _binary(item, "data", CREDENTIALS_KEY)
        if data is not None:
            self._take_credentials(sink, data)

    def _state(self, kind: str, sentence: str | None) -> None:
        before = self._states.get(kind)
        self._states[kind] = sentence
        if sentence is not None and sentence != before:
            log.warning("%s; serving on with what is known.", sentence)
        elif sentence is None and before is not None:
            log.info("The API server can be followed again (%s).", kind)

    # -- contents ----------------------------------------------------------------------------------------------

    def _document(self, sink: ConfigSink, data: bytes) -> None:
        if self._seen.get(CONFIG_ORIGIN) == data:
            return
        try:
            document = Document.loads(data)
        except DocumentError as error:
            self._seen[CONFIG_ORIGIN] = data
            sink.problem(CONFIG_ORIGIN, f"the ConfigMap's {CONFIG_KEY} is not valid: {error}")
            return
        if document.version <= self._version:
            return  # the kubelet's mount is behind the API
        self._seen[CONFIG_ORIGIN] = data
        self._version = document.version
        sink.problem(CONFIG_ORIGIN, None)
        sink.configuration(document)

    def _take_credentials(self, sink: ConfigSink, data: bytes) -> None:
        if self._seen.get(CREDENTIALS_ORIGIN) == data:
            return
        try:
            credentials = CredentialsFile.loads(data)
        except CredentialsFileError as error:
            self._seen[CREDENTIALS_ORIGIN] = data
            sink.problem(CREDENTIALS_ORIGIN, f"the Secret's {CREDENTIALS_KEY} is not valid: {error}")
            return
        issued_at = credentials.read_credential().issued_at
        if issued_at < self._issued_at:
            return
        self._seen[CREDENTIALS_ORIGIN] = data
        self._issued_at = issued_at
        sink.problem(CREDENTIALS_ORIGIN, None)
        sink.credentials(credentials)


def _binary(item: Mapping[str, Any] | None, field: str, key: str) -> bytes | None:
    """One base64 member of a ConfigMap's or Secret's data; None when it is not there."""
    members = (item or {}).get(field)
    text = members.get(key) if isinstance(members, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""

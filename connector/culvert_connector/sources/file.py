"""Configuration from a person's `config.yml` and credentials file, watched for changes.

Responsible for reading the files that a configuration consists of (config.yml, the credentials file, CA files),
compiling them into a document with a version that grows, and noticing when one of them changes.

Must not know: the grammar (`culvert_ingress.config_file`), sessions.

Invariants: after the start an invalid file is reported and the last good state stays; the grant in the document and
the credentials delivered with it come from one reading. Relative paths are relative to config.yml's folder, so that
the file means the same wherever the command is typed; paths from the command line are relative to the shell's.

Changes are seen by looking once a second (modification time, size, inode): it works on every file system, also across
a rename that replaces the file, and costs a few system calls.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from culvert_connector.sources.port import ConfigSink, SourceError
from culvert_ingress.config_file import ConfigErrors, ConfigFile, load, single
from culvert_ingress.document import Document
from culvert_protocol.credentials_file import MAX_SIZE, CredentialsFile, CredentialsFileError

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
MAX_CONFIG: Final = 4 << 20
"""Bytes of a config.yml or CA file."""
ORIGIN: Final = "config.yml"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says instead of the file; with `url`, the one service, there is no file."""

    name: str | None = None
    url: str | None = None
    relays: tuple[str, ...] = ()
    relay_ca: Path | None = None
    credentials_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent reading of everything."""

    config: ConfigFile
    document: Document
    credentials: CredentialsFile


class FileError(Exception):
    """The files cannot be served; one sentence a line."""


Stamps = dict[Path, tuple[int, int, int]]
"""Modification time (ns), size and inode by path; a file that is not there has size -1."""


class FileSource:
    """Watches one config.yml and what it names. `clock` gives unix seconds, for versions.

    Without a config.yml the overrides say all that it would: `url`, `relays` and `credentials_file`.
    """

    def __init__(self, config: Path | None, *, overrides: Overrides, clock: Callable[[], float]) -> None:
        self._config = config
        self._named = str(config or "--url")
        self._overrides = overrides
        self._clock = clock
        self._paths: tuple[Path, ...] = () if config is None else (config,)
        self._version = 0
        self._last: Reading | None = None
        self._stamps: Stamps = {}

    def read(self) -> Reading:
        """Reads everything now. Raises FileError."""
        paths = [] if self._config is None else [self._config]
        try:
            return self._read(paths)
        finally:
            self._paths = tuple(paths)

    def prime(self) -> Reading:
        """The first reading, made before anything runs, for settings that the program itself needs.

        Raises SourceError.
        """
        before = self._look_at_stamps()
        try:
            self._last = self.read()
        except FileError as error:
            raise SourceError(str(error)) from None
        self._remember(before)
        return self._last

    async def run(self, sink: ConfigSink) -> None:
        """See `port.ConfigSource.run`."""
        last = self._last or self.prime()
        for warning in last.config.warnings:
            log.warning("%s: %s", self._named, warning)
        sink.credentials(last.credentials)
        sink.configuration(last.document)
        while True:
            await asyncio.sleep(LOOK_EVERY)
            stamps = self._look_at_stamps()
            if stamps != self._stamps:
                self._look(sink)
                self._remember(stamps)

    def _look(self, sink: ConfigSink) -> None:
        try:
            reading = self.read()
        except FileError as error:
            sink.problem(ORIGIN, str(error))
            return
        sink.problem(ORIGIN, None)
        last = self._last
        self._last = reading
        if last is None or reading.credentials != last.credentials:
            sink.credentials(reading.credentials)
        if last is None or replace(reading.document, version=last.document.version) != last.document:
            for warning in reading.config.warnings:
                log.warning("%s: %s", self._named, warning)
            sink.configuration(reading.document)

    def _read(self, paths: list[Path]) -> Reading:
        overrides = self._overrides
        try:
            if self._config is not None:
                config = load(_text(self._config, "The configuration file", MAX_CONFIG))
            else:
                config = single(overrides.url or "", relay=overrides.relays)
        except ConfigErrors as error:
            raise FileError("\n".join(f"{self._named}: {problem}" for problem in error.problems)) from None
        if overrides.relays:
            config = replace(config, relay=overrides.relays)
        if overrides.relay_ca is not None:
            config = replace(config, relay_ca=str(overrides.relay_ca.absolute()))
        credentials_path = self._credentials_path(config)
        paths.append(credentials_path)
        ca_paths = {name: self._beside(name) for name in config.ca_paths}
        relay_ca_path = self._beside(config.relay_ca) if config.relay_ca is not None else None
        user_paths = {name: self._beside(name) for name in config.basic_auth_paths}
        paths.extend((*ca_paths.values(), *user_paths.values()))
        if relay_ca_path is not None:
            paths.append(relay_ca_path)
        credentials = self._credentials(credentials_path)
        ca_texts = {name: _text(path, "The caPool file", MAX_CONFIG) for name, path in ca_paths.items()}
        user_texts = {name: _text(path, "The basicAuth file", MAX_CONFIG) for name, path in user_paths.items()}
        for path in user_paths.values():
            _warn_if_exposed(path, "passwords")
        relay_ca = _text(relay_ca_path, "The relay-ca file", MAX_CONFIG) if relay_ca_path is not None else None
        self._version = max(self._version + 1, int(self._clock() * 1000))
        assert credentials.grant is not None
        try:
            document = config.compile(
                version=self._version,
                grant=credentials.grant,
                tunnel=overrides.name or config.tunnel or credentials.tunnel,
                relay_ca=relay_ca,
                ca_texts=ca_texts,
                basic_auth_texts=user_texts,
            )
        except ConfigErrors as error:
            raise FileError("\n".join(f"{self._named}: {problem}" for problem in error.problems)) from None
        return Reading(config, document, credentials)

    def _credentials_path(self, config: ConfigFile) -> Path:
        if self._overrides.credentials_file is not None:
            return self._overrides.credentials_file
        if config.credentials_file is not None:
            return self._beside(config.credentials_file)
        name = self._overrides.name or config.tunnel
        if name is None or "/" in name or name.startswith("."):
            raise FileError(
                f"{self._named}: it names no credentials; add 'credentials-file: FILE', the file that "
                "'culvert tunnel create' wrote."
            )
        return self._beside(f"{name}.json")

    def _credentials(self, path: Path) -> CredentialsFile:
        text = _text(path, "The credentials file", MAX_SIZE)
        try:
            credentials = CredentialsFile.loads(text)
        except CredentialsFileError as error:
            raise FileError(f"{path}: {error}") from None
        if credentials.grant is None:
            raise FileError(
                f"{path}: the credentials file holds no grant, so no relay would serve a hostname; make one with "
                "'culvert tunnel create'."
            )
        _warn_if_exposed(path, "a private key")
        return credentials

    def _beside(self, name: str) -> Path:
        folder = Path() if self._config is None else self._config.parent
        return folder / Path(name).expanduser()

    def _look_at_stamps(self) -> Stamps:
        stamps: Stamps = {}
        for path in self._paths:
            try:
                found = path.stat()
                stamps[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
            except OSError:
                stamps[path] = (0, -1, 0)
        return stamps

    def _remember(self, before: Stamps) -> None:
        # A file that changed while it was read must look changed next time: its stamp from before the reading counts.
        self._stamps = {path: before.get(path, now) for path, now in self._look_at_stamps().items()}


def _warn_if_exposed(path: Path, what: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        log.warning("%s holds %s and can be read by others (mode %04o); run: chmod 600 %s", path, what, mode, path)


def _text(path: Path, what: str, limit: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise FileError(f"{what} {path} does not exist; check its name.") from None
    except OSError as error:
        raise FileError(f"{what} {path} cannot be read ({error.strerror}); check its permissions.") from None
    if len(data) > limit:
        raise FileError(f"{what} {path} is over {limit} bytes; is it the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FileError(f"{what} {path} is not UTF-8 text; is it the right file?") from None

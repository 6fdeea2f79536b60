"""The certificates of the edge, chosen by the name that a client asks for, replaced while connections live.

Responsible for `<name>.crt` + `<name>.key` pairs in one folder: reading, choosing by SNI with wildcard fallback,
noticing changes. Must not know tunnels or what is served behind a name.
Invariants: a pair that does not load never replaces one that did; a change touches new handshakes only; the names of
a certificate come from its subjectAltName (RFC 6125; one `*` stands for one label), not from the file's name.
"""

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from culvert_relay.config import ConfigError

MAX_PAIRS: Final = 10_000
MAX_FILE: Final = 1 << 20


class NamedSSLObject(ssl.SSLObject):
    """A TLS connection that remembers the server name its client asked for ("" when it named none)."""

    asked_name: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """One loaded certificate: `names` are its DNS names (lower case) and IP addresses, as text."""

    stem: str
    names: tuple[str, ...]
    not_after: float
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Problem:
    """A pair that was refused, and why: one sentence."""

    stem: str
    sentence: str


Signature = tuple[tuple[int, int, int], tuple[int, int, int]] | str
"""What tells that a pair changed: inode, size and mtime of both halves; or the sentence why they cannot be read."""


class CertificateStore:
    """The pairs of one folder. `reload()` may run in a thread; what it builds is swapped in at once."""

    def __init__(self, folder: Path, *, server_names: Iterable[str] = ()) -> None:
        self.folder = folder
        self.server_names = tuple(server_names)
        self.pairs: dict[str, Pair] = {}
        self._tried: dict[str, Signature] = {}
        self._by_name: dict[str, Pair] = {}
        self._default: Pair | None = None

    def load(self) -> None:
        """The first reading: raises ConfigError for anything that is not in order."""
        problems = self.reload()
        if problems:
            raise ConfigError(problems[0].sentence)
        if not self.pairs:
            raise ConfigError(
                f"tls.certificateDir {self.folder} holds no certificate: put <name>.crt and <name>.key there."
            )
        for name in self.server_names:
            if self.find(name) is None:
                raise ConfigError(
                    f"No certificate in {self.folder} is for the server name {name}, which connectors verify: "
                    "add a pair whose subjectAltName lists it."
                )

    def reload(self) -> list[Problem]:
        """Reads what changed since the last time; returns the refused pairs, whose older versions stay in force."""
        try:
            found = self._scan()
        except CertificateError as error:
            return [Problem("", str(error))]
        problems = []
        pairs = dict(self.pairs)
        for stem, signature in found.items():
            if self._tried.get(stem) == signature:
                continue
            self._tried[stem] = signature
            try:
                if isinstance(signature, str):
                    raise CertificateError(signature)
                pairs[stem] = load_pair(self.folder, stem)
            except CertificateError as error:
                problems.append(Problem(stem, str(error)))
        for stem in set(self._tried) - set(found):
            if stem not in pairs or not self._needed(pairs, stem):
                pairs.pop(stem, None)
                del self._tried[stem]
            elif self._tried[stem] != "gone":
                self._tried[stem] = "gone"
                sentence = f"{self.folder / stem}.crt is gone, but connectors verify its name: it stays in use."
                problems.append(Problem(stem, sentence))
        if pairs != self.pairs:
            self._swap(pairs)
        return problems

    def find(self, name: str) -> Pair | None:
        """The pair for a server name (lower case): exact, else the wildcard of its parent domain."""
        pair = self._by_name.get(name)
        if pair is None:
            dot = name.find(".")
            if dot > 0:
                pair = self._by_name.get("*" + name[dot:])
        return pair

    def listener_context(self) -> ssl.SSLContext:
        """The context to listen with: it hands every handshake to the pair that `find` gives for its name.

        A client that names nothing, or a name that no certificate has, gets the certificate of the first server
        name: its own verification then says plainly which name is missing.
        """
        context = new_context()
        default = self._default
        if default is not None:
            load_into(context, self.folder, default.stem)
        context.sslobject_class = NamedSSLObject
        context.sni_callback = self._choose
        return context

    def context_for(self, name: str) -> ssl.SSLContext:
        """The context of the pair that `listener_context` would hand a handshake for this name to."""
        pair = self.find(name) or self._default
        return new_context() if pair is None else pair.context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        asked = (name or "").lower().removesuffix(".")
        if isinstance(connection, NamedSSLObject):
            connection.asked_name = asked
        pair = self.find(asked) or self._default
        if pair is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = pair.context
        return None

    def _scan(self) -> dict[str, Signature]:
        try:
            stems = sorted(path.stem for path in self.folder.iterdir() if path.suffix == ".crt")
        except OSError as error:
            raise CertificateError(
                f"tls.certificateDir {self.folder} cannot be read: {error.strerror or error}."
            ) from None
        if len(stems) > MAX_PAIRS:
            raise CertificateError(f"{self.folder} holds over {MAX_PAIRS} certificates: spread them over more relays.")
        return {stem: _signature(self.folder, stem) for stem in stems}

    def _needed(self, pairs: dict[str, Pair], stem: str) -> bool:
        rest = _index(pair for other, pair in pairs.items() if other != stem)
        have = _index([pairs[stem]])
        return any(_lookup(have, name) and not _lookup(rest, name) for name in self.server_names)

    def _swap(self, pairs: dict[str, Pair]) -> None:
        by_name = _index(pairs.values())
        default = None
        for name in self.server_names:
            default = default or _lookup(by_name, name)
        if default is None and pairs:
            default = pairs[min(pairs)]
        self.pairs, self._by_name, self._default = pairs, by_name, default


class CertificateError(ValueError):
    """A pair that cannot be used; the message is a sentence."""


def new_context() -> ssl.SSLContext:
    """TLS 1.2 or later, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Clients resume with one ticket; a second one costs every handshake a signature's worth of work for nothing.
    context.num_tickets = 1
    return context


def load_pair(folder: Path, stem: str) -> Pair:
    """Reads one pair; raises CertificateError when its two halves do not load together."""
    crt = folder / f"{stem}.crt"
    try:
        with crt.open("rb") as file:
            data = file.read(MAX_FILE)
    except OSError as error:
        raise CertificateError(f"The certificate {crt} cannot be read: {error.strerror or error}.") from None
    try:
        leaf = x509.load_pem_x509_certificates(data)[0]
    except (ValueError, IndexError):
        raise CertificateError(f"{crt} holds no PEM certificate: write the chain there, leaf first.") from None
    context = new_context()
    load_into(context, folder, stem)
    return Pair(stem, _names(leaf) or (stem.lower(),), leaf.not_valid_after_utc.timestamp(), context)


def load_into(context: ssl.SSLContext, folder: Path, stem: str) -> None:
    """Loads a pair into a context; raises CertificateError."""
    crt, key = folder / f"{stem}.crt", folder / f"{stem}.key"
    try:
        # An empty passphrase: a key that needs one is an error, not a prompt on the terminal.
        context.load_cert_chain(crt, key, password=lambda: b"")
    except ssl.SSLError as error:
        detail = "they do not belong together" if "MISMATCH" in str(error).upper() else "not a readable PEM pair"
        raise CertificateError(
            f"{crt} and {key} cannot be used: {detail}. Write the certificate chain and its unencrypted key as PEM."
        ) from None
    except OSError as error:
        raise CertificateError(f"{error.filename or key} cannot be read: {error.strerror or error}.") from None


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = [name.lower().removesuffix(".") for name in extension.get_values_for_type(x509.DNSName)]
    addresses = extension.get_values_for_type(x509.IPAddress)
    names += [str(a) for a in addresses if isinstance(a, (ipaddress.IPv4Address, ipaddress.IPv6Address))]
    return tuple(names)


def _index(pairs: Iterable[Pair]) -> dict[str, Pair]:
    """Names → pairs; of two pairs with one name the one that is valid longer."""
    index: dict[str, Pair] = {}
    for pair in pairs:
        for name in pair.names:
            other = index.get(name)
            if other is None or (other.not_after, other.stem) < (pair.not_after, pair.stem):
                index[name] = pair
    return index


def _lookup(index: dict[str, Pair], name: str) -> Pair | None:
    pair = index.get(name)
    if pair is None and "." in name:
        pair = index.get("*" + name[name.find(".") :])
    return pair


def _signature(folder: Path, stem: str) -> Signature:
    try:
        halves = [(folder / f"{stem}.{suffix}").stat() for suffix in ("crt", "key")]
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}. Each <name>.crt needs its <name>.key."
    crt, key = ((status.st_ino, status.st_size, status.st_mtime_ns) for status in halves)
    return crt, key

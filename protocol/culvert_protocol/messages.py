"""The session-level messages that are JSON: HELLO, ROUTES, ROUTES_RESULT, CREDENTIAL, CREDENTIAL_RESULT, REVOKE.

Responsible for turning bytes into values that cannot be wrong, and back. The statements inside (credential,
grant, revocation) stay opaque text here; `statements` verifies them.
Invariant: every parser bounds what it accepts and raises ProtocolError, never another exception.
Unknown JSON keys are ignored, so that later versions may add some.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from culvert_protocol.codes import ProtocolError
from culvert_protocol.credit import INITIAL_WINDOW, MAX_WINDOW

VERSION: Final = 1
PINNING: Final = "pinning"
"""The feature of a connector that keeps an origin connection for one visitor (docs/protocol.md, "Pinned visitors")."""
MAX_STREAMS: Final = 512
"""Concurrent streams of one session: its cap of 32 MiB divided by the floor of a window, 64 KiB."""
MAX_IDS: Final = 64

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each end.

    From the connector: `proof` (its key's signature, base64url). From the relay: `relay` (its id) and `ids`
    (its own and its workers'), so that a connector keeps max(N, len(ids)) sessions.
    """

    versions: tuple[int, ...] = (VERSION,)
    software: str = "culvert"
    window: int = INITIAL_WINDOW
    max_streams: int = MAX_STREAMS
    features: tuple[str, ...] = ()
    proof: str = field(default="", repr=False)
    relay: str = ""
    ids: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """HELLO's payload."""
        value: dict[str, Any] = {
            "versions": list(self.versions),
            "software": self.software,
            "window": self.window,
            "maxStreams": self.max_streams,
            "features": list(self.features),
        }
        if self.proof:
            value["proof"] = self.proof
        if self.relay:
            value["relay"] = self.relay
            value["ids"] = list(self.ids)
        return _dump(value)

    @classmethod
    def decode(cls, payload: bytes) -> "Hello":
        """Raises ProtocolError for anything but a HELLO that shares version 1 with us."""
        value = _load(payload, "HELLO")
        versions = _sequence(value, "versions", int)
        if VERSION not in versions:
            raise ProtocolError(f"HELLO offers versions {list(versions)[:8]}, this end speaks {VERSION}")
        window = _number(value, "window", INITIAL_WINDOW, MAX_WINDOW)
        streams = _number(value, "maxStreams", 1, 1 << 20)
        return cls(
            versions=versions,
            software=_text(value, "software", 128),
            window=window,
            max_streams=streams,
            features=_sequence(value, "features", str),
            proof=_text(value, "proof", 512),
            relay=_text(value, "relay", 253),
            ids=_sequence(value, "ids", str),
        )


@dataclass(frozen=True, slots=True)
class Routes:
    """What a connector asks its session to serve: the signed grant; and its issuer's newest revocations."""

    grant: str
    revocations: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """ROUTES' payload."""
        return _dump({"grant": self.grant, "revocations": list(self.revocations)})

    @classmethod
    def decode(cls, payload: bytes) -> "Routes":
        """Raises ProtocolError when it is not one."""
        value = _load(payload, "ROUTES")
        grant = value.get("grant")
        if not isinstance(grant, str) or not grant:
            raise ProtocolError("ROUTES without a grant")
        return cls(grant, _sequence(value, "revocations", str))


@dataclass(frozen=True, slots=True)
class RouteResult:
    """One hostname's outcome; `reason` is `accepted` or a token such as `not_in_issuer`."""

    hostname: str
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RoutesResult:
    """The relay's answer to ROUTES for the grant of `version`.

    `error` is set when the grant as a whole was refused (a token such as `expired`); then `results` is empty.
    """

    version: int
    results: tuple[RouteResult, ...] = ()
    error: str = ""

    def encode(self) -> bytes:
        """ROUTES_RESULT's payload."""
        value: dict[str, Any] = {
            "version": self.version,
            "results": [{"hostname": r.hostname, "accepted": r.accepted, "reason": r.reason} for r in self.results],
        }
        if self.error:
            value["error"] = self.error
        return _dump(value)

    @classmethod
    def decode(cls, payload: bytes) -> "RoutesResult":
        """Raises ProtocolError when it is not one."""
        value = _load(payload, "ROUTES_RESULT")
        raw = value.get("results", [])
        if not isinstance(raw, list):
            raise ProtocolError("ROUTES_RESULT's results are not a list")
        results = []
        for item in raw:
            if not isinstance(item, dict) or not isinstance(item.get("accepted"), bool):
                raise ProtocolError("a result in ROUTES_RESULT is not an object with accepted")
            results.append(RouteResult(_text(item, "hostname", 260), item["accepted"], _text(item, "reason", 64)))
        return cls(_number(value, "version", 0, 1 << 62), tuple(results), _text(value, "error", 64))


@dataclass(frozen=True, slots=True)
class CredentialResult:
    """The relay's answer to an in-band credential; a refused one leaves the old in force."""

    accepted: bool
    reason: str = ""

    def encode(self) -> bytes:
        """CREDENTIAL_RESULT's payload."""
        return _dump({"accepted": self.accepted, "reason": self.reason})

    @classmethod
    def decode(cls, payload: bytes) -> "CredentialResult":
        """Raises ProtocolError when it is not one."""
        value = _load(payload, "CREDENTIAL_RESULT")
        if not isinstance(value.get("accepted"), bool):
            raise ProtocolError("CREDENTIAL_RESULT without accepted")
        return cls(value["accepted"], _text(value, "reason", 64))


@dataclass(frozen=True, slots=True)
class Credential:
    """A newer credential of the same tunnel, with a proof by its own key over this session's nonce."""

    credential: str = field(repr=False)
    proof: str = field(repr=False)

    def encode(self) -> bytes:
        """CREDENTIAL's payload."""
        return _dump({"credential": self.credential, "proof": self.proof})

    @classmethod
    def decode(cls, payload: bytes) -> "Credential":
        """Raises ProtocolError when it is not one."""
        value = _load(payload, "CREDENTIAL")
        return cls(_text(value, "credential", 16_384), _text(value, "proof", 512))


def encode_revocations(revocations: Sequence[str]) -> bytes:
    """REVOKE's payload."""
    return _dump({"revocations": list(revocations)})


def decode_revocations(payload: bytes) -> tuple[str, ...]:
    """The revocations of a REVOKE; raises ProtocolError when it is not one."""
    return _sequence(_load(payload, "REVOKE"), "revocations", str)


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _load(payload: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{name} is not a JSON object")
    return value


def _text(value: Mapping[str, Any], key: str, limit: int) -> str:
    text = value.get(key, "")
    if not isinstance(text, str) or len(text) > limit:
        raise ProtocolError(f"{key} is not a string of at most {limit} characters")
    return text


def _number(value: Mapping[str, Any], key: str, low: int, high: int) -> int:
    number = value.get(key, low)
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ProtocolError(f"{key} is not a whole number from {low} to {high}")
    return number


def _sequence(value: Mapping[str, Any], key: str, kind: type[_T]) -> tuple[_T, ...]:
    items = value.get(key, [])
    if not isinstance(items, list) or len(items) > MAX_IDS or not all(type(i) is kind for i in items):
        raise ProtocolError(f"{key} is not a list of at most {MAX_IDS} of {kind.__name__}")
    return tuple(items)

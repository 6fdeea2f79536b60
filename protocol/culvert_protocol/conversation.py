"""What the two ends of a session say about the session itself: grants, credentials, revocations, heartbeats.

Responsible for sending these messages and for passing those that arrived on to the listener, long ones in parts. Must
not know streams, phases or which end may say what (the tables of `states` do).
Invariant: a message in parts is bounded.
"""

from culvert_protocol import messages
from culvert_protocol.codes import ProtocolError
from culvert_protocol.frames import MAX_MESSAGE, PING_HEAD, FrameType, split_message
from culvert_protocol.listeners import SessionListener
from culvert_protocol.outbox import Outbox


class Conversation:
    """The part of a session that is no stream's."""

    def __init__(self, listener: SessionListener, outbox: Outbox) -> None:
        self.listener = listener
        self.outbox = outbox
        self.closed = False
        self._partial: dict[int, list[bytes]] = {}

    # -- to the peer -----------------------------------------------------------------------------------------

    def routes(self, routes: messages.Routes) -> None:
        """Presents a grant (connector)."""
        self._message(FrameType.ROUTES, routes.encode())

    def routes_result(self, result: messages.RoutesResult) -> None:
        """Answers a grant (relay)."""
        self._message(FrameType.ROUTES_RESULT, result.encode())

    def credential(self, credential: messages.Credential) -> None:
        """Presents a newer credential (connector)."""
        self._message(FrameType.CREDENTIAL, credential.encode())

    def credential_result(self, result: messages.CredentialResult) -> None:
        """Answers a credential (relay)."""
        self._message(FrameType.CREDENTIAL_RESULT, result.encode())

    def revoke(self, revocations: tuple[str, ...]) -> None:
        """Passes signed revocations on (connector)."""
        self._message(FrameType.REVOKE, messages.encode_revocations(revocations))

    def ping(self, token: bytes) -> None:
        """Sends PING with 8 bytes that come back in `on_pong`."""
        self.control_frame(PING_HEAD + token)

    def control_frame(self, frame: bytes) -> None:
        """Queues a frame ahead of data, unless the session is over."""
        if not self.closed:
            self.outbox.control(frame)

    def _message(self, type_: FrameType, payload: bytes) -> None:
        for frame in split_message(type_, payload):
            self.control_frame(frame)

    # -- from the peer ---------------------------------------------------------------------------------------

    def assemble(self, type_: int, payload: bytes, *, more: bool) -> bytes | None:
        """One more part of a message; the whole once `more` is False, None before."""
        parts = self._partial.setdefault(type_, [])
        parts.append(payload)
        if sum(map(len, parts)) > MAX_MESSAGE or len(parts) > 64:
            raise ProtocolError(f"a message of type {type_} is over {MAX_MESSAGE} bytes")
        if more:
            return None
        del self._partial[type_]
        return b"".join(parts)

    def on_routes(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """ROUTES arrived (relay)."""
        self.listener.on_routes(messages.Routes.decode(payload))

    def on_routes_result(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """ROUTES_RESULT arrived (connector)."""
        self.listener.on_routes_result(messages.RoutesResult.decode(payload))

    def on_credential(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """CREDENTIAL arrived (relay)."""
        self.listener.on_credential(messages.Credential.decode(payload))

    def on_credential_result(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """CREDENTIAL_RESULT arrived (connector)."""
        self.listener.on_credential_result(messages.CredentialResult.decode(payload))

    def on_revoke(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """REVOKE arrived (relay)."""
        self.listener.on_revoke(messages.decode_revocations(payload))

    def on_pong(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        """PONG arrived."""
        self.listener.on_pong(payload)

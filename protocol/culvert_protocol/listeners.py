"""What the owners of sessions and streams hear: the two ports of the protocol.

Responsible for the callbacks' names and meaning alone; knows no implementation of either side.
"""

from typing import TYPE_CHECKING, Protocol

from culvert_protocol import messages
from culvert_protocol.heads import Open, ResponseHead

if TYPE_CHECKING:
    from culvert_protocol.stream import Stream


class SessionListener(Protocol):
    """What the owner of a session hears. A relay never hears the `_result` callbacks, a connector only those."""

    def on_hello(self, hello: messages.Hello) -> None:
        """The peer's HELLO, the first frame."""

    def on_open(self, stream: "Stream", head: Open, body: bytes, fin: bool) -> None:
        """A new stream; the owner sets `stream.listener` here, or resets it. `body` counts as received data."""

    def on_routes(self, routes: messages.Routes) -> None:
        """A grant to serve (relay)."""

    def on_routes_result(self, result: messages.RoutesResult) -> None:
        """The answer to ROUTES (connector)."""

    def on_credential(self, credential: messages.Credential) -> None:
        """A newer credential (relay)."""

    def on_credential_result(self, result: messages.CredentialResult) -> None:
        """The answer to CREDENTIAL (connector)."""

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        """Signed revocations (relay)."""

    def on_drain(self, reason: str) -> None:
        """The peer wants no new streams; DRAIN_ACK has been queued already."""

    def on_drain_ack(self) -> None:
        """The peer opens nothing more: everything it sent before has arrived."""

    def on_pong(self, token: bytes) -> None:
        """The answer to a ping."""

    def on_closed(self, reason: str) -> None:
        """The session is over; every stream has heard on_reset."""


class StreamListener(Protocol):
    """What the owner of a stream hears. Every stream ends with exactly one of: both ends' FIN, or on_reset."""

    def on_head(self, head: ResponseHead) -> None:
        """A response head record: any number of 1xx, then one final."""

    def on_data(self, data: bytes) -> None:
        """Body bytes; call `stream.consumed(len(data))` once they left towards the slow side."""

    def on_end(self) -> None:
        """The peer's FIN: no more data comes."""

    def on_reset(self, code: int, reason: str) -> None:
        """The stream is gone: the peer's RESET, or SESSION_LOST."""

    def on_writable(self) -> None:
        """What a write had held has left; the source may go on."""

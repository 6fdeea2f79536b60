"""What an exchange sees of the visitor's connection: the port between the two.

Responsible for the names of what an exchange may ask for. Must not know how a connection does it.
"""

from typing import TYPE_CHECKING, Protocol

from culvert_relay.visitors.answers import Answer
from culvert_relay.visitors.opening import Forwarding
from culvert_relay.visitors.pinning import Pin

if TYPE_CHECKING:
    from culvert_relay.edge import Edge


class Visitor(Protocol):
    """The visitor's connection, as an exchange sees it."""

    edge: "Edge"
    congested: bool
    forwarding: Forwarding
    scheme: int
    local_port: int
    request_id: bytes
    pin: Pin | None

    @property
    def may_persist(self) -> bool:
        """Whether the connection could serve another request: the request's body has been read whole."""

    def write(self, data: bytes) -> None:
        """Sends bytes towards the visitor."""

    def resume_request(self) -> None:
        """The stream takes request bytes again."""

    def switched(self) -> None:
        """The connection is a pipe now: give the bytes that came early to the exchange."""

    def pipe_ended(self) -> None:
        """The origin's direction of the pipe is over."""

    def answered(self, keep_alive: bool) -> None:
        """The response is complete and written."""

    def answer(self, answer: Answer, *, close: bool = False) -> None:
        """No response came: the relay answers itself; `close` ends the connection with it."""

    def failed(self, answering: bool) -> None:
        """The relay itself failed, told in an `except` block: the visitor hears it, or is cut off when `answering`."""

    def cut(self) -> None:
        """The response cannot be completed: the visitor must see that."""

"""A session's link that lets responses gather.

Responsible for one thing on top of `SessionLink`: after a batch of frames has been read, what the responses in it have
gathered is written, so that a response's head and body leave as one write without a timer or a callback per response.
"""

import asyncio
from typing import TYPE_CHECKING

from culvert_protocol.listeners import SessionListener
from culvert_transport.link import SessionLink

if TYPE_CHECKING:
    from culvert_relay.edge import Edge


class TunnelLink(SessionLink):
    """The relay's end of a session on its transport."""

    def __init__(
        self, *, relay: bool, listener: SessionListener, loop: asyncio.AbstractEventLoop, edge: "Edge"
    ) -> None:
        super().__init__(relay=relay, listener=listener, loop=loop)
        self._edge = edge

    def data_received(self, data: bytes) -> None:
        """Frames of the connector."""
        super().data_received(data)
        self._edge.flush()

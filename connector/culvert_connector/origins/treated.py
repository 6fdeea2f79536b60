"""An exchange of a rule that changes responses: their fields are edited on the way to the visitor.

Responsible for that alone; everything else is the plain exchange's. Its requests were changed before it began.

Invariant: what comes out is within the limits that a relay checks, or the response is refused as the origin's fault.
"""

from __future__ import annotations

from culvert_connector.origins.exchange import Exchange
from culvert_connector.origins.treatment import FieldEditor
from culvert_http1.fields import check_fields
from culvert_http1.response import ResponseHead


class TreatedExchange(Exchange):
    """An Exchange with an editor of response fields. Interim responses (1xx, but for 101) pass as they are."""

    __slots__ = ("editor",)

    editor: FieldEditor

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """The final head, edited, and the body bytes behind it."""
        edited = self._edited(head)
        if edited is not None:
            super().on_response(edited, body, ended)

    def on_switch(self, head: ResponseHead, leftover: bytes) -> None:
        """101: the fields of the handshake are none that a rule may name."""
        edited = self._edited(head)
        if edited is not None:
            super().on_switch(edited, leftover)

    def _edited(self, head: ResponseHead) -> ResponseHead | None:
        fields = self.editor.apply(head.fields)
        if check_fields(fields):
            return head.edited(fields)
        self._refuse_response("response_head_too_large")
        return None

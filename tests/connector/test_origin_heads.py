"""Heads between connector and origin: what a relay may have written there, and heads that come in small pieces."""

from typing import Any

import pytest

from culvert_connector.origins import connection as connection_module
from culvert_connector.origins import request
from culvert_connector.origins.connection import OriginConnection
from culvert_http1.framing import Framing
from culvert_http1.response import ResponseHead, parse_response_head
from culvert_protocol.heads import Open


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        (b"/a?b=%C3%A9", True),
        (b"*", True),
        (b"/a{|}^`\\", True),
        ("/é".encode(), False),
        (b"/\xff", False),
        (b"/a#b", False),
        (b"/a b", False),
        (b"/a\n", False),
        (b"*/", False),
        (b"", False),
        (b"http://app.example.com/", False),
    ],
)
def test_b06_a_target_holds_visible_ascii_alone(target: bytes, passes: bool) -> None:
    head = Open(method=b"GET", target=target, authority=b"app.example.com", host=b"app.example.com")
    assert request.problem(head) == (None if passes else "bad_target")


class User:
    """Keeps the head it is given."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""

    def on_informational(self, head: ResponseHead) -> None:
        self.body += b"%d;" % head.status

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        self.head = head
        self.body += body

    def on_body(self, data: bytes, ended: bool) -> None:
        self.body += data


class Transport:
    """Takes what is written, and nothing else."""

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class Owner:
    def on_open(self, connection: OriginConnection) -> None:
        pass

    def on_idle(self, connection: OriginConnection) -> None:
        pass


@pytest.mark.skipif(
    not str(connection_module.__file__).endswith(".py"), reason="calls inside a compiled module cannot be watched"
)
def test_b11_a_head_in_single_bytes_is_read_once_without_a_copy_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    held: set[int] = set()

    def watched(data: Any, **options: Any) -> ResponseHead | None:
        if options["scanned"]:
            held.add(id(data))
        return parse_response_head(data, **options)

    monkeypatch.setattr(connection_module, "parse_response_head", watched)
    connection = OriginConnection(key=None, owner=Owner(), tls=False)  # type: ignore[arg-type]
    connection.connection_made(Transport())  # type: ignore[arg-type]
    user = User()
    connection.start(user, method=b"GET", request=b"")  # type: ignore[arg-type]
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"v" * 100) for number in range(80))
    for byte in b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 4\r\n\r\nbody":
        connection.data_received(bytes((byte,)))
    assert user.head is not None
    assert user.head.fields == fields
    assert user.body == b"103;body"
    assert len(held) == 1, "the bytes that wait for the rest of their head are copied"


def test_b11_a_head_that_is_known_is_not_read_again_and_means_what_it_meant() -> None:
    connection = OriginConnection(key=None, owner=Owner(), tls=False)  # type: ignore[arg-type]
    connection.connection_made(Transport())  # type: ignore[arg-type]
    one = b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Length: 4\r\n\r\n"
    later = one.replace(b"Date: 1", b"Date: 2")
    seen: list[ResponseHead | None] = []
    for method, head, body, expected in [
        (b"GET", one, b"body", b"body"),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + one, b"next", b"103;next"),
        (b"HEAD", one, b"", b""),
        (b"GET", one, b"more", b"more"),
        (b"GET", later, b"last", b"last"),
        (b"GET", one[:-3], b"", b""),
    ]:
        user = User()
        connection.start(user, method=method, request=b"")  # type: ignore[arg-type]
        connection.data_received(head + body)
        assert user.body == expected
        seen.append(user.head)
        if user.head is not None:
            connection.release()
    first, second, bodiless, third, fourth, nothing = seen
    assert first is second
    assert first is not None
    assert first.fields == b"Date: 1\r\n"
    assert third is not None
    assert third.fields == first.fields
    assert bodiless is not None
    assert (bodiless.framing, bodiless.declared) == (Framing.NONE, Framing.LENGTH)
    assert fourth is not None
    assert fourth.fields == b"Date: 2\r\n"
    assert nothing is None, "an unfinished head"

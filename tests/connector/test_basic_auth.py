"""Authorization of visitors: what is accepted, and that the origin never sees it."""

import base64
import hashlib

import pytest

from culvert_connector.origins.basic_auth import accepts, without

DIGESTS = tuple(hashlib.sha256(pair).hexdigest() for pair in (b"alice:secret", "zoë:pässwörd".encode()))


def line(pair: bytes, *, name: bytes = b"Authorization", scheme: bytes = b"Basic") -> bytes:
    return b"%b: %b %b\r\n" % (name, scheme, base64.b64encode(pair))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (line(b"alice:secret"), True),
        (b"Accept: */*\r\n" + line("zoë:pässwörd".encode(), name=b"AUTHORIZATION", scheme=b"basic"), True),
        (line(b"alice:secret", scheme=b"Basic  "), True),
        (b"", False),
        (line(b"alice:Secret"), False),
        (line(b"alice"), False),
        (line(b"alice:secret:"), False),
        (line(b"alice:secret") * 2, False),
        (line(b"alice:secret", scheme=b"Bearer"), False),
        (line(b"alice:secret", name=b"X-Authorization"), False),
        (line(b"alice:secret", name=b"Proxy-Authorization"), False),
        (b"Authorization: Basic ====\r\n", False),
        (b"Authorization: Basic \r\n", False),
        (b"X: y Authorization: Basic " + base64.b64encode(b"alice:secret") + b"\r\n", False),
    ],
)
def test_one_of_the_pairs_in_one_field(fields: bytes, expected: bool) -> None:
    assert accepts(fields, DIGESTS) is expected


def test_the_origin_does_not_see_it() -> None:
    kept = b"Accept: */*\r\nX-Authorization: yes\r\n"
    assert without(b"Accept: */*\r\n" + line(b"a:b") + b"X-Authorization: yes\r\n" + line(b"c:d")) == kept

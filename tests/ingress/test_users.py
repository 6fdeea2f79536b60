"""The file behind basicAuth."""

import hashlib

import pytest

from culvert_ingress.config_file import ConfigErrors, load
from culvert_ingress.document import Document
from culvert_ingress.users import UsersError, digests_of

CONFIG = "tunnel: t\nrelay: r.test:1\ningress:\n  - {service: 'http://a', basicAuth: ./users}\n"


def test_pairs_become_digests_and_no_password_is_kept() -> None:
    text = "# who may come\nalice:se:cret\n\nbob:x\nbob:x\n"
    assert digests_of(text) == tuple(sorted(hashlib.sha256(pair).hexdigest() for pair in (b"alice:se:cret", b"bob:x")))
    document = load(CONFIG).compile(version=1, grant="", basic_auth_texts={"./users": text})
    assert Document.loads(document.dumps()) == document
    assert b"cret" not in document.dumps()
    assert document.rules[0].basic_auth[0] not in repr(document)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it names nobody"),
        ("# alice:hunter2\n", "it names nobody"),
        ("alice:x\nhunter2\n", "line 2 is not user:password"),
        (":hunter2\n", "line 1 is not"),
        ("hunter2:\n", "line 1 is not"),
        ("hunter2:\t\n", "line 1 is not"),
        ("hunter2:" + "x" * 600, "line 1 is not"),
        ("\n".join(f"hunter2{n}:x" for n in range(1001)), "more than 1000 users"),
    ],
)
def test_a_mistake_is_named_by_its_line_and_nothing_of_the_line(text: str, sentence: str) -> None:
    with pytest.raises(UsersError, match=sentence) as refused:
        digests_of(text)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigErrors, match=r"Rule #1: basicAuth: './users': "):
        load(CONFIG).compile(version=1, grant="", basic_auth_texts={"./users": text})


def test_tcp_services_have_no_basic_authentication() -> None:
    text = "tunnel: t\nrelay: r.test:1\ningress:\n  - {hostname: a.com, service: 'ssh://a', basicAuth: u}\n"
    with pytest.raises(ConfigErrors, match="Rule #1: basicAuth is for HTTP services"):
        load(text + "  - service: http_status:404\n")

"""The life of credential and grant: issued when missing, renewed daily, never secret outside the Secret."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from culvert_operator.credentials import inspect, needs_issue, renewal_at
from culvert_operator.issue import credential_secret
from culvert_operator.keys import ChildKey
from culvert_operator.options import Options
from culvert_operator.world import CredentialState, IssueCredential
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.keys import PrivateKey
from culvert_protocol.statements import key_set, verify_credential

NOW = 1_764_000_000
DAY = 86_400
OPTIONS = Options(namespace="x", image="x")
ISSUER, KEY = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
ISSUE = IssueCredential(
    child=ChildKey("Secret", "main-credential"),
    namespace="culvert-system",
    template={"metadata": {"name": "main-credential"}},
    tunnel="culvert-system/main",
    subject="inst:culvert-system/main",
    issued_at=NOW,
    not_before=NOW,
    expires_at=NOW + 30 * DAY,
)


def secret() -> Any:
    return credential_secret(ISSUE, issuer=ISSUER, key=KEY, jti="j").body


def due(state: CredentialState | None, *, now: float = NOW, issuer: str = ISSUER.public.thumbprint) -> bool:
    return needs_issue(state, wanted_subject=ISSUE.subject, issuer=issuer, options=OPTIONS, now=now)


def test_a_relay_accepts_what_is_issued() -> None:
    stored = CredentialsFile.loads(base64.b64decode(secret()["data"]["credentials.json"]))
    found = verify_credential(stored.credential, key_set([ISSUER.public]), now=NOW)
    assert found.tunnel.subject == ISSUE.subject
    assert found.public_key == KEY.public
    assert stored.grant is None


def test_a_secret_says_what_it_holds_and_nothing_secret() -> None:
    state = inspect(secret())
    assert state == CredentialState(
        key_id=KEY.public.thumbprint,
        subject=ISSUE.subject,
        issuer=ISSUER.public.thumbprint,
        issued_at=NOW,
        expires_at=NOW + 30 * DAY,
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "no key credentials.json"),
        ({"credentials.json": "!"}, "cannot be used"),
        ({"credentials.json": base64.b64encode(b'{"hunter2":1}').decode()}, "cannot be used"),
    ],
)
def test_a_secret_that_holds_no_credential_is_a_problem_without_quotation(data: dict[str, str], said: str) -> None:
    state = inspect({"data": data})
    assert state is not None
    assert said in state.problem
    assert "hunter2" not in state.problem
    assert due(state)


def test_no_secret_no_state() -> None:
    assert inspect(None) is None
    assert due(None)


def test_a_fresh_credential_is_left_alone_for_a_day() -> None:
    state = inspect(secret())
    assert not due(state)
    assert not due(state, now=NOW + DAY - 1)
    assert due(state, now=NOW + DAY)
    assert state is not None
    assert renewal_at(state, OPTIONS) == NOW + DAY


def test_a_credential_of_another_issuer_or_subject_is_replaced() -> None:
    state = inspect(secret())
    assert state is not None
    assert due(state, issuer="another")
    assert due(replace(state, subject="other"))


def test_nothing_secret_shows_in_a_repr() -> None:
    apply = credential_secret(ISSUE, issuer=ISSUER, key=KEY, jti="j")
    text = repr(apply)
    assert apply.body["data"]["credentials.json"] not in text
    assert base64.urlsafe_b64encode(KEY.seed).decode().rstrip("=") not in text

"""The table of `Culvert-Error` against the code: what can be answered is listed, and what is listed can be answered.

The code is read, not run, to find what it can answer: the arguments with which answers, resets and refusals are made.
Run are the tests of each package; every row is expected by one of them, or says here why not.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert_protocol.attribution import ERROR_CODES
from culvert_protocol.codes import SOURCE, VISITOR_STATUS, ResetCode
from culvert_relay.visitors.answers import answer_to_reset

ROOT = Path(__file__).resolve().parents[2]
Code = tuple[str, str]
TABLE = {(row.source, row.reason): row for row in ERROR_CODES}

NOT_HEARD = {ResetCode.NO_ERROR, ResetCode.CANCEL}
"""Resets of streams whose visitor has its answer already, or is gone."""
AFTER_THE_HEAD = {"bad_websocket_frame"}
"""Said only once a response has begun, which can but break off."""
UNTESTED: dict[Code, str] = {
    ("session", "no_response"): "a connector never ends a stream so before its response; other software might",
    ("session", "cancelled"): "the same",
    ("session", "flow_control"): "the same: an overrun ends the whole session",
    ("session", "unexpected_head"): "the session's tables refuse such a frame before",
    ("connector", "internal"): "the same as no_response: connectors say why",
    ("connector", "unavailable"): "the same",
    ("connector", "nobody_listens"): "only a defect of the connector leaves a stream without a listener",
    ("connector", "unexpected_head"): "only a defect of the connector lets a connection parse heads within a pipe",
    ("connector", "connector_error"): "only an unforeseen exception while dialling",
    ("session", "protocol_error"): "a reset with this code and without a reason: connectors give one",
    ("connector", "bad_method"): "only a relay that passes unchecked heads on",
    ("connector", "bad_authority"): "the same",
    ("connector", "bad_fields"): "the same",
    ("origin", "connection_failed"): "errors of the network for which there is no other word, such as EHOSTUNREACH",
}


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def texts(node: ast.expr) -> list[str]:
    """The string constants that an argument can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return []


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def calls(package: str) -> Iterator[tuple[str, ast.Call]]:
    for where, module in modules(package):
        for node in ast.walk(module):
            if isinstance(node, ast.Call):
                yield where, node


def own_answers() -> Iterator[Code]:
    """`Answer(status, source, reason, …)` of the relay."""
    for _, call in calls("relay"):
        if name_of(call) == "Answer" and len(call.args) >= 3:
            status = call.args[0]
            if isinstance(status, ast.Constant) and status.value >= 400:
                yield from ((source, reason) for source in texts(call.args[1]) for reason in texts(call.args[2]))


def parser_refusals() -> Iterator[Code]:
    """`HTTPError(status, reason, …)`: of a request the relay's answer, of a response (502) the origin's fault."""
    for package in ("http1", "relay"):
        for _, call in calls(package):
            if name_of(call) == "HTTPError" or (package == "http1" and name_of(call) == "_refuse"):
                for argument in call.args:
                    for reason in texts(argument):
                        if reason.isascii() and reason.replace("_", "").isalpha() and reason.islower():
                            yield ("origin" if reason == "bad_response" else "relay", reason)
    yield "relay", "head_too_large"  # made by a function of the status


def code_of(node: ast.expr) -> ResetCode | None:
    """`ResetCode.X`, or `_X`, which the hot path calls it."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ResetCode":
        return ResetCode[node.attr]
    return ResetCode.__members__.get(node.id.removeprefix("_")) if isinstance(node, ast.Name) else None


def resets() -> Iterator[Code]:
    """`something(…, ResetCode.X, "reason", …)` of the connector and of the protocol, in whatever it is passed on."""
    for package in ("connector", "protocol"):
        for _, call in calls(package):
            for first, second in zip(call.args, call.args[1:], strict=False):
                code = code_of(first)
                if code is not None and code not in NOT_HEARD:
                    reasons = [reason for reason in texts(second) if reason not in AFTER_THE_HEAD]
                    yield from ((SOURCE.get(code, "session"), reason) for reason in reasons)
    for _, call in calls("connector"):
        if name_of(call) == "OriginError" and isinstance(call.args[0], ast.Name):  # its code has a name of its own
            yield from (("origin", reason) for reason in texts(call.args[1]))
        if name_of(call) == "_abort_upload":
            yield from (("session", reason) for reason in texts(call.args[0]))
        if name_of(call) == "_refuse_response":
            yield from (("origin", reason) for reason in texts(call.args[0]))
    for where, module in modules("connector"):
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and (where, node.name) in PROBLEMS:
                for inner in ast.walk(node):
                    if isinstance(inner, (ast.Return, ast.Assign)) and inner.value is not None:
                        yield from ((PROBLEMS[where, node.name], reason) for reason in texts(inner.value) if reason)


PROBLEMS = {
    ("connector/culvert_connector/origins/request.py", "problem"): "connector",
    ("connector/culvert_connector/origins/upgrade.py", "switch_problem"): "origin",
    ("connector/culvert_connector/origins/bridge.py", "handshake_problem"): "connector",
    ("connector/culvert_connector/origins/exchange.py", "on_switch"): "origin",
    ("connector/culvert_connector/origins/exchange.py", "on_failed"): "origin",
}
"""Functions that return or set a reason which is a reset's later."""


def own_rules() -> Iterator[Code]:
    """`own_answer(…, reason="…")` of the connector, and the paths that cannot be matched."""
    for _, call in calls("connector"):
        if name_of(call) == "own_answer":
            yield from (
                ("connector", reason) for key in call.keywords if key.arg == "reason" for reason in texts(key.value)
            )
    for _, call in calls("http1"):
        if name_of(call) == "PathError":
            yield from (("connector", reason) for reason in texts(call.args[0]))


def defaults() -> Iterator[Code]:
    """What the relay says of a reset whose reason is not a token, for every code and for an unknown one."""
    for code in (*ResetCode, 99):
        answer = answer_to_reset(code, "")
        yield answer.source, answer.reason


EMITTED = {*own_answers(), *parser_refusals(), *resets(), *own_rules(), *defaults()}


def test_whatever_can_be_answered_is_in_the_table() -> None:
    missing = EMITTED - TABLE.keys()
    assert not missing, f"add a row to culvert_protocol/attribution.py for each of {sorted(missing)}"


def test_whatever_is_in_the_table_can_be_answered() -> None:
    assert not TABLE.keys() - EMITTED


def test_the_table_says_each_thing_once_and_in_its_own_form() -> None:
    assert len(TABLE) == len(ERROR_CODES)
    for row in ERROR_CODES:
        assert row.source in {"relay", "session", "connector", "origin"}
        assert row.status == 0 or 400 <= row.status <= 599
        assert row.reason.replace("_", "a").isalpha()
        assert row.when.endswith(".")
        assert row.remedy.endswith(".") or row.remedy == row.remedy.strip()
        assert "|" not in row.when + row.remedy


@pytest.mark.parametrize("code", [code for code in ResetCode if code not in NOT_HEARD])
def test_the_statuses_of_resets_are_those_of_the_table(code: ResetCode) -> None:
    answer = answer_to_reset(code, "")
    row = TABLE[answer.source, answer.reason]
    assert row.status == answer.status == VISITOR_STATUS[code]


def expected_in_tests() -> set[str]:
    """Every word within the texts of the other test modules."""
    found: set[str] = set()
    for where, module in modules("tests"):
        if where != Path(__file__).resolve().relative_to(ROOT).as_posix():
            for node in ast.walk(module):
                if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                    text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                    if len(text) < 200:
                        found.update(text.replace(";", " ").replace(":", " ").split())
    return found


def test_every_row_is_expected_by_a_test_or_says_why_not() -> None:
    expected = expected_in_tests()
    untested = {code for code in TABLE if code[1] not in expected}
    assert untested <= UNTESTED.keys(), f"no test expects {sorted(untested - UNTESTED.keys())}"
    assert UNTESTED.keys() <= TABLE.keys()

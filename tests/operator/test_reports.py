"""Reports of connectors, which are not trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.reports import parse_report

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = ["ready", "draining", "appliedVersion", "configError", "keyId", "sessions", "refusedHostnames", "relayErrors"]
KEYS += ["refusedOrigins", "schemas"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values) | json_values)
def test_no_report_raises(payload: object) -> None:
    parse_report(payload)


@pytest.mark.parametrize("payload", [None, [], "x", {}, {"ready": "yes"}, {"ready": 1}])
def test_what_is_no_report_counts_as_unreachable(payload: object) -> None:
    assert parse_report(payload) is None


def test_texts_are_bounded() -> None:
    found = parse_report({"ready": True, "configError": "x" * 10_000, "relayErrors": [{"message": "y" * 10_000}]})
    assert found is not None
    assert len(found.config_error) == len(found.errors[0].message) == 256


def test_a_report_is_read() -> None:
    found = parse_report(
        {
            "ready": True,
            "draining": False,
            "appliedVersion": 7,
            "keyId": "k",
            "sessions": [
                {"relay": "r", "state": "connected", "probed": True, "grantVersion": 7},
                {"address": "10.0.0.1:443", "state": "connecting"},
            ],
            "refusedHostnames": [{"hostname": "a.com", "relay": "r", "reason": "expired", "version": 7}],
            "refusedOrigins": [{"rule": "shop/web/r0", "reason": "address_not_allowed", "message": "m" * 999}],
            "relayErrors": [{"address": "a:1", "reason": "RelayRefused", "message": "no"}],
        }
    )
    assert found is not None
    assert (found.ready, found.applied_version, found.key_id) == (True, 7, "k")
    assert [s.serving for s in found.sessions] == [True, False]
    assert found.sessions[1].relay == "10.0.0.1:443"
    assert found.refused[0].reason == "expired"
    assert [(one.rule, len(one.message)) for one in found.refused_origins] == [("shop/web/r0", 256)]
    assert found.errors[0].reason == "RelayRefused"

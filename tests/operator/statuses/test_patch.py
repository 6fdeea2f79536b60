"""Status patches: nothing changed, nothing written; Events where a condition turns."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.api.meta import parse_meta
from culvert_operator.statuses.patch import difference, status_patch, transitions

META = parse_meta({"metadata": {"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "7"}})
leaves = st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
objects = st.recursive(
    st.dictionaries(st.text(max_size=2), leaves, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner | leaves, max_size=3),
)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(objects, objects)
def test_a_patch_leads_from_one_object_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merged(copy.deepcopy(before), difference(before, after)) == after


@given(objects)
def test_equal_objects_need_no_patch(value: dict[str, Any]) -> None:
    assert difference(value, copy.deepcopy(value)) == {}
    assert status_patch("Tunnel", META, value, copy.deepcopy(value)) is None


def test_a_patch_is_fenced() -> None:
    patch = status_patch("Tunnel", META, {}, {"a": 1})
    assert patch is not None
    assert patch.patch == {"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"a": 1}}


def conditions(*rows: tuple[str, str, str]) -> dict[str, Any]:
    return {"conditions": [{"type": t, "status": s, "reason": r, "message": "m"} for t, s, r in rows]}


def test_events_tell_what_turned() -> None:
    good = conditions(("Accepted", "True", "Accepted"), ("Ready", "True", "Ready"))
    bad = conditions(("Accepted", "False", "HostnameConflict"), ("Ready", "False", "HostnameConflict"))
    (event,) = transitions("TunnelBinding", META, good, bad)
    assert (event.type, event.reason) == ("Warning", "HostnameConflict")
    (event,) = transitions("TunnelBinding", META, bad, good)
    assert (event.type, event.reason) == ("Normal", "Ready")
    assert transitions("TunnelBinding", META, bad, bad) == ()
    pending = conditions(("Programmed", "False", "Pending"), ("Ready", "False", "Pending"))
    assert transitions("TunnelBinding", META, good, pending) == ()

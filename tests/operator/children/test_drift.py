"""Drift: what the API server adds is none, what a person changed is."""

from __future__ import annotations

import contextlib
import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.children.drift import quantity, says

DESIRED: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}, "ownerReferences": [{"uid": "1", "controller": True}]},
    "spec": {
        "replicas": 2,
        "containers": [
            {
                "name": "connector",
                "args": ["a", "b"],
                "env": [{"name": "A", "value": "1"}],
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
                "securityContext": {"readOnlyRootFilesystem": True},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "tolerations": [{"key": "x"}],
    },
}


def changed(change: Any) -> dict[str, Any]:
    actual = copy.deepcopy(DESIRED)
    change(actual)
    return actual


def test_an_object_says_what_it_says() -> None:
    assert says(DESIRED, copy.deepcopy(DESIRED))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["metadata"]["labels"].update(extra="x"),
        lambda a: a["metadata"]["ownerReferences"].append({"uid": "2"}),
        lambda a: a.update(status={"x": 1}),
        lambda a: a["spec"].update(progressDeadlineSeconds=600),
        lambda a: a["spec"]["containers"].insert(0, {"name": "sidecar"}),
        lambda a: a["spec"]["containers"][0]["env"].append({"name": "INJECTED", "value": "x"}),
        lambda a: a["spec"]["containers"][0].update(terminationMessagePath="/dev/termination-log"),
        lambda a: a["spec"]["containers"][0]["resources"]["requests"].update(cpu="0.1", memory="1024Mi"),
        lambda a: a["spec"]["volumes"].insert(0, {"name": "token", "projected": {}}),
        lambda a: a["spec"]["tolerations"][0].update(operator="Equal"),
    ],
)
def test_what_others_add_is_no_difference(change: Any) -> None:
    assert says(DESIRED, changed(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["metadata"]["labels"].update(a="c"),
        lambda a: a["metadata"].pop("ownerReferences"),
        lambda a: a["spec"].update(replicas=3),
        lambda a: a["spec"].pop("replicas"),
        lambda a: a["spec"]["containers"][0].update(name="other"),
        lambda a: a["spec"]["containers"][0]["args"].append("c"),
        lambda a: a["spec"]["containers"][0]["args"].reverse(),
        lambda a: a["spec"]["containers"][0]["env"].clear(),
        lambda a: a["spec"]["containers"][0]["resources"]["requests"].update(cpu="200m"),
        lambda a: a["spec"]["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        lambda a: a["spec"]["containers"][0]["securityContext"].update(readOnlyRootFilesystem=1),
        lambda a: a["spec"]["tolerations"].append({"key": "y"}),
        lambda a: a["spec"].update(tolerations=None),
    ],
)
def test_what_was_edited_is_one(change: Any) -> None:
    assert not says(DESIRED, changed(change))


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), ("1Ki", "1024"), ("1k", "1000"), (2, "2"), ("0.1", "0.1"), ("1u", "0.000001")]
)
def test_quantities_are_numbers(text: object, number: str) -> None:
    assert quantity(text) == Decimal(number)


@given(st.text(max_size=8))
def test_what_is_no_quantity_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(quantity(text), Decimal)

"""Raw objects → values: whatever the API server answers, nothing raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator import relations
from culvert_operator.api.binding import parse_binding
from culvert_operator.api.claim import claim_name, milliseconds, parse_claim, timestamp
from culvert_operator.api.cluster import parse_namespace, parse_service
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.keys import NOWHERE, ObjectKey
from culvert_operator.options import Options

KEYS = [
    *("metadata", "spec", "status", "name", "namespace", "relay", "addresses", "connector", "grants", "dns", "rules"),
    *("service", "port", "path", "originRequest", "publishedRecords", "tunnels", "conditions", "owner", "paths"),
    *("zonefile", "configMapRef", "target", "selector", "ports", "labels", "annotations", "finalizers", "waiting"),
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=30,
)
OPTIONS = Options(namespace="culvert-system", image="x")


@given(st.dictionaries(st.sampled_from(KEYS), anything))
def test_no_object_raises(raw: dict[str, Any]) -> None:
    tunnel, binding, claim = parse_tunnel(raw), parse_binding(raw), parse_claim(raw)
    parse_namespace(raw)
    parse_service(raw)
    relations.tunnels_of_binding(binding, OPTIONS)
    relations.tunnels_of_claim(claim)
    relations.config_maps(tunnel, [binding])
    relations.services([binding])


def test_a_binding_concerns_its_tunnel_and_every_former_one() -> None:
    binding = parse_binding(
        {
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"tunnelRef": {"name": "new"}},
            "status": {
                "tunnels": ["a/old", "no-key"],
                "publishedRecords": [{"tunnel": "b/older", "name": "x", "type": "A"}],
            },
        }
    )
    assert relations.tunnels_of_binding(binding, OPTIONS) == {
        ObjectKey("shop", "new"),
        ObjectKey("a", "old"),
        ObjectKey("b", "older"),
    }


def test_a_binding_without_tunnel_concerns_the_default_one() -> None:
    binding = parse_binding({"metadata": {"namespace": "shop", "name": "web"}, "spec": {}})
    assert relations.tunnel_of(binding, OPTIONS) == NOWHERE
    named = Options(namespace="x", image="x", default_tunnel=ObjectKey("a", "b"))
    assert relations.tunnel_of(binding, named) == ObjectKey("a", "b")


@pytest.mark.parametrize("text", ["", "a", "/a", "a/", "a/b/c"])
def test_what_is_no_key_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="namespace/name"):
        ObjectKey.parse(text)


def test_children_have_different_names_per_kind_and_fit() -> None:
    names = relations.children("a" * 50)
    assert len(set(names)) == len(relations.CHILD_KINDS)
    assert all(len(key.name) <= 63 for key in names)


@given(st.integers(0, 2**32 * 1000))
def test_times_keep_their_milliseconds(moment: int) -> None:
    assert milliseconds(timestamp(moment / 1000)) == moment


def test_times_sort_as_text() -> None:
    assert timestamp(999_999_999.9) < timestamp(1_000_000_000.0) < timestamp(1_000_000_000.001)
    assert milliseconds("yesterday") == 0


@given(st.text(min_size=1))
def test_claims_have_names_that_kubernetes_takes(hostname: str) -> None:
    assert claim_name(hostname).isascii()
    assert len(claim_name(hostname)) == 50


@pytest.mark.parametrize(
    ("namespaces", "namespace", "served"),
    [((), "culvert-system", True), ((), "other", False), (("other",), "culvert-system", False), (("*",), "any", True)],
)
def test_where_tunnels_may_stand(namespaces: tuple[str, ...], namespace: str, served: bool) -> None:
    options = Options(namespace="culvert-system", image="x", tunnel_namespaces=namespaces)
    assert options.may_hold_tunnels(namespace) is served

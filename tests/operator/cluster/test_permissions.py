"""The table of permissions: what it grants, and what it must not."""

from __future__ import annotations

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.permissions import RULES, allows, rules
from culvert_operator.cluster.world import World
from culvert_operator.options import Options


def test_every_kind_that_is_watched_may_be_listed_and_watched() -> None:
    world = World(Options(namespace="ns", image="x"), lambda key: None)
    for store in world.stores():
        for verb in ("list", "watch"):
            assert allows(verb, store.kind.group, store.kind.plural, scopes=["cluster", "watched", "tunnels"]), (
                store.kind
            )


@pytest.mark.parametrize("kind", kinds.CHILDREN, ids=lambda kind: kind.name)
def test_children_may_be_applied_in_tunnel_namespaces_only_and_never_deleted(kind: kinds.Kind) -> None:
    for verb in ("get", "create", "patch"):
        assert allows(verb, kind.group, kind.plural, scopes=["tunnels"])
    if kind is not kinds.CONFIG_MAP:
        assert not allows("get", kind.group, kind.plural, scopes=["cluster", "watched"])
    assert not allows("create", kind.group, kind.plural, scopes=["cluster", "watched"])
    deletable = kind is kinds.AUTOSCALER  # two would quarrel over the number of Pods; all else goes with its owner
    assert allows("delete", kind.group, kind.plural, scopes=["cluster", "watched", "tunnels", "own"]) is deletable


def test_nothing_is_granted_by_a_star_and_every_rule_has_a_reason() -> None:
    for rule in RULES:
        assert "*" not in (rule.group, *rule.resources, *rule.verbs)
        assert rule.why
        assert not {"escalate", "bind", "impersonate"} & set(rule.verbs)


def test_rules_are_those_of_their_scopes_with_the_names_they_are_restricted_to() -> None:
    own = rules(["own"])
    assert {name for rule in own for name in rule.get("resourceNames", [])} == {
        "culvert-issuer",
        "culvert-relay-ca",
        "culvert-relay-tls",
        "culvert-revocations",
        "culvert-operator",
    }
    assert len(rules(["cluster", "watched", "tunnels", "own"])) == len(RULES)

"""Phases of a Tunnel, what a binding still holds of it, and finalizers."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_ingress.document import Document, RelayTarget
from culvert_ingress.rules import Rule, StatusService
from culvert_operator.api.claim import Claim, ClaimPath, Waiter
from culvert_operator.api.meta import parse_meta
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.keys import ObjectKey
from culvert_operator.lifecycle import Phase, add_finalizer, holders, phase_of, remove_finalizer
from culvert_operator.options import Options

MAIN, OTHER = ObjectKey("culvert-system", "main"), ObjectKey("culvert-system", "other")
OPTIONS = Options(namespace="culvert-system", image="x")
OURS = "culvert.dev/cleanup"


def claim(**changes: Any) -> Claim:
    fields: dict[str, Any] = {"hostname": "a.com", "namespace": "shop", "tunnel": MAIN, "claimed_at": "", "paths": ()}
    return Claim(**{**fields, **changes})


def document(rule_id: str) -> Document:
    return Document(1, "t", RelayTarget(("r:1",)), (Rule(rule_id, "a.com", None, StatusService(404)),))


@pytest.mark.parametrize(
    ("metadata", "phase"),
    [
        ({"namespace": "culvert-system"}, Phase.SERVED),
        ({"namespace": "tenant"}, Phase.REFUSED),
        ({"namespace": "culvert-system", "deletionTimestamp": "x"}, Phase.LEAVING),
        ({"namespace": "tenant", "deletionTimestamp": "x"}, Phase.LEAVING),
    ],
)
def test_phases(metadata: dict[str, Any], phase: Phase) -> None:
    assert phase_of(parse_tunnel({"metadata": metadata}), OPTIONS) is phase
    assert phase_of(None, OPTIONS) is Phase.ABSENT


@pytest.mark.parametrize(
    ("left", "held"),
    [
        ({}, False),
        ({"claims": [claim(paths=(ClaimPath("Exact", "/", "web"),))]}, True),
        ({"claims": [claim(paths=(ClaimPath("Exact", "/", "other"),))]}, False),
        ({"claims": [claim(paths=(ClaimPath("Exact", "/", "web"),), namespace="else")]}, False),
        ({"claims": [claim(paths=(ClaimPath("Exact", "/", "web"),), tunnel=OTHER)]}, False),
        ({"claims": [claim(tunnel=OTHER, waiting=(Waiter("shop", "web", MAIN, ""),))]}, True),
        ({"claims": [claim(waiting=(Waiter("shop", "web", OTHER, ""),))]}, False),
        ({"route": document("shop/web/r0")}, True),
        ({"route": document("shop/web/r0~abc")}, True),
        ({"route": document("shop/web2/r0")}, False),
    ],
)
def test_what_a_binding_still_holds(left: dict[str, Any], held: bool) -> None:
    nothing: dict[str, Any] = {"claims": [], "route": None}
    assert (ObjectKey("shop", "web") in holders(MAIN, **{**nothing, **left})) is held


@pytest.mark.parametrize(
    ("metadata", "added", "removed"),
    [
        ({}, True, False),
        ({"finalizers": ["other"]}, True, False),
        ({"finalizers": [OURS]}, False, False),
        ({"deletionTimestamp": "x"}, False, False),
        ({"deletionTimestamp": "x", "finalizers": ["other"]}, False, False),
        ({"deletionTimestamp": "x", "finalizers": ["other", OURS]}, False, True),
    ],
)
def test_finalizers(metadata: dict[str, Any], added: bool, removed: bool) -> None:
    meta = parse_meta({"metadata": {"uid": "u", **metadata}})
    assert (add_finalizer("Tunnel", meta) is not None) is added
    operation = remove_finalizer("Tunnel", meta)
    assert (operation is not None) is removed
    if operation is not None:
        assert (operation.uid, operation.finalizers) == ("u", ("other", OURS))

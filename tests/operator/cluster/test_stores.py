"""A store holds what the server told last, and what this process wrote since."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.cluster import kinds
from culvert_operator.cluster.stores import Store
from culvert_operator.keys import ObjectKey

KEY = ObjectKey("ns", "a")


def obj(version: int, name: str = "a", namespace: str = "ns", uid: str = "u1") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}}


def store() -> Store[int]:
    return Store(kinds.SERVICE, lambda raw: int(raw["metadata"]["resourceVersion"]))


def test_a_list_replaces_everything() -> None:
    held = store()
    held.replace([obj(1), obj(2, "b")], began=held.begin_list())
    held.replace([obj(2, "b"), obj(3, "c")], began=held.begin_list())
    assert {key.name for key in held.keys} == {"b", "c"}


def test_a_list_of_one_scope_leaves_the_others_and_only_all_scopes_make_it_complete() -> None:
    held: Store[int] = Store(kinds.POD, lambda raw: 0, scopes=("one", "two"))
    held.replace([obj(1, namespace="one")], began=0, scope="one")
    assert not held.synced.is_set()
    held.replace([obj(2, namespace="two")], began=0, scope="two")
    held.replace([], began=0, scope="one")
    assert held.keys == (ObjectKey("two", "a"),)
    assert held.synced.is_set()


def test_an_own_write_is_seen_at_once_and_a_delayed_event_does_not_undo_it() -> None:
    held = store()
    held.wrote(obj(5))
    held.event("MODIFIED", obj(4))
    assert held.get(KEY) == 5
    held.event("MODIFIED", obj(6))
    assert held.get(KEY) == 6


def test_d04_an_own_write_during_a_list_survives_the_older_list() -> None:
    held = store()
    began = held.begin_list()
    held.wrote(obj(5))
    held.wrote(obj(6, "new", uid="u2"))
    held.replace([obj(4)], began=began)
    assert held.get(KEY) == 5
    assert held.get(ObjectKey("ns", "new")) == 6


def test_an_own_write_before_a_list_does_not_outlive_it() -> None:
    held = store()
    held.wrote(obj(5))
    held.replace([], began=held.begin_list())
    assert held.get(KEY) is None


def test_a_cluster_that_was_restored_to_older_versions_is_believed() -> None:
    held = store()
    held.replace([obj(500)], began=held.begin_list())
    held.replace([obj(7)], began=held.begin_list())
    assert held.get(KEY) == 7
    held.event("MODIFIED", obj(8))
    assert held.get(KEY) == 8


def test_an_own_deletion_is_not_undone_by_an_older_event_or_list() -> None:
    held = store()
    held.replace([obj(5)], began=held.begin_list())
    began = held.begin_list()
    held.deleted(KEY, "u1")
    held.event("MODIFIED", obj(6))
    assert held.get(KEY) is None
    held.replace([obj(6)], began=began)
    assert held.get(KEY) is None
    held.event("ADDED", obj(9, uid="u2"))
    assert held.get(KEY) == 9


def test_the_late_answer_to_a_write_does_not_bring_back_what_is_gone() -> None:
    held = store()
    held.replace([obj(5)], began=held.begin_list())
    held.event("DELETED", obj(7))
    held.wrote(obj(6))
    assert held.get(KEY) is None


def test_a_deletion_of_the_former_object_does_not_take_the_new_one() -> None:
    held = store()
    held.wrote(obj(9, uid="u2"))
    held.event("DELETED", obj(8, uid="u1"))
    assert held.get(KEY) == 9


def test_a_deletion_of_a_later_object_takes_what_was_missed_too() -> None:
    held = store()
    held.replace([obj(5)], began=held.begin_list())
    held.event("DELETED", obj(9, uid="u2"))
    assert held.get(KEY) is None


def test_listeners_hear_each_change_once() -> None:
    held = store()
    told: list[tuple[int | None, int | None]] = []
    held.listen(lambda before, after: told.append((before and before.value, after and after.value)))
    held.replace([obj(1)], began=0)
    held.replace([obj(1)], began=0)
    held.event("ADDED", obj(1))
    held.wrote(obj(2))
    held.event("MODIFIED", obj(2))
    held.event("DELETED", obj(3))
    held.event("DELETED", obj(3))
    assert told == [(None, 1), (1, 2), (2, None)]


steps = st.lists(st.sampled_from(["write", "remove", "recreate", "event", "list", "drop"]), max_size=40)


@given(steps, st.randoms())
def test_after_a_list_and_all_its_events_the_store_is_the_server(steps: list[str], random: Any) -> None:
    """A server with one object, a store that hears of it late, in order, with lists in between."""
    held = store()
    now: dict[str, Any] | None = None
    version, uid = 10, 0
    pending: list[tuple[str, dict[str, Any]]] = []
    for step in steps:
        if step in ("write", "recreate") and (now is not None or step == "recreate"):
            version += 1
            if now is None:
                uid += 1
            kind = "ADDED" if now is None else "MODIFIED"
            now = obj(version, uid=f"u{uid}")
            pending.append((kind, now))
            if random.random() < 0.5:
                held.wrote(now)  # it was our write
        elif step == "remove" and now is not None:
            version += 1
            gone = obj(version, uid=f"u{uid}")
            pending.append(("DELETED", gone))
            if random.random() < 0.5:
                held.deleted(KEY, f"u{uid}")
            now = None
        elif step == "event" and pending:
            held.event(*pending.pop(0))
        elif step == "list":
            pending.clear()
            held.replace([now] if now is not None else [], began=held.begin_list())
    for event in pending:
        held.event(*event)
    assert held.raw(KEY) == now

"""The ledger of revocations: its texts, and which entries make room."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress.document import RelayTarget
from culvert_operator.keys import ObjectKey
from culvert_operator.revoking import ledger
from culvert_operator.revoking.ledger import Entry

ENTRY = Entry(
    tunnel=ObjectKey("ns", "main"),
    uid="u",
    subject="inst:ns/main",
    not_before=100,
    until=200,
    token="a.b.c",
    relay=RelayTarget(("a:1", "b:2"), "relay", "PEM"),
)


@given(
    st.lists(st.sampled_from(["a:1", "b:2", "[::1]:3"]), min_size=1, unique=True),
    st.one_of(st.none(), st.text(min_size=1)),
    st.integers(1, 2**40),
    st.booleans(),
)
def test_an_entry_reads_as_it_was_written(addresses: list[str], ca: str | None, number: int, shown: bool) -> None:
    relay = RelayTarget(tuple(addresses), None, ca, "http://proxy:3128" if shown else None)
    entry = replace(ENTRY, relay=relay, not_before=number, told=tuple(addresses[:1]), shown=shown)
    assert ledger.read(ledger.write(entry)) == entry
    assert entry.untold == tuple(addresses[1:])


@given(st.one_of(st.text(), st.sampled_from(["{}", "[]", "null", '{"tunnel": "a/b"}', '{"tunnel": 5}'])))
def test_what_is_no_entry_is_none(text: str) -> None:
    assert ledger.read(text) is None


def test_room_is_made_by_those_whose_relays_were_told_and_that_expire_first() -> None:
    big = "x" * 200_000
    entries = {
        f"s{i}": replace(ENTRY, subject=f"s{i}", until=300 - i, token=big, told=("a:1", "b:2") if i in (1, 2) else ())
        for i in range(4)
    }
    assert ledger.room_for(replace(ENTRY, subject="new", token="x"), entries) == ()
    assert ledger.room_for(replace(ENTRY, subject="new", token=big), entries) == ("s2",)
    assert ledger.room_for(replace(ENTRY, subject="new", token=big * 3), entries) == ("s2", "s1", "s3")
    assert ledger.room_for(replace(ENTRY, subject="s0", token=big), entries) == (), "it takes its own place"


def test_a_key_is_one_that_a_config_map_takes() -> None:
    names = {ledger.name_of(subject) for subject in ("inst:ns/main", "inst:ns/mäin", "x" * 300)}
    assert len(names) == 3
    assert all(name.isascii() and len(name) < 64 and "/" not in name for name in names)

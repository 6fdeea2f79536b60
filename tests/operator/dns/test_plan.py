"""The DNS planner: each line of its table, and what must hold for any zone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import (
    Change,
    DNSPlan,
    DNSView,
    State,
    UnknownZoneError,
    ZoneView,
    plan_zones,
    split_targets,
)
from culvert_operator.dns.policies import Action, Policy

OWNER = "installation-1"
SHOP = "tunnelbinding/shop/shop"
BLOG = "tunnelbinding/blog/blog"
NAME = "shop.example.com"

wanted = Endpoint(NAME, "A", ("192.0.2.1",), 300, "", SHOP)
in_place = replace(wanted, owner=OWNER)
entry = Published(NAME, "A", SHOP)


def planned(
    desired: tuple[Endpoint, ...] = (),
    listed: tuple[Published, ...] = (),
    actual: tuple[Endpoint, ...] = (),
    *,
    policy: Policy = Policy.SYNC,
    adopt: bool = False,
    allowed_deletions: int | None = 0,
) -> DNSPlan:
    view = DNSView((ZoneView("example.com", actual),))
    return plan_zones(
        desired,
        listed=listed,
        view=view,
        owner=OWNER,
        policy=policy,
        adopt=adopt,
        allowed_deletions=allowed_deletions,
    )


def changes(plan: DNSPlan) -> list[Change]:
    return [change for zone in plan.changes for change in zone.changes]


def test_a_desired_name_that_no_status_lists_waits_for_the_status() -> None:
    plan = planned((wanted,))
    assert plan.verdicts[wanted.key].state is State.TO_LIST
    assert changes(plan) == []


def test_a_listed_desired_name_is_created() -> None:
    plan = planned((wanted,), (entry,))
    assert plan.verdicts[wanted.key].state is State.TO_WRITE
    assert changes(plan) == [Change(NAME, (), (in_place,))]
    assert changes(plan)[0].action is Action.CREATE


def test_what_is_in_place_is_in_no_change() -> None:
    plan = planned((wanted,), (entry,), (in_place,))
    assert plan.verdicts[wanted.key].state is State.IN_PLACE
    assert changes(plan) == []
    assert plan.listed[entry].state is State.IN_PLACE


@pytest.mark.parametrize(
    "actual",
    [
        replace(in_place, targets=("192.0.2.9",)),
        replace(in_place, ttl=60),
        replace(in_place, resource=BLOG),
        replace(in_place, type="CNAME", targets=("old.example.net",)),
    ],
    ids=["targets", "ttl", "resource", "type"],
)
def test_ours_with_anything_different_is_updated_in_one_change(actual: Endpoint) -> None:
    plan = planned((wanted,), (entry,), (actual,))
    assert changes(plan) == [Change(NAME, (actual,), (in_place,))]
    assert changes(plan)[0].action is Action.UPDATE


def test_our_marker_without_its_record_is_completed() -> None:
    marker = replace(in_place, targets=(), ttl=0)
    plan = planned((wanted,), (entry,), (marker,))
    assert changes(plan) == [Change(NAME, (marker,), (in_place,))]
    assert changes(plan)[0].action is Action.CREATE


@pytest.mark.parametrize(
    "foreign",
    [
        replace(wanted, resource=""),
        replace(wanted, owner="somebody-else"),
        Endpoint(NAME, "AAAA", ("2001:db8::1",)),
        Endpoint(NAME, "CNAME", ("elsewhere.example.net",)),
        Endpoint(NAME, "A", (), 0, "somebody-else", "ingress/x/y"),
    ],
    ids=["same without marker", "other owner", "other address type", "cname", "other owner's marker"],
)
def test_a_name_that_somebody_else_holds_is_left_alone(foreign: Endpoint) -> None:
    plan = planned((wanted,), (entry,), (foreign,))
    assert plan.verdicts[wanted.key].state is State.NOT_OWNER
    assert NAME in plan.verdicts[wanted.key].message
    assert plan.listed[entry].state is State.GONE
    assert changes(plan) == []


def test_foreign_records_of_other_kinds_do_not_bar_an_address() -> None:
    beside = (Endpoint(NAME, "TXT", ('"v=spf1 -all"',)), Endpoint(NAME, "MX", ("10 mail.example.com.",)))
    assert changes(planned((wanted,), (entry,), beside)) == [Change(NAME, (), (in_place,))]


def test_a_cname_stands_beside_nothing() -> None:
    cname = Endpoint(NAME, "CNAME", ("relay.example.net",), 300, "", SHOP)
    beside = (Endpoint(NAME, "TXT", ('"v=spf1 -all"',)),)
    plan = planned((cname,), (Published(NAME, "CNAME", SHOP),), beside)
    assert plan.verdicts[cname.key].state is State.NOT_OWNER
    assert changes(plan) == []


def test_our_record_beside_a_foreign_one_stays_and_stays_listed() -> None:
    foreign = Endpoint(NAME, "AAAA", ("2001:db8::1",))
    plan = planned((wanted,), (entry,), (in_place, foreign))
    assert plan.verdicts[wanted.key].state is State.NOT_OWNER
    assert plan.listed[entry].state is State.HELD
    assert changes(plan) == []


@pytest.mark.parametrize("kind", ["NS", "DNAME"])
@pytest.mark.parametrize("name", ["x.sub.example.com", "sub.example.com", "*.sub.example.com"])
def test_names_below_a_delegation_are_not_ours_to_write(kind: str, name: str) -> None:
    one = replace(wanted, name=name)
    cut = Endpoint("sub.example.com", kind, ("ns.example.net.",))
    plan = planned((one,), (Published(name, "A", SHOP),), (cut,))
    assert plan.verdicts[one.key].state is State.NOT_OWNER


def test_the_zones_own_ns_records_bar_nothing() -> None:
    apex = replace(wanted, name="example.com")
    ns = Endpoint("example.com", "NS", ("ns.example.net.",))
    assert len(changes(planned((apex,), (Published("example.com", "A", SHOP),), (ns,)))) == 1


def test_adopting_takes_the_same_value_only_and_never_another_owners() -> None:
    bare = replace(wanted, resource="")
    plan = planned((wanted,), (entry,), (bare,), adopt=True)
    assert changes(plan) == [Change(NAME, (bare,), (in_place,))]
    assert changes(planned((wanted,), (entry,), (replace(bare, targets=("192.0.2.7",)),), adopt=True)) == []
    assert changes(planned((wanted,), (entry,), (replace(bare, owner="other"),), adopt=True)) == []


def test_a_listed_record_that_nobody_wants_is_deleted() -> None:
    plan = planned((), (entry,), (in_place,))
    assert changes(plan) == [Change(NAME, (in_place,), ())]
    assert plan.listed[entry].state is State.TO_DELETE


def test_a_record_that_no_status_of_ours_lists_is_never_deleted() -> None:
    assert changes(planned((), (), (in_place,))) == []


@pytest.mark.parametrize(
    "actual",
    [(), (replace(in_place, resource=BLOG),), (replace(wanted, resource=""),), (replace(wanted, owner="other"),)],
    ids=["nothing", "taken over", "unmarked", "another owner's"],
)
def test_a_listed_record_that_is_not_there_as_ours_is_gone(actual: tuple[Endpoint, ...]) -> None:
    plan = planned((), (entry,), actual)
    assert changes(plan) == []
    assert plan.listed[entry].state is State.GONE


def test_a_name_that_changes_hands_is_updated_and_the_former_holder_let_go_afterwards() -> None:
    theirs = replace(wanted, resource=BLOG)
    both = (entry, Published(NAME, "A", BLOG))
    plan = planned((theirs,), both, (in_place,))
    assert [c.action for c in changes(plan)] == [Action.UPDATE]
    assert plan.listed[entry].state is State.TO_DELETE
    after = planned((theirs,), both, changes(plan)[0].after)
    assert after.listed[entry].state is State.GONE
    assert changes(after) == []


def test_no_zone_means_no_change_and_nothing_is_confirmed_gone() -> None:
    lost = replace(wanted, name="shop.example.org")
    plan = planned((lost,), (Published("shop.example.org", "A", SHOP),))
    assert plan.verdicts[lost.key].state is State.ZONE_NOT_FOUND
    assert {v.state for v in plan.listed.values()} == {State.ZONE_NOT_FOUND}


def test_a_name_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    name = ".".join(["a" * 60] * 3 + ["b" * 50]) + ".example.com"
    plan = planned((replace(wanted, name=name),), (Published(name, "A", SHOP),))
    assert plan.verdicts[name, "A"].state is State.INVALID
    assert changes(plan) == []


def test_d30_a_failed_read_is_not_an_empty_zone() -> None:
    with pytest.raises(UnknownZoneError):
        plan_zones((wanted,), listed=(entry,), view=DNSView(error="timed out"), owner=OWNER)


POLICIES = [
    (Policy.SYNC, True, True, True),
    (Policy.UPSERT_ONLY, True, True, False),
    (Policy.CREATE_ONLY, True, False, False),
]


@pytest.mark.parametrize(("policy", "creates", "updates", "deletes"), POLICIES)
def test_policies_only_take_actions_away(policy: Policy, creates: bool, updates: bool, deletes: bool) -> None:
    assert bool(changes(planned((wanted,), (entry,), policy=policy))) is creates
    update = planned((wanted,), (entry,), (replace(in_place, ttl=1),), policy=policy)
    assert bool(changes(update)) is updates
    assert update.verdicts[wanted.key].state is (State.TO_WRITE if updates else State.KEPT)
    delete = planned((), (entry,), (in_place,), policy=policy)
    assert bool(changes(delete)) is deletes
    assert delete.listed[entry].state is (State.TO_DELETE if deletes else State.KEPT)


def _many(count: int) -> tuple[tuple[Published, ...], tuple[Endpoint, ...]]:
    names = [f"n{i}.example.com" for i in range(count)]
    return (
        tuple(Published(n, "A", SHOP) for n in names),
        tuple(Endpoint(n, "A", ("192.0.2.1",), 300, OWNER, SHOP) for n in names),
    )


@pytest.mark.parametrize(
    ("deleted", "owned", "held"), [(20, 20, False), (21, 21, True), (21, 42, False), (21, 41, True)]
)
def test_deleting_more_than_twenty_and_more_than_half_asks_first(deleted: int, owned: int, held: bool) -> None:
    listed, actual = _many(owned)
    plan = planned((), listed[:deleted], actual)
    assert len(changes(plan)) == (0 if held else deleted)
    assert plan.held == (deleted if held else 0)
    assert len(changes(planned((), listed[:deleted], actual, allowed_deletions=deleted))) == deleted
    assert len(changes(planned((), listed[:deleted], actual, allowed_deletions=None))) == deleted
    too_few = planned((), listed[:deleted], actual, allowed_deletions=deleted - 1)
    assert len(changes(too_few)) == (0 if held else deleted)


def test_a_hold_says_which_annotation_lets_it_go() -> None:
    listed, actual = _many(30)
    plan = planned((), listed, actual)
    assert {v.message for v in plan.listed.values()} == {
        "30 of 30 owned names would be deleted at once, which looks like a mistake; when it is meant, annotate the "
        "Tunnel with culvert.dev/allow-mass-deletion=30."
    }


def test_names_that_are_withdrawn_by_configuration_are_not_held() -> None:
    listed, actual = _many(30)
    view = DNSView((ZoneView("example.com", actual),))
    plan = plan_zones((), listed=listed, view=view, owner=OWNER, withdrawn={e.name for e in actual})
    assert len(changes(plan)) == 30
    assert plan.held == 0


def test_the_brake_lets_other_names_through() -> None:
    listed, actual = _many(30)
    plan = planned((wanted,), (*listed, entry), actual)
    assert [c.name for c in changes(plan)] == [NAME]


def test_addresses_become_one_endpoint_per_family_and_a_host_name_a_cname() -> None:
    both = split_targets(
        NAME, hostname=None, addresses=["2001:DB8::1", "192.0.2.2", "192.0.2.1"], ttl=60, resource=SHOP
    )
    assert {(e.type, e.targets) for e in both} == {("A", ("192.0.2.1", "192.0.2.2")), ("AAAA", ("2001:db8::1",))}
    one = split_targets(NAME, hostname="Relay.Example.NET.", addresses=(), ttl=60, resource=SHOP)
    assert [(e.type, e.targets) for e in one] == [("CNAME", ("relay.example.net",))]


names = st.sampled_from([f"n{i}.example.com" for i in range(6)])
resources = st.sampled_from([SHOP, BLOG])
kinds = st.sampled_from(["A", "AAAA", "CNAME", "TXT", "MX", "NS"])
actual_endpoints = st.lists(
    st.builds(
        Endpoint, names, kinds, st.sampled_from([("192.0.2.1",), ("192.0.2.2",), ()]), st.just(300),
        st.sampled_from(["", OWNER, "other"]), resources,
    ),
    max_size=12,
    unique_by=lambda e: e.key,
).map(tuple)  # fmt: skip
desired_endpoints = st.lists(
    st.builds(Endpoint, names, st.just("A"), st.just(("192.0.2.1",)), st.just(300), st.just(""), resources),
    max_size=6,
    unique_by=lambda e: e.name,
).map(tuple)
entries = st.lists(
    st.builds(Published, names, st.sampled_from(["A", "CNAME"]), resources), max_size=8, unique=True
).map(tuple)


@given(desired_endpoints, entries, actual_endpoints, st.sampled_from(Policy), st.booleans())
@settings(max_examples=300)
def test_for_any_zone(
    desired: tuple[Endpoint, ...],
    listed: tuple[Published, ...],
    actual: tuple[Endpoint, ...],
    policy: Policy,
    adopt: bool,
) -> None:
    plan = planned(desired, listed, actual, policy=policy, adopt=adopt)
    assert set(plan.verdicts) == {e.key for e in desired}
    assert set(plan.listed) == set(listed)
    after = list(actual)
    for change in changes(plan):
        for old in change.before:
            assert old.owner == OWNER or (adopt and not old.owner and old.targets == ("192.0.2.1",))
            after.remove(old)
        for new in change.after:
            assert Published(new.name, new.type, new.resource) in listed
            after = [e for e in after if e.key != new.key]
            after.append(new)
    foreign = [e for e in actual if e.owner == "other"]
    assert all(e in after for e in foreign)
    again = planned(desired, listed, tuple(after), policy=policy, adopt=adopt)
    assert changes(again) == []


@given(desired_endpoints, entries, actual_endpoints, names)
def test_one_names_verdict_does_not_depend_on_the_others(
    desired: tuple[Endpoint, ...], listed: tuple[Published, ...], actual: tuple[Endpoint, ...], name: str
) -> None:
    whole = planned(desired, listed, actual)
    alone = planned(
        tuple(e for e in desired if e.name == name),
        tuple(p for p in listed if p.name == name),
        tuple(e for e in actual if e.name == name),
    )
    assert {k: v for k, v in whole.verdicts.items() if k[0] == name} == alone.verdicts
    assert [c for c in changes(whole) if c.name == name] == changes(alone)

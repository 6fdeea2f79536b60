"""The table in the planner's docstring, line by line, as the planner answers it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from culvert_operator.dns import plan as module
from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import DNSView, ZoneView, plan_zones

OWNER, SHOP, BLOG = "installation-1", "tunnelbinding/shop/shop", "tunnelbinding/blog/blog"
NAME, APEX, BELOW = "shop.example.com", "example.com", "x.sub.example.com"
LONG = ".".join(["a" * 60] * 3 + ["b" * 50]) + ".example.com"

wanted = Endpoint(NAME, "A", ("192.0.2.1",), 300, "", SHOP)
ours = replace(wanted, owner=OWNER)
bare = replace(wanted, resource="")
theirs = replace(wanted, owner="somebody-else", resource="ingress/x/y")

# What "zone holds" says → (the name that is planned, what the zone holds).
HOLDS: dict[str, tuple[str, tuple[Endpoint, ...]]] = {
    "nothing": (NAME, ()),
    "our marker without a record": (NAME, (replace(ours, targets=(), ttl=0),)),
    "ours, other targets": (NAME, (replace(ours, targets=("192.0.2.9",)),)),
    "ours, other TTL": (NAME, (replace(ours, ttl=7),)),
    "ours, other type": (NAME, (replace(ours, type="AAAA", targets=("2001:db8::1",)),)),
    "ours, another resource": (NAME, (replace(ours, resource=BLOG),)),
    "ours, same": (NAME, (ours,)),
    "an address type without a marker": (NAME, (replace(bare, type="AAAA", targets=("2001:db8::1",)),)),
    "the same value without a marker": (NAME, (bare,)),
    "another value without a marker": (NAME, (replace(bare, targets=("192.0.2.9",)),)),
    "another owner's, same value": (NAME, (theirs,)),
    "another owner's marker without a record": (NAME, (replace(theirs, targets=(), ttl=0),)),
    "TXT or MX beside": (NAME, (Endpoint(NAME, "MX", ("10 m.example.com.",)), Endpoint(NAME, "TXT", ('"x"',)))),
    "the zone's SOA and NS (its apex)": (APEX, (Endpoint(APEX, "NS", ("ns.",)), Endpoint(APEX, "SOA", ("ns. h. 1",)))),
    "NS or DNAME above the name": (BELOW, (Endpoint("sub.example.com", "NS", ("ns.example.net.",)),)),
    "(no zone holds the name)": ("shop.example.org", ()),
    "(the marker's name does not fit)": (LONG, ()),
}
TABLE = [
    tuple(cell.strip() for cell in line.replace("->", "").split("|"))
    for line in (module.__doc__ or "").splitlines()
    if re.match(r"    (yes|no|CNAME|adopt) +\|", line)
]


def test_the_table_is_there_and_every_line_can_be_tried() -> None:
    assert len(TABLE) == 32
    assert {row[1] for row in TABLE} == set(HOLDS)
    assert {row[2] for row in TABLE} == {"yes", "no", "any"}


@pytest.mark.parametrize("row", TABLE, ids=" / ".join)
def test_each_line_of_the_planners_table(row: tuple[str, ...]) -> None:
    desire, holds, listing, state, change = row
    name, actual = HOLDS[holds]
    kind = "CNAME" if desire == "CNAME" else "A"
    one = replace(wanted, name=name, type=kind, targets=("relay.example.net",) if kind == "CNAME" else ("192.0.2.1",))
    entry = Published(name, kind, SHOP)
    for listed in {"yes": [True], "no": [False], "any": [True, False]}[listing]:
        found = plan_zones(
            () if desire == "no" else (one,),
            listed=[entry] if listed else [],
            view=DNSView((ZoneView("example.com", actual),)),
            owner=OWNER,
            adopt=desire == "adopt",
        )
        verdict = found.listed.get(entry) if desire == "no" else found.verdicts[one.key]
        assert (verdict.state.name if verdict is not None else "") == state
        assert [c.action.value for z in found.changes for c in z.changes] == ([] if change == "-" else [change])

"""Names of records and markers: what fits into DNS, and that markers read back as written."""

from __future__ import annotations

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.dns import names

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
hostnames = st.builds(
    lambda wild, labels: ("*." if wild else "") + ".".join(labels),
    st.booleans(),
    st.lists(label, min_size=2, max_size=5),
)


@given(hostnames, st.sampled_from(["A", "AAAA", "CNAME"]))
def test_a_marker_name_leads_back_to_its_record(name: str, kind: str) -> None:
    assert names.record_of_marker(names.marker_name(name, kind)) == (name, kind)


@given(hostnames)
def test_no_host_name_is_taken_for_a_marker(name: str) -> None:
    assert names.record_of_marker(name) is None


def test_the_marker_of_an_apex_lies_inside_the_zone() -> None:
    assert names.in_zone(names.marker_name("example.com", "A"), "example.com")


@given(st.text(alphabet=st.characters(exclude_characters=",", exclude_categories=["Cs", "Cc"]), max_size=400))
def test_txt_text_reads_back_and_is_split_at_255_bytes(text: str) -> None:
    written = names.txt_presentation(text)
    rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, written)
    assert b"".join(rdata.strings).decode() == text
    assert all(len(string) <= 255 for string in rdata.strings)
    assert names.txt_text(written) == text
    assert names.txt_text(rdata.to_text()) == text


@given(st.from_regex(r"[A-Za-z0-9._/-]{1,100}", fullmatch=True), st.from_regex(r"[a-z0-9./-]{1,300}", fullmatch=True))
def test_a_marker_says_owner_and_resource_as_external_dns_does(owner: str, resource: str) -> None:
    text = names.marker_text(owner, resource)
    assert text.startswith("heritage=external-dns,external-dns/owner=")
    assert names.parse_marker(text) == (owner, resource)
    assert names.parse_marker(f'"{text}"') == (owner, resource)
    assert names.check_owner(owner) is None


@pytest.mark.parametrize("text", ["", "v=spf1 -all", "heritage=other,external-dns/owner=me"])
def test_other_texts_are_not_markers(text: str) -> None:
    assert names.parse_marker(text) is None


@pytest.mark.parametrize("owner", ["", "a,b", 'a"b', "x" * 101, "a\nb", "a\n"])
def test_owner_ids_that_would_break_a_marker_are_refused(owner: str) -> None:
    assert names.check_owner(owner) is not None


def _long(total: int) -> str:
    name = ".".join(["a" * 60] * 3 + ["b"])
    return name + "c" * (total - len(name))


def test_a_name_fits_exactly_as_long_as_its_longest_marker_does() -> None:
    longest = 253 - len("cname._culvert.")
    assert names.check_name(_long(longest)) is None
    problem = names.check_name(_long(longest + 1))
    assert problem is not None
    assert "1 bytes shorter" in problem


@pytest.mark.parametrize(
    "name",
    ["", "*", "a.*.example.com", "a..example.com", "-a.example.com", "a b.example.com", f"{'x' * 64}.example.com"],
)
def test_names_that_are_no_host_names_are_refused_with_a_sentence(name: str) -> None:
    problem = names.check_name(name)
    assert problem is not None
    assert problem.endswith(".")


def test_the_zone_of_a_name_is_the_longest_that_holds_it() -> None:
    zones = ("example.com", "sub.example.com", "ample.com")
    assert names.zone_of("x.sub.example.com", zones) == "sub.example.com"
    assert names.zone_of("*.sub.example.com", zones) == "sub.example.com"
    assert names.zone_of("evilexample.com", zones) is None
    assert names.zone_of("example.com", zones) == "example.com"

"""The zonefile provider: foreign text survives, the serial rises, nobody's change is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_operator.dns.endpoint import Endpoint, Published, RecordSet
from culvert_operator.dns.plan import DNSView, plan_zones
from culvert_operator.dns.provider import ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.providers import zone_text
from culvert_operator.dns.providers.zonefile import FileText, ZonefileProvider
from culvert_operator.dns.registry import Registry

ZONE = """\
; the zone of example.com, by hand
$ORIGIN example.com.
$TTL 3600
@       IN SOA ns.example.com. hostmaster.example.com. (
                2024010100 ; serial; with a ) in a comment
                7200 3600 1209600 300 )
        IN NS  ns            ; the owner is left out here
ns      60 IN A 192.0.2.53
        AAAA 2001:db8::53
txt     TXT "a;b" "c(d"      ; quoted specials
WWW     IN 120 A 192.0.2.80
$ORIGIN sub.example.com.
deep    A 192.0.2.99
"""
OWNER = "installation-1"
SHOP = "tunnelbinding/shop/shop"
wanted = Endpoint("shop.example.com", "CNAME", ("relay.example.net",), 300, "", SHOP)
listed = Published("shop.example.com", "CNAME", SHOP)


def serial(text: str) -> int:
    soa = zone_text.read(text, "example.com")["example.com", "SOA"]
    return int(soa.values[0].split()[2])


class Lines:
    """A text in memory that counts versions, and lets a rival change it between reading and replacing."""

    def __init__(self, text: str, rivals: list[str] | None = None) -> None:
        self.text, self.version, self.writes = text, 0, 0
        self.rivals = rivals or []

    async def read(self) -> tuple[str, str]:
        return self.text, str(self.version)

    async def replace(self, text: str, *, version: str) -> bool:
        if self.rivals:
            self.text, self.version = self.text + self.rivals.pop(), self.version + 1
        if version != str(self.version):
            return False
        self.text, self.version, self.writes = text, self.version + 1, self.writes + 1
        return True


async def publish(registry: Registry, desired: tuple[Endpoint, ...], entries: tuple[Published, ...]) -> list[Result]:
    view = await registry.view()
    plan = plan_zones(desired, listed=entries, view=view, owner=OWNER)
    return [result.result for result in await registry.apply(plan.changes)]


def registry_over(text: Lines) -> Registry:
    return Registry(ZonefileProvider("example.com", text))


def test_publishing_appends_record_and_marker_and_raises_the_serial() -> None:
    text = Lines(ZONE)
    assert asyncio.run(publish(registry_over(text), (wanted,), (listed,))) == [Result.DONE]
    assert text.text.startswith(ZONE.replace("2024010100", "2024010101"))
    records = zone_text.read(text.text, "example.com")
    assert records["shop.example.com", "CNAME"].values == ("relay.example.net.",)
    marker = records["cname._culvert.shop.example.com", "TXT"].values[0]
    assert marker == (
        '"heritage=external-dns,external-dns/owner=installation-1,external-dns/resource=tunnelbinding/shop/shop"'
    )


def test_withdrawing_restores_the_text_byte_for_byte_but_for_the_serial() -> None:
    text = Lines(ZONE)

    async def there_and_back() -> None:
        registry = registry_over(text)
        await publish(registry, (wanted,), (listed,))
        assert await publish(registry, (), (listed,)) == [Result.DONE]

    asyncio.run(there_and_back())
    assert text.text == ZONE.replace("2024010100", "2024010102")


def test_what_is_in_place_writes_nothing() -> None:
    text = Lines(ZONE)

    async def twice() -> list[Result]:
        await publish(registry_over(text), (wanted,), (listed,))
        return await publish(registry_over(text), (wanted,), (listed,))

    assert asyncio.run(twice()) == []
    assert text.writes == 1


def test_a_rivals_change_between_reading_and_writing_survives() -> None:
    text = Lines(ZONE, rivals=["rival 300 IN A 192.0.2.200\n"])
    assert asyncio.run(publish(registry_over(text), (wanted,), (listed,))) == [Result.DONE]
    records = zone_text.read(text.text, "example.com")
    assert ("rival.sub.example.com", "A") in records
    assert ("shop.example.com", "CNAME") in records


def test_a_rival_that_takes_the_name_meanwhile_wins() -> None:
    text = Lines(ZONE, rivals=["shop.example.com. 300 IN A 192.0.2.200\n"])
    with_rival = asyncio.run(publish(registry_over(text), (wanted,), (listed,)))
    # The CNAME would stand beside a foreign A: the name is read again before anything is written.
    assert with_rival == [Result.CONFLICT]
    assert text.writes == 0


def test_one_names_failure_does_not_hold_the_others() -> None:
    text = Lines(ZONE, rivals=["shop.example.com. 300 IN A 192.0.2.200\n"])
    other = Endpoint("blog.example.com", "A", ("192.0.2.1",), 300, "", SHOP)
    entries = (listed, Published("blog.example.com", "A", SHOP))
    results = asyncio.run(publish(registry_over(text), (wanted, other), entries))
    assert sorted(results) == [Result.CONFLICT, Result.DONE]
    assert ("blog.example.com", "A") in zone_text.read(text.text, "example.com")


def test_a_rival_who_never_stops_is_an_error_not_an_endless_loop() -> None:
    text = Lines(ZONE, rivals=[f"r{i} A 192.0.2.1\n" for i in range(50)])
    results = asyncio.run(publish(registry_over(text), (wanted,), (listed,)))
    assert results == [Result.FAILED]


@pytest.mark.parametrize(
    ("name", "kind", "gone"),
    [
        ("www.example.com", "A", "WWW     IN 120 A 192.0.2.80\n"),
        ("deep.sub.example.com", "A", "deep    A 192.0.2.99\n"),
        ("txt.example.com", "TXT", 'txt     TXT "a;b" "c(d"      ; quoted specials\n'),
        ("ns.example.com", "AAAA", "        AAAA 2001:db8::53\n"),
    ],
)
def test_removing_takes_exactly_the_entrys_line(name: str, kind: str, gone: str) -> None:
    record = zone_text.read(ZONE, "example.com")[name, kind]
    edited = zone_text.edit(ZONE, "example.com", remove=[record], add=[])
    assert edited == ZONE.replace(gone, "").replace("2024010100", "2024010101")


def test_an_entry_that_borrowed_its_owner_from_a_removed_one_keeps_it() -> None:
    record = zone_text.read(ZONE, "example.com")["ns.example.com", "A"]
    edited = zone_text.edit(ZONE, "example.com", remove=[record], add=[])
    assert "ns.example.com.        AAAA 2001:db8::53\n" in edited
    assert ("ns.example.com", "AAAA") in zone_text.read(edited, "example.com")


def test_a_text_without_a_newline_at_its_end_is_not_glued_together() -> None:
    added = RecordSet("x.example.com", "A", 60, ("192.0.2.7",))
    edited = zone_text.edit(ZONE.rstrip("\n"), "example.com", remove=[], add=[added])
    assert ("deep.sub.example.com", "A") in zone_text.read(edited, "example.com")
    assert zone_text.read(edited, "example.com")["x.example.com", "A"] == added


def test_a_generated_record_cannot_be_removed_and_says_so() -> None:
    text = ZONE + "$GENERATE 1-3 gen$ A 192.0.2.$\n"
    record = zone_text.read(text, "example.com")["gen2.sub.example.com", "A"]
    with pytest.raises(ProviderError, match=r"\$GENERATE"):
        zone_text.edit(text, "example.com", remove=[record], add=[])


@pytest.mark.parametrize("before", [0, 1, 2024010100, 2**31, 2**32 - 1])
def test_the_serial_moves_one_up_on_its_circle_and_skips_zero(before: int) -> None:
    text = ZONE.replace("2024010100", str(before))
    after = serial(zone_text.edit(text, "example.com", remove=[], add=[]))
    assert after == ((before + 1) % 2**32 or 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no SOA"),
        ("@ 60 IN NS ns\n", "no SOA"),
        (ZONE + "broken A not-an-address\n", "near line 15"),
        (ZONE + '$INCLUDE "/etc/passwd"\n', "cannot be read"),
        (ZONE + 'x TXT "unterminated\n', "cannot be read"),
    ],
    ids=["empty", "no soa", "bad address", "include", "unterminated"],
)
def test_a_text_that_cannot_be_read_is_an_error_and_never_an_empty_zone(text: str, said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        zone_text.read(text, "example.com")
    view = asyncio.run(registry_over(Lines(text)).view())
    assert view.error is not None
    assert view.zones == ()


label = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
record = st.builds(
    lambda name, kind, ttl, n: RecordSet(
        f"{name}.example.com",
        kind,
        ttl,
        (f"192.0.2.{n}",) if kind == "A" else (f"2001:db8::{n:x}",) if kind == "AAAA" else (f'"t;{n} (x"',),
    ),
    label,
    st.sampled_from(["A", "AAAA", "TXT"]),
    st.integers(0, 86400),
    st.integers(1, 250),
)
foreign_lines = st.lists(
    st.sampled_from(
        ["; a comment with \" and (\n", "\n", "   \n", "h1 A 192.0.2.1\n", "  TXT \"x ; y\"\n", "$TTL 60\n",
         "h2 (\n A 192.0.2.2 )\n",
         "$ORIGIN o.example.com.\n", "$ORIGIN example.com.\n", "@ TXT ( \"a\"\n \"b\" ; c\n )\n"]
    ),
    max_size=12,
)  # fmt: skip


@given(foreign_lines, st.lists(record, min_size=1, max_size=5, unique_by=lambda r: (r.name, r.type)))
@settings(max_examples=150)
def test_adding_and_removing_leaves_any_foreign_text_as_it_was(lines: list[str], records: list[RecordSet]) -> None:
    text = ZONE + "".join(lines)
    present = zone_text.read(text, "example.com")
    records = [r for r in records if (r.name, r.type) not in present]
    added = zone_text.edit(text, "example.com", remove=[], add=records)
    assert all(zone_text.read(added, "example.com")[r.name, r.type] == r for r in records)
    back = zone_text.edit(added, "example.com", remove=records, add=[])
    assert back == text.replace("2024010100", "2024010102")


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "db.example.com"
    path.write_text(ZONE)
    path.chmod(0o640)
    made = provider("zonefile", ProviderConfig({"path": str(path)}, ("example.com",)))
    assert asyncio.run(publish(Registry(made), (wanted,), (listed,))) == [Result.DONE]
    assert serial(path.read_text()) == 2024010101
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["db.example.com"]


def test_a_file_that_somebody_changed_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "db.example.com"
    path.write_text(ZONE)
    text = FileText(path)
    _, version = asyncio.run(text.read())
    path.write_text(ZONE + "; changed\n")
    assert asyncio.run(text.replace("mine", version=version)) is False
    assert path.read_text() == ZONE + "; changed\n"


def test_a_missing_file_is_a_failed_read(tmp_path: Path) -> None:
    made = provider("zonefile", ProviderConfig({"path": str(tmp_path / "none")}, ("example.com",)))
    view = asyncio.run(Registry(made).view())
    assert view == DNSView(error=view.error)
    assert view.error is not None


@pytest.mark.parametrize("zones", [(), ("example.com", "example.org")])
def test_the_zonefile_provider_needs_exactly_one_zone(zones: tuple[str, ...]) -> None:
    with pytest.raises(ProviderError, match="one zone"):
        provider("zonefile", ProviderConfig({}, zones, Lines(ZONE)))

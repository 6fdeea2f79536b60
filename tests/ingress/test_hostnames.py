"""Hostnames: one spelling for every way of writing a name, and a sentence for what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress import hostnames
from culvert_ingress.hostnames import HostnameError, covers, from_authority, matches, normalise, normalise_pattern

LABELS = st.sampled_from(["a", "b", "www", "example", "com", "a-b", "evilexample", "xn--bcher-kva", "1"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: ".".join([*labels, "com"]))
PATTERNS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("shop.example.com", "shop.example.com"),
        ("SHOP.Example.COM", "shop.example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("r3---sn.example.com", "r3---sn.example.com"),
        ("1password.com", "1password.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("ｅｘａｍｐｌｅ。com", "example.com"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        (f"{'a' * 63}.com", f"{'a' * 63}.com"),
        (".".join(["a" * 49] * 5) + ".com", ".".join(["a" * 49] * 5) + ".com"),
    ],
)
def test_d34_every_spelling_of_a_name_has_one_normal_form(written: str, name: str) -> None:
    assert normalise(written) == name
    assert normalise_pattern(f"*.{written}" if len(written) < 250 else written).removeprefix("*.") == name


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("", "is empty"),
        (".", "names no host"),
        (".example.com", "empty label"),
        ("a..example.com", "empty label"),
        ("example.com..", "empty label"),
        ("127.0.0.1", "IP address"),
        ("127.1", "IP address"),
        ("0x7f.1", "IP address"),
        ("0x7F000001", "IP address"),
        ("0177.0.0.1", "IP address"),
        ("2130706433", "IP address"),
        ("1.2.3.4.", "IP address"),
        ("169.254.169.254", "IP address"),
        ("１２７.０.０.１", "IP address"),
        ("[::1]", "IP address"),
        ("::1", "IP address"),
        ("[::ffff:127.0.0.1]:80", "IP address"),
        ("fe80::1%eth0", "IP address"),
        ("example.com:8443", "has a port; rules match hostnames without it: write 'example.com'"),
        ("https://example.com", "has a scheme"),
        ("example.com/path", "has a path"),
        ("example.com?x=1", "has a query"),
        ("example.com#x", "has a fragment"),
        ("my_app.example.com", "has an underscore, which host names cannot have; use a hyphen instead"),
        ("-a.example.com", "hyphen"),
        ("a-.example.com", "hyphen"),
        ("exam ple.com", "character that host names cannot have"),
        (" example.com", "character that host names cannot have"),
        ("example.com\n", "character that host names cannot have"),
        ("example.com\0.evil.com", "character that host names cannot have"),
        ("exa%6dple.com", "character that host names cannot have"),
        ("${HOST}.example.com", "character that host names cannot have"),
        ("a℀b.com", "not a valid internationalised name|has a path|cannot have"),
        ("😀.example.com", "not a valid internationalised name"),
        ("a\u200db.example.com", "not a valid internationalised name"),
        ("xn--.example.com", "hyphen|Punycode"),
        ("xn--a.example.com", "not valid Punycode"),
        ("xn--bcher-.example.com", "hyphen"),
        ("xn--example-.com", "hyphen"),
        ("xn--99999999999.com", "not valid Punycode"),
        (f"{'a' * 64}.example.com", "label longer than 63"),
        ("ü" * 62 + ".com", "not a valid internationalised name|longer than 63"),
        (".".join(["a" * 49] * 5) + ".comm.", "longer than 253"),
        ("a." * 2000, "longer than 253"),
        ("*.example.com", "has a wildcard"),
    ],
)
def test_d34_what_is_not_a_hostname_is_refused_with_a_sentence(written: str, sentence: str) -> None:
    with pytest.raises(HostnameError, match=sentence) as refusal:
        normalise(written)
    assert str(refusal.value).endswith(".")
    assert len(str(refusal.value)) < 400


def test_a_password_in_front_of_a_host_is_not_repeated() -> None:
    with pytest.raises(HostnameError, match="user name") as refusal:
        normalise("admin:hunter2@example.com")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("*", r"write a suffix with it, such as \*\.example\.com"),
        ("*foo.com", r"write \*\.foo\.com"),
        ("a.*.com", r"write \*\.example\.com"),
        ("a*.example.com", r"write \*\.example\.com"),
        ("*.*.example.com", r"write \*\.example\.com"),
        ("example.com.*", r"write \*\.example\.com"),
        ("*.", "is empty"),
        ("*..com", "empty label"),
        ("*.127.0.0.1", "IP address"),
        ("*.my_app.com", "underscore"),
        ("*.example.com:443", "has a port"),
        ("*。example.com", "cut a label"),
        ("＊.example.com", "cannot have|not a valid"),
        ("*." + ".".join(["a" * 49] * 5) + ".co", "longer than 253"),
    ],
)
def test_wildcards_in_other_places_are_refused(written: str, sentence: str) -> None:
    with pytest.raises(HostnameError, match=sentence):
        normalise_pattern(written)


@pytest.mark.parametrize(
    ("pattern", "host", "outcome"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("example.com", "evilexample.com", False),
        ("*.example.com", "example.com.evil.com", False),
        ("*.example.com", ".example.com", False),
    ],
)
def test_d17_a_wildcard_matches_any_depth_on_label_boundaries_and_never_the_apex(
    pattern: str, host: str, outcome: bool
) -> None:
    assert matches(pattern, host) is outcome


@pytest.mark.parametrize(
    ("pattern", "other", "outcome"),
    [
        ("example.com", "example.com", True),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.a.example.com", "*.example.com", False),
        ("*.example.com", "example.com", False),
        ("example.com", "*.example.com", False),
        ("*.example.com", "*.evilexample.com", False),
        ("*.com", "*.example.com", True),
    ],
)
def test_a_pattern_covers_another_on_label_boundaries(pattern: str, other: str, outcome: bool) -> None:
    assert covers(pattern, other) is outcome


@given(st.one_of(st.text(max_size=40), NAMES, st.text("aAüß。.-xn:*1٣ı", max_size=30)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    try:
        name = normalise(text)
    except HostnameError:
        return
    assert normalise(name) == name
    assert name.isascii()
    assert name == name.lower()
    assert len(name) <= 253
    assert from_authority(name.encode()) == name


@given(PATTERNS, PATTERNS, NAMES)
def test_covering_means_matching_everything_that_the_other_matches(pattern: str, other: str, name: str) -> None:
    below = [name, other.removeprefix("*."), f"x.{other.removeprefix('*.')}", f"{name}.{other.removeprefix('*.')}"]
    if covers(pattern, other):
        assert all(matches(pattern, host) for host in below if matches(other, host))
    else:
        # A witness: the name that the other pattern matches and that is as near as can be.
        witness = other if not other.startswith("*.") else f"zz9.{other[2:]}"
        assert matches(other, witness)
        assert not matches(pattern, witness)


@given(NAMES)
def test_the_suffixes_of_a_name_are_those_whose_wildcards_match_it(name: str) -> None:
    suffixes = hostnames.wildcard_suffixes(name)
    assert all(matches(f"*.{suffix}", name) for suffix in suffixes)
    assert len(suffixes) == name.count(".")
    assert suffixes == sorted(suffixes, key=len, reverse=True)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"example.com", "example.com"),
        (b"EXAMPLE.com.", "example.com"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"xn--a.example", None),
        (b"b\xc3\xbccher.example", None),
        (b"127.0.0.1", None),
        (b"[::1]", None),
        (b"*.example.com", None),
        (b"", None),
        (b"a" * 300, None),
        (b"example.com:80", None),
    ],
)
def test_the_host_of_a_request_is_a_hostname_or_nothing(host: bytes, name: str | None) -> None:
    assert from_authority(host) == name
    assert from_authority(host) == name  # and the same from the cache


def test_hosts_of_strangers_cannot_grow_the_cache_without_bound() -> None:
    before = hostnames._from_authority.cache_info()
    from_authority(b"a" * 100_000)
    assert hostnames._from_authority.cache_info().misses == before.misses
    for number in range(hostnames.CACHED_HOSTS + 100):
        from_authority(b"h%d.example.com" % number)
    assert hostnames._from_authority.cache_info().currsize <= hostnames.CACHED_HOSTS

"""The keys of `relay.yml` about visitors: values, ranges, sentences; and docs/relay.md, which lists them."""

from pathlib import Path

import pytest

from culvert_ingress.durations import format_ms
from culvert_relay.config import ConfigError, parse_config
from culvert_relay.config_front import HEAD, NUMBERS, TIMES
from culvert_relay.limits import DEFAULT_LIMITS, Limits

REST = """\
id: relay-1
serverNames: ["localhost"]
listen: {http: ["127.0.0.1:8080"], tunnel: ["127.0.0.1:7443"]}
tls: {certificateDir: ./certs}
issuers: [{id: demo, publicKeyFile: ./issuer.pub, hostnames: ["example.com"]}]
"""
DOCUMENT = Path(__file__).parents[2] / "docs" / "relay.md"


def test_without_the_keys_every_default_holds() -> None:
    front = parse_config(REST.encode(), folder=Path()).front
    assert front.limits == DEFAULT_LIMITS == Limits()
    assert (front.trusted_proxies, front.proxy_protocol_from, front.https_redirect_port) == ((), (), None)


def test_every_key_sets_its_own_value() -> None:
    for table, place in ((HEAD, "head"), (NUMBERS, "limits")):
        for key, row in table.items():
            extra = {"headBytes": ", fieldBytes: 512, targetBytes: 128"}.get(key, "")
            front = parse_config(f"{REST}limits: {{{key}: {row.least}{extra}}}".encode(), folder=Path()).front
            holder = front.limits.head if place == "head" else front.limits
            assert getattr(holder, row.attribute) == row.least
    for key, time in TIMES.items():
        front = parse_config(f"{REST}timeouts: {{{key}: 90s}}".encode(), folder=Path()).front
        assert getattr(front.limits, time.attribute) == 90
    front = parse_config(
        f"{REST}trustedProxies: [10.0.0.0/8, '::1']\nproxyProtocolFrom: [192.0.2.1]\nhttpsRedirectPort: 443".encode(),
        folder=Path(),
    ).front
    assert [str(network) for network in front.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert [str(network) for network in front.proxy_protocol_from] == ["192.0.2.1/32"]
    assert front.https_redirect_port == 443


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("limits: {bodyByte: 1}", "Unknown key bodyByte in limits: did you mean bodyBytes?"),
        ("limits: {connections: 0}", "limits.connections must be a whole number from 1 to 1000000, not 0."),
        ("limits: {connections: true}", "limits.connections must be a whole number from 1 to 1000000, not True."),
        ("limits: {headBytes: 40000}", "limits.headBytes must be a whole number from 1024 to 32768, not 40000."),
        (
            "limits: {headBytes: 2048}",
            "limits.headBytes is less than targetBytes or fieldBytes: a head holds both, so raise it.",
        ),
        ("limits: 5", "limits must be a mapping with the keys"),
        ("timeouts: {head: 10}", "timeouts.head: 10 is not a duration; write numbers with units, such as 30s."),
        ("timeouts: {head: 0s}", "timeouts.head must be from 1s to 600s, not 0s."),
        ("timeouts: {request: 500ms}", "timeouts.request must be from 1s to 86400s, or 0s for no limit, not 500ms."),
        ("trustedProxies: 10.0.0.0/8", "trustedProxies must be a list of addresses and networks"),
        ("trustedProxies: [10.0.0.1/8]", "trustedProxies: '10.0.0.1/8' is not an address or a CIDR network (its host"),
        ("trustedProxies: [lb.example.com]", "trustedProxies: 'lb.example.com' is not an address or a CIDR network"),
        ("proxyProtocolFrom: ['::1', '::1/128']", "proxyProtocolFrom name ::1/128 twice: keep one."),
        ("httpsRedirectPort: 70000", "httpsRedirectPort must be a whole number from 1 to 65535, not 70000."),
    ],
)
def test_what_is_refused_and_how(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{REST}{text}".encode(), folder=Path())
    assert str(caught.value).startswith(sentence)


def test_the_document_lists_every_key_with_its_default() -> None:
    rows = DOCUMENT.read_text().splitlines()
    for table, holder in ((HEAD, DEFAULT_LIMITS.head), (NUMBERS, DEFAULT_LIMITS)):
        for key, row in table.items():
            assert f"| `{key}` | {getattr(holder, row.attribute)} | {row.text} |" in rows
    for key, time in TIMES.items():
        default = format_ms(int(getattr(DEFAULT_LIMITS, time.attribute) * 1000))
        assert f"| `{key}` | {default} | {time.text} |" in rows

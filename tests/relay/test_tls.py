"""Edge TLS: certificates by SNI, replaced under live connections, and requests for another tunnel's host."""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from culvert_relay.certificates import CertificateStore
from culvert_relay.config import ConfigError


def names_of(visitor: Any) -> set[str]:
    """The DNS names of the certificate that a visitor was shown."""
    from cryptography import x509

    der = visitor.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    leaf = x509.load_der_x509_certificate(der)
    extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(extension.get_values_for_type(x509.DNSName))


def serial_of(visitor: Any) -> bytes:
    return visitor.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("shop.example.com", {"shop.example.com"}),
        ("SHOP.example.com", {"shop.example.com"}),
        ("other.example.com", {"*.example.com", "example.com"}),
        ("example.com", {"*.example.com", "example.com"}),
        ("relay.test", {"relay.test"}),
        ("a.b.example.com", {"relay.test"}),
        ("unknown.test", {"relay.test"}),
        ("127.0.0.1", {"relay.test"}),
    ],
)
def test_a_certificate_is_chosen_by_the_name_asked_for(play: Any, asked: str, shown: set[str]) -> None:
    async def scenario(world: Any) -> None:
        visitor = await world.visitor(sni=asked)
        assert names_of(visitor) == shown

    play(scenario)


def test_requests_over_tls(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor(sni="app.example.com")
        for number in range(3):
            assert (await visitor.get("app.example.com", f"/{number}")).body == b"GET /%d " % number
        head = connector.requests[0].head
        assert (head.scheme, head.local_port) == (1, world.relay.ports.https[0])
        assert connector.requests[0].fields["x-forwarded-proto"] == "https"
        assert visitor.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None

    play(scenario)


def test_b13_a_host_of_another_tunnel_is_misdirected(play: Any) -> None:
    async def scenario(world: Any) -> None:
        one = await world.connector(["one.example.com", "uno.example.com"], subject="one")
        two = await world.connector(["two.example.com"], subject="two")
        visitor = await world.visitor(sni="one.example.com")
        assert (await visitor.get("one.example.com")).status == 200
        assert (await visitor.get("uno.example.com")).status == 200
        for host in ("two.example.com", "nobody.example.com", "elsewhere.test"):
            response = await visitor.get(host)
            assert (response.status, response.field("culvert-error")) == (421, "relay; misdirected")
        assert (len(one.requests), len(two.requests)) == (2, 0)
        nameless = await world.visitor(sni="127.0.0.1")
        assert (await nameless.get("two.example.com")).status == 200

    play(scenario)


def test_b13_old_tls_is_refused(play: Any) -> None:
    async def scenario(world: Any) -> None:
        world.clients.set_ciphers("ALL:@SECLEVEL=0")
        world.clients.minimum_version = ssl.TLSVersion.TLSv1
        world.clients.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await world.visitor(sni="app.example.com")
        world.clients.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await world.visitor(sni="app.example.com")

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        play(scenario)


def test_b13_http_on_the_tls_port_gets_no_answer(play: Any) -> None:
    async def scenario(world: Any) -> None:
        visitor = await world.visitor(port=world.relay.ports.https[0])
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        seen = b""
        with suppress(ConnectionResetError):
            seen = await visitor.rest()
        assert not seen.startswith(b"HTTP/")

    play(scenario)


def test_a30_a_replaced_certificate_serves_new_handshakes_and_old_connections_live(play: Any, pair_maker: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["shop.example.com"])
        old = await world.visitor(sni="shop.example.com")
        before = serial_of(old)
        pair_maker(world.folder / "certs", "shop", ["shop.example.com", "new.example.com"])
        await world.relay.watch.look()
        new = await world.visitor(sni="shop.example.com")
        assert serial_of(new) != before
        assert names_of(await world.visitor(sni="new.example.com")) == {"shop.example.com", "new.example.com"}
        for visitor in (old, new):
            assert (await visitor.get("shop.example.com")).status == 200

    play(scenario)


def test_a30_a_bad_new_pair_is_refused_and_the_old_one_stays(play: Any, pair_maker: Any) -> None:
    async def scenario(world: Any) -> None:
        folder: Path = world.folder / "certs"
        watch = world.relay.watch
        before = serial_of(await world.visitor(sni="shop.example.com"))
        good = (folder / "shop.key").read_bytes()
        for bad in (b"garbage", (folder / "relay.key").read_bytes()):
            (folder / "shop.key").write_bytes(bad)
            await watch.look()
            assert watch.certificate_problems == 1
            assert serial_of(await world.visitor(sni="shop.example.com")) == before
        (folder / "shop.key").unlink()
        await watch.look()
        assert serial_of(await world.visitor(sni="shop.example.com")) == before
        (folder / "shop.key").write_bytes(good)
        await watch.look()
        assert watch.certificate_problems == 0
        assert serial_of(await world.visitor(sni="shop.example.com")) == before

    play(scenario)


def test_certificates_come_and_go_but_not_the_relays_own(play: Any, pair_maker: Any) -> None:
    async def scenario(world: Any) -> None:
        folder: Path = world.folder / "certs"
        pair_maker(folder, "extra", ["extra.test"])
        await world.relay.watch.look()
        assert names_of(await world.visitor(sni="extra.test")) == {"extra.test"}
        for stem in ("extra", "relay"):
            (folder / f"{stem}.crt").unlink()
        await world.relay.watch.look()
        assert names_of(await world.visitor(sni="extra.test")) == {"relay.test"}
        assert names_of(await world.visitor(sni="relay.test")) == {"relay.test"}

    play(scenario)


def test_b12_a_stalled_tls_handshake_does_not_count_as_a_visitor(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        stalled = [socket.create_connection(("127.0.0.1", world.relay.ports.https[0])) for _ in range(20)]
        try:
            visitor = await world.visitor(sni="app.example.com")
            assert (await visitor.get("app.example.com")).status == 200
            assert len(world.edge.visitors) == 1
        finally:
            for sock in stalled:
                sock.close()

    play(scenario)


def test_what_stops_a_relay_at_its_start(tmp_path: Path, certificates: Path, pair_maker: Any) -> None:
    def load(names: tuple[str, ...] = ("relay.test",)) -> None:
        CertificateStore(tmp_path, server_names=names).load()

    with pytest.raises(ConfigError, match=r"tls\.certificateDir .* cannot be read: No such file"):
        CertificateStore(tmp_path / "missing").load()
    with pytest.raises(ConfigError, match=r"holds no certificate: put <name>\.crt and <name>\.key there"):
        load()
    pair_maker(tmp_path, "relay", ["relay.test"])
    load()
    with pytest.raises(ConfigError, match=r"No certificate in .* is for the server name other\.test"):
        load(names=("relay.test", "other.test"))
    (tmp_path / "lonely.crt").write_bytes((tmp_path / "relay.crt").read_bytes())
    with pytest.raises(ConfigError, match=r"lonely\.key cannot be read: No such file .*Each <name>\.crt needs"):
        load()
    pair_maker(tmp_path, "lonely", ["x.test"])
    (tmp_path / "lonely.crt").write_text("garbage")
    with pytest.raises(ConfigError, match=r"lonely\.crt holds no PEM certificate"):
        load()
    pair_maker(tmp_path, "lonely", ["x.test"])
    (tmp_path / "lonely.key").write_bytes((tmp_path / "relay.key").read_bytes())
    with pytest.raises(ConfigError, match="they do not belong together"):
        load()
    (tmp_path / "lonely.key").write_text("garbage")
    with pytest.raises(ConfigError, match="not a readable PEM pair"):
        load()


def test_a_wildcard_stands_for_one_label(tmp_path: Path, pair_maker: Any) -> None:
    pair_maker(tmp_path, "wild", ["*.a.test"])
    store = CertificateStore(tmp_path)
    store.load()
    assert store.find("x.a.test") is not None
    assert store.find("a.test") is None
    assert store.find("x.y.a.test") is None


def test_of_two_certificates_for_a_name_the_one_valid_longer_is_shown(tmp_path: Path, pair_maker: Any) -> None:
    pair_maker(tmp_path, "one", ["x.test"])
    pair_maker(tmp_path, "two", ["x.test"], days=2)
    pair_maker(tmp_path, "zero", ["x.test"])
    store = CertificateStore(tmp_path)
    store.load()
    found = store.find("x.test")
    assert found is not None
    assert found.stem == "two"

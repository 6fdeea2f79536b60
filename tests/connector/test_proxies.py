"""Relays behind an HTTP CONNECT proxy: which proxy, its password, its refusals; through a real small proxy."""

import asyncio
import base64
import contextlib

import pytest

from culvert_connector.dialling import proxy as proxies
from culvert_connector.dialling.proxy import ProxyError, build_connect, of_environment, parse, parse_answer
from culvert_ingress.document import RelayTarget
from culvert_ingress.rules import StatusService

PASSWORD = "p@ss:word"
URL = "http://me:p%40ss%3Aword@127.0.0.1"


class ConnectProxy:
    """Accepts CONNECT with the right password, and passes bytes on; `names` stand for what it can resolve."""

    def __init__(self, names):
        self.names = names
        self.asked = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self.password = ""
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.asked.append(head[0])
            expected = "Proxy-Authorization: Basic " + base64.b64encode(f"me:{self.password}".encode()).decode()
            if self.password and expected not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif b" 200 " in self.answer:
                port = self.names[head[0].split(" ")[1]]
                onward, upstream = await asyncio.open_connection("127.0.0.1", port)
                writer.write(self.answer)
                try:
                    await asyncio.gather(self.pump(reader, upstream), self.pump(onward, writer))
                finally:
                    upstream.transport.abort()
            else:
                writer.write(self.answer)
            await writer.drain()
        writer.close()

    async def pump(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def fails(name, port):
    raise AssertionError(f"{name} was resolved, which is the proxy's to do")


def test_a_session_stands_through_a_proxy_that_alone_can_resolve_the_relays_name(tools):
    async def main():
        names = {}
        async with ConnectProxy(names) as proxy:
            proxy.password = PASSWORD
            found = of_environment({"HTTPS_PROXY": f"{URL}:{proxy.port}"})
            async with tools.world(proxies=found, resolve=fails) as world:
                names["relay.test:7443"] = world.relay.port
                target = RelayTarget(("relay.test:7443",), None, world.certificates.ca)
                world.sessions = 2
                await world.serve(tools.rule(StatusService(204)), relay=target)
                await world.relay.connected(2)
                assert set(proxy.asked) == {"CONNECT relay.test:7443 HTTP/1.1"}

    tools.run(main())


def test_the_configurations_proxy_goes_before_the_environments_and_a_change_moves_the_sessions(tools):
    async def main():
        names = {}
        async with ConnectProxy(names) as first, ConnectProxy(names) as second, ConnectProxy({}) as unused:
            found = of_environment({"HTTPS_PROXY": f"http://127.0.0.1:{unused.port}"})
            async with tools.world(proxies=found, resolve=fails) as world:
                names["relay.test:7443"] = world.relay.port

                def target(proxy):
                    url = f"http://127.0.0.1:{proxy.port}"
                    return RelayTarget(("relay.test:7443",), None, world.certificates.ca, url)

                await world.serve(tools.rule(StatusService(204)), relay=target(first))
                [before] = world.relay.sessions
                await world.serve(tools.rule(StatusService(204)), relay=target(second))
                await tools.until(lambda: before not in world.relay.sessions and second.asked, "the session's move")
                await world.relay.connected(1)
                assert first.asked == second.asked == ["CONNECT relay.test:7443 HTTP/1.1"]
                assert not unused.asked

    tools.run(main())


def test_a_configurations_proxy_that_wants_a_password_says_what_to_do():
    proxy = proxies.of_configuration("http://[::1]:3128").of("relay.test")
    assert str(proxy) == "[::1]:3128"
    with pytest.raises(ProxyError, match="let it know the connectors by their addresses, or set HTTPS_PROXY instead"):
        parse_answer(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", proxy)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403; allow CONNECT"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user and password"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nbytes of its own", "bytes of its own"),
        (b"", "without an answer"),
    ],
)
def test_a_proxy_that_does_not_let_through_is_named_and_its_password_is_not(tools, answer, words, caplog):
    async def main():
        async with ConnectProxy({}) as proxy:
            proxy.answer = answer
            if b" 200 " in answer:
                proxy.names["relay.test:7443"] = proxy.port  # it only has to be one that accepts
            found = of_environment({"https_proxy": f"{URL}:{proxy.port}"})
            async with tools.world(proxies=found, resolve=fails) as world:
                document = world.document(
                    tools.rule(StatusService(204)), relay=RelayTarget(("relay.test:7443",), None, world.certificates.ca)
                )
                world.source.sink.configuration(document)
                await tools.until(lambda: world.connector.report().relay_errors, "a report of the error")
                (error,) = world.connector.report().relay_errors
                assert error.reason == "RelayUnreachable"
                assert words in error.message
                assert f"127.0.0.1:{proxy.port}" in error.message
        for secret in ("p@ss", "p%40ss", base64.b64encode(f"me:{PASSWORD}".encode()).decode()):
            assert secret not in caplog.text
            assert secret not in repr(found)

    tools.run(main())


def test_which_names_go_through_the_proxy():
    found = of_environment({"HTTPS_PROXY": "proxy:8080", "NO_PROXY": ".svc, relay.example.com,10.0.0.0/8 ,::1"})
    assert str(found.of("relay.example.org")) == "proxy:8080"
    for direct in ("relay.example.com", "RELAY.example.com.", "a.relay.example.com", "x.svc", "10.1.2.3", "::1"):
        assert found.of(direct) is None, direct
    for proxied in ("evilrelay.example.com", "xsvc", "11.0.0.1", "::2"):
        assert found.of(proxied) is not None, proxied
    assert of_environment({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}).of("c").host == "a"
    assert of_environment({"HTTPS_PROXY": "http://a:1", "no_proxy": "*"}).of("c") is None
    assert of_environment({}).of("c") is None


@pytest.mark.parametrize("url", ["https://proxy:1", "socks5://proxy:1", "http://", "http://proxy:99999", "http://[::1"])
def test_what_is_no_http_proxy_is_refused_without_repeating_it(url):
    with pytest.raises(ProxyError, match="write http://host:port") as caught:
        parse(url.replace("//", "//user:secret@"))
    assert "secret" not in str(caught.value)


def test_the_bytes_of_connect():
    assert build_connect(parse("http://u:p@[::1]:3128"), "relay.example.com:443") == (
        b"CONNECT relay.example.com:443 HTTP/1.1\r\nHost: relay.example.com:443\r\n"
        b"Proxy-Authorization: Basic dTpw\r\n\r\n"
    )
    proxy = parse("proxy")
    assert parse_answer(b"HTTP/1.0 200 OK\r\nVia: x\r\n", proxy) == 0
    assert parse_answer(b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\nmore", proxy) == 27
    with pytest.raises(ProxyError, match="without an end"):
        parse_answer(b"HTTP/1.1 200 OK\r\n" + b"x" * proxies.MAX_ANSWER, proxy)

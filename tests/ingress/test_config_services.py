"""The `service` of a rule: every form, and a sentence for every mistake."""

from __future__ import annotations

import pytest

from culvert_ingress.config_services import ServiceError, describe_service, parse_service
from culvert_ingress.rules import (
    HelloWorldService,
    HTTPService,
    Service,
    StatusService,
    TCPService,
    UnavailableService,
    UnixService,
)


@pytest.mark.parametrize(
    ("text", "service", "described"),
    [
        ("http://localhost:3000", HTTPService("http", "localhost", 3000), "http://localhost:3000"),
        ("HTTP://LocalHost:3000", HTTPService("http", "localhost", 3000), "http://localhost:3000"),
        ("http://web", HTTPService("http", "web", 80), "http://web:80"),
        ("https://10.0.0.1", HTTPService("https", "10.0.0.1", 443), "https://10.0.0.1:443"),
        ("https://[::1]:8443", HTTPService("https", "::1", 8443), "https://[::1]:8443"),
        ("ws://my_app:81", HTTPService("http", "my_app", 81), "http://my_app:81"),
        ("wss://web", HTTPService("https", "web", 443), "https://web:443"),
        ("unix:/run/app.sock", UnixService("/run/app.sock"), "unix:/run/app.sock"),
        ("unix:///run/app.sock", UnixService("/run/app.sock"), "unix:/run/app.sock"),
        ("unix:app.sock", UnixService("app.sock"), "unix:app.sock"),
        ("unix+tls:/run/app.sock", UnixService("/run/app.sock", True), "unix+tls:/run/app.sock"),
        ("tcp://db:5432", TCPService("tcp", "db", 5432), "tcp://db:5432"),
        ("SSH://localhost", TCPService("ssh", "localhost", 22), "ssh://localhost:22"),
        ("rdp://[::1]", TCPService("rdp", "::1", 3389), "rdp://[::1]:3389"),
        ("smb://nas", TCPService("smb", "nas", 445), "smb://nas:445"),
        ("tls://db.internal", TCPService("tls", "db.internal", 443), "tls://db.internal:443"),
        ("http_status:404", StatusService(404), "http_status:404"),
        ("hello_world", HelloWorldService(), "hello_world"),
        ("hello-world", HelloWorldService(), "hello_world"),
    ],
)
def test_every_form_of_a_service_is_read_and_described(text: str, service: Service, described: str) -> None:
    assert parse_service(text) == service
    assert describe_service(service) == described
    assert parse_service(described) == service


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "write a service such as http://localhost:3000"),
        ("http://local host", "write a service such as"),
        ("localhost:3000", "has no scheme; write http://localhost:3000"),
        ("localhost", "has no scheme; services start with"),
        ("htp://localhost", "unknown scheme 'htp'"),
        ("file:///etc/passwd", "unknown scheme 'file'"),
        ("://localhost", "unknown scheme ''"),
        ("tcp://localhost", "names no port; write one such as tcp://localhost:5432"),
        ("tcp://:22", "names no host"),
        ("ssh://me@localhost:22", "user names"),
        ("tls://db.internal:5432/x", "has a path"),
        ("bastion", "Jump hosts are not supported yet"),
        ("socks-proxy", "SOCKS proxies are not supported yet"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("http://localhost:0", "no port from 1 to 65535"),
        ("http://localhost:", "no port from 1 to 65535"),
        ("http://localhost:99999", "no port from 1 to 65535"),
        ("http://localhost:http", "no port from 1 to 65535"),
        ("http://::1:80", "names no host|no port"),
        ("http://localhost:80/", "has a path; .*write 'http://localhost:80'"),
        ("http://localhost/base/x", "has a path; .*write 'http://localhost'"),
        ("http://localhost?x=1", "has a query; .*write 'http://localhost'"),
        ("http://localhost#x", "has a fragment; .*write 'http://localhost'"),
        ("http://localhost\\x", "has a backslash; .*write 'http://localhost'"),
        ("http://0x7f.1:80", "is not an IP address in its usual form"),
        ("http://169.254.43518", "is not an IP address in its usual form"),
        ("unix:", "write unix:/run/app.sock"),
        ("unix://run/app.sock", "starts with two slashes; write unix:/run/app.sock"),
        ("unix:/" + "a" * 107, "longer than 107 bytes"),
        ("http_status:", "write a service such as http_status:404"),
        ("http_status:99", "is not a status from 200 to 599"),
        ("http_status:101", "is not a status from 200 to 599"),
        ("http_status:4o4", "is not a status"),
        ("http_status:٤٠٤", "is not a status"),
    ],
)
def test_a_mistake_in_a_service_is_a_sentence_that_says_what_to_write(text: str, sentence: str) -> None:
    with pytest.raises(ServiceError, match=sentence) as refusal:
        parse_service(text)
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    "text", ["http://admin:hunter2@localhost", "http://admin:hun/ter2@localhost", "ftp://x:hunter2@y"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ServiceError, match="has an '@' in its URL") as refusal:
        parse_service(text)
    assert "hun" not in str(refusal.value)


def test_an_unavailable_service_says_why() -> None:
    assert describe_service(UnavailableService("no such Service")) == "unavailable (503): no such Service"

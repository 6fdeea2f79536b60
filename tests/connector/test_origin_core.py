"""The pure parts under the origins: which connection, which address, which bytes, which target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_connector.origins import request
from culvert_connector.origins.addresses import ANY, CLUSTER, AddressRefused, allowed, refusal
from culvert_connector.origins.pool import IdlePool
from culvert_connector.origins.targets import AnswerTarget, OriginTarget, compile_rule
from culvert_connector.origins.tls import Contexts, OriginCAError, TLSSettings
from culvert_http1.request import parse_request_head
from culvert_ingress.rules import HTTPService, OriginRequest, Rule, StatusService, UnavailableService, UnixService
from culvert_protocol.heads import Framing, Kind, Open

# -- the pool --------------------------------------------------------------------------------------------------------


def test_the_newest_connection_of_a_key_is_taken_first():
    pool = IdlePool()
    for connection in "abc":
        pool.give("k", connection, now=0.0)
    assert [pool.take("k") for _ in range(4)] == ["c", "b", "a", None]
    assert pool.take("other") is None


def test_the_oldest_leaves_when_a_key_or_the_whole_pool_is_full():
    pool = IdlePool(total=3)
    assert pool.give("k", "a", now=0, per_key=2) is None
    assert pool.give("k", "b", now=0, per_key=2) is None
    assert pool.give("k", "c", now=0, per_key=2) == "a"
    assert pool.give("l", "d", now=0, per_key=2) is None
    assert pool.give("m", "e", now=0, per_key=2) == "b"
    assert len(pool) == 3


def test_connections_age_out_and_can_be_forgotten():
    pool = IdlePool(idle_timeout=10)
    pool.give("k", "a", now=0)
    pool.give("l", "b", now=5)
    assert pool.expire(now=9.9) == []
    assert pool.expire(now=10) == ["a"]
    pool.remove("b")
    pool.remove("b")
    assert len(pool) == 0
    pool.give("k", "c", now=20)
    assert pool.clear() == ["c"]
    assert pool.take("k") is None


@given(st.lists(st.tuples(st.sampled_from("gtre"), st.sampled_from("xyz"), st.integers(0, 20))))
def test_a_connection_is_in_the_pool_once_or_not_at_all(steps):
    pool: IdlePool[int] = IdlePool(total=5, idle_timeout=7)
    held: dict[int, str] = {}
    fresh = iter(range(10_000))
    for now, (step, key, number) in enumerate(steps):
        if step == "g":
            connection = next(fresh)
            evicted = pool.give(key, connection, now=now, per_key=3)
            held[connection] = key
            if evicted is not None:
                del held[evicted]
        elif step == "t":
            taken = pool.take(key)
            assert (taken is None) == (key not in held.values())
            if taken is not None:
                assert held.pop(taken) == key
        elif step == "r":
            pool.remove(number)
            held.pop(number, None)
        else:
            for old in pool.expire(now=now):
                del held[old]
        assert len(pool) == len(held) <= 5


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "not an address",
    ],
)
def test_d18_what_a_cluster_rule_may_never_reach(address):
    assert refusal(address, policy=CLUSTER) is not None
    with pytest.raises(AddressRefused, match="not allowed"):
        allowed([address], policy=CLUSTER, host="web")


@pytest.mark.parametrize(
    "address",
    [
        "10.96.0.10",
        "172.16.3.4",
        "192.168.1.1",
        "8.8.8.8",
        "100.64.0.1",
        "fd12:3456::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
    ],
)
def test_what_a_cluster_rule_may_reach(address):
    assert refusal(address, policy=CLUSTER) is None


def test_a_name_with_one_good_address_is_dialled_there_only():
    assert allowed(["127.0.0.1", "10.0.0.1", "::1"], policy=CLUSTER, host="web") == ["10.0.0.1"]
    assert allowed(["127.0.0.1"], policy=ANY, host="localhost") == ["127.0.0.1"]
    with pytest.raises(AddressRefused):
        allowed([], policy=CLUSTER, host="web")


# -- request heads ---------------------------------------------------------------------------------------------------


def opened(**changes):
    good = {"method": b"GET", "host": b"a.test", "authority": b"A.test:8080", "target": b"/x?y"}
    return Open(**{**good, "fields": b"Accept: z\r\n", **changes})


GOOD = opened()


def test_heads_as_the_origin_gets_them():
    assert request.encode(GOOD, host=None) == b"GET /x?y HTTP/1.1\r\nHost: A.test:8080\r\nAccept: z\r\n\r\n"
    assert b"\r\nHost: other\r\n" in request.encode(GOOD, host=b"other")
    length = opened(framing=Framing.LENGTH, content_length=7)
    assert b"\r\nContent-Length: 7\r\n\r\n" in request.encode(length, host=None)
    chunked = opened(framing=Framing.CHUNKED)
    assert b"\r\nTransfer-Encoding: chunked\r\n\r\n" in request.encode(chunked, host=None)
    upgrade = request.encode(opened(kind=Kind.UPGRADE), host=None)
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in upgrade


TEXT = st.binary(max_size=20) | st.sampled_from(
    [b"GET", b"/", b"/a b", b"a.test", b"A: b\r\n", b"Host: x\r\n", b"A: b\r\n\r\n", b"\r\nX: y", b"A:\x00\r\n"]
)


@given(method=TEXT, target=TEXT, authority=TEXT, fields=TEXT)
def test_what_passes_is_exactly_one_request(method, target, authority, fields):
    head = Open(method=method, target=target, authority=authority, fields=fields)
    if request.problem(head) is not None:
        return
    data = request.encode(head, host=None)
    assert data.count(b"\r\n\r\n") == 1
    assert data.endswith(b"\r\n\r\n")
    lines = data[:-4].split(b"\r\n")
    assert lines[0] == method + b" " + target + b" HTTP/1.1"
    assert lines[0].count(b" ") == 2
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert names.count(b"host") == 1
    assert not set(names) & {b"content-length", b"transfer-encoding", b"connection"}


def test_a_common_request_is_read_back_by_a_strict_parser():
    assert request.problem(GOOD) is None
    parsed = parse_request_head(request.encode(GOOD, host=None))
    assert (parsed.method, parsed.target, parsed.host) == (b"GET", b"/x?y", b"a.test")


def test_expectations_are_seen_only_when_a_body_comes():
    fields = b"A: b\r\nexpect:  100-Continue\r\n"
    assert request.expects_continue(opened(fields=fields, framing=Framing.CHUNKED))
    assert not request.expects_continue(opened(fields=fields))
    other = b"X-Expect: 100-continue\r\n"
    assert not request.expects_continue(opened(fields=other, framing=Framing.CHUNKED))


# -- targets ---------------------------------------------------------------------------------------------------------


def compiled(service, **options):
    rule = Rule("r", "a.test", None, service, OriginRequest(**options))
    return compile_rule(rule, policy=CLUSTER, hello_world=b"hi")


def test_connections_are_shared_only_between_rules_that_mean_the_same_connection():
    web = HTTPService("https", "web", 443)
    base = compiled(web)
    assert isinstance(base, OriginTarget)
    assert compiled(web, http_host_header="other").key == base.key
    for other in (
        compiled(web, no_tls_verify=True),
        compiled(web, origin_server_name="x"),
        compiled(web, ca="PEM"),
        compiled(HTTPService("http", "web", 443)),
        compiled(HTTPService("https", "web", 444)),
        compiled(HTTPService("https", "web2", 443)),
        compiled(UnixService("/web")),
    ):
        assert other.key != base.key
    assert base.key.tls == TLSSettings("web", True, None)
    assert compiled(UnixService("/s", tls=True)).key.tls.server_name == "localhost"


def test_what_the_connector_answers_itself():
    gone = compiled(StatusService(410))
    assert isinstance(gone, AnswerTarget)
    assert b"Culvert-Error: connector; http_status\r\n" in gone.fields
    assert compiled(StatusService(204)).body == b""
    away = compiled(UnavailableService("Service 'web' does not exist."))
    assert (away.status, away.body) == (503, b"503 Service 'web' does not exist.\n")


def test_tls_contexts_are_shared_and_a_bad_ca_is_a_sentence():
    contexts = Contexts()
    one, two = TLSSettings("a", True, None), TLSSettings("b", True, None)
    assert contexts.get(one) is contexts.get(two)
    assert contexts.get(TLSSettings("a", False, None)) is not contexts.get(one)
    assert contexts.get(TLSSettings("a", False, None)).verify_mode == 0
    assert contexts.get(one).check_hostname
    with pytest.raises(OriginCAError, match="no readable PEM"):
        contexts.get(TLSSettings("a", True, "nonsense"))

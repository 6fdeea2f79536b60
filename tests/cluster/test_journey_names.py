"""Hostnames on a real node: renamed, deleted, claimed twice, and in front of a Service that is not there yet."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .installation import Installation


@contextmanager
def every_version(installation: Installation, kind: str, name: str) -> Iterator[list[Any]]:
    """All versions that an object has during a block, as a watch tells them; the list is full after the block."""
    command = installation.cluster.kubectl_command("get", kind, name, f"--namespace={installation.system}")
    seen: list[Any] = []
    watch = subprocess.Popen([*command, "--watch", "--output=json"], stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    try:
        decoder, text = json.JSONDecoder(), ""
        while not seen:  # the present one comes first: from here on nothing is missed
            text += watch.stdout.readline()
            try:
                found, end = decoder.raw_decode(text)
            except ValueError:
                continue
            seen.append(found)
            text = text[end:].lstrip()
        yield seen
        # A last version that is known to be ours tells that all before it have arrived.
        mark = f"seen-{time.monotonic_ns()}"
        where = f"--namespace={installation.system}"
        installation.kubectl("annotate", kind, name, where, "--overwrite", f"tests/{mark}=yes")
        while f"tests/{mark}" not in seen[-1]["metadata"].get("annotations", {}):
            line = watch.stdout.readline()
            assert line, "the watch ended"
            text += line
            try:
                found, end = decoder.raw_decode(text)
            except ValueError:
                continue
            seen.append(found)
            text = text[end:].lstrip()
        installation.kubectl("annotate", kind, name, where, f"tests/{mark}-")
    finally:
        watch.kill()
        watch.communicate()


def test_a_renamed_hostname_goes_live_and_leaves_nothing_of_the_old_one(installation: Installation) -> None:
    old, new = f"old.{installation.zone}", f"new.{installation.zone}"
    with installation.bound(installation.binding("renamed", old)):
        installation.wait_ready("tunnelbinding/renamed", "shop")
        installation.served(old)
        installation.until(lambda: installation.published(old))
        neighbour = installation.get("tunnelbinding", "first", "shop")
        connectors = installation.lives("connector")
        with installation.watching(lambda: installation.visit(installation.first)) as others:
            installation.apply(installation.binding("renamed", new))
            installation.served(new)
            installation.until(lambda: installation.visit(old).status in (404, 503))
            installation.until(lambda: installation.published(new))
            installation.until(lambda: installation.resolve(old)[0] == "NXDOMAIN")
        installation.wait_ready("tunnelbinding/renamed", "shop")
        assert old not in installation.zone_text()
        assert installation.claims().keys() == {installation.first, new}
        records = installation.get("tunnelbinding", "renamed", "shop")["status"]["publishedRecords"]
        assert [record["name"] for record in records] == [new]
        assert {rule["hostname"] for rule in installation.document()["rules"]} == {installation.first, new}
        # The other binding saw nothing of it.
        assert [answer for answer in others.seen if answer.status != 200] == []
        assert installation.get("tunnelbinding", "first", "shop") == neighbour
        assert installation.lives("connector") == connectors


def test_deletion_withdraws_the_record_then_the_route_then_the_object(installation: Installation) -> None:
    host = f"gone.{installation.zone}"
    with installation.bound(installation.binding("gone", host)):
        installation.wait_ready("tunnelbinding/gone", "shop")
        installation.served(host)
        installation.until(lambda: installation.published(host))
        since = installation.at_rest()
        installation.kubectl("delete", "tunnelbinding", "gone", "--namespace=shop", "--timeout=120s")
        # The object is gone only when the rest is.
        assert host not in installation.zone_text()
        assert {rule["hostname"] for rule in installation.document()["rules"]} == {installation.first}
        installation.until(lambda: installation.claims().keys() == {installation.first})
    installation.until(lambda: installation.visit(host).status in (404, 503))
    assert installation.visit(host).fields["Culvert-Error"]
    installation.until(lambda: installation.resolve(host)[0] == "NXDOMAIN")
    steps = [
        uri.partition("?")[0].rpartition("/")[2]
        for user, _, uri in installation.writes(since)
        if user == "culvert-operator" and "/events" not in uri
    ]
    record, route, object_ = steps.index("demo-zone"), steps.index("main-config"), len(steps) - 1
    while steps[object_] != "gone":
        object_ -= 1
    assert record < route < object_, steps
    assert installation.visit(installation.first).status == 200


def test_the_second_namespace_takes_a_hostname_over_without_a_gap_in_dns(
    installation: Installation, record_property: Any
) -> None:
    host = f"both.{installation.zone}"
    first = installation.binding("mine", host.upper())
    second = installation.binding("also-mine", f"Both.{installation.zone.title()}", team="blog")
    with installation.bound(first), installation.bound(second):
        installation.wait_ready("tunnelbinding/mine", "shop")
        installation.served(host)
        installation.until(lambda: installation.published(host))

        def loses() -> bool:
            state = installation.condition("tunnelbinding", "also-mine", "blog", "Accepted")
            return state[:2] == ("False", "HostnameConflict")

        installation.until(loses)
        loser = installation.get("tunnelbinding", "also-mine", "blog")
        assert "shop" not in json.dumps(loser["status"])
        events = installation.cluster.get("events", "--namespace=blog")["items"]
        assert "shop" not in json.dumps([event for event in events if event["involvedObject"]["name"] == "also-mine"])
        assert loser["status"]["rules"][0]["accepted"] is False
        assert installation.claims()[host] == "shop"
        answers = [installation.visit(host) for _ in range(20)]
        assert [answer for answer in answers if answer.status != 200] == []
        assert {json.loads(answer.body)["pod"] for answer in answers} == installation.application("shop")

        with (
            every_version(installation, "configmap", "demo-zone") as zones,
            installation.watching(lambda: installation.resolve(host)) as resolved,
        ):
            started = time.monotonic()
            where = ("--namespace=shop", "--wait=false")
            installation.kubectl("delete", "tunnelbinding", "mine", *where)

            def taken() -> bool:
                answer = installation.visit(host)
                return answer.status == 200 and json.loads(answer.body)["pod"] in installation.application("blog")

            installation.until(taken)
            record_property(
                "takeover of a hostname", f"{time.monotonic() - started:.2f} s from kubectl delete to the first 200"
            )
            installation.wait_ready("tunnelbinding/also-mine", "blog")
            installation.until(lambda: installation.get("tunnelbinding", "mine", "shop") is None)
            assert installation.claims()[host] == "blog"
            installation.until(
                lambda: "tunnelbinding/blog/" in "".join(installation.resolve(f"cname._culvert.{host}", kind="TXT")[1])
            )
        texts = [zone["data"][f"{installation.zone}.zone"] for zone in zones]
        assert len(texts) > 1
        for text in texts:
            assert f"{host}.\t5\tIN\tCNAME\trelay.{installation.zone}.\n" in text
        assert "tunnelbinding/shop/mine" not in texts[-1]
        # What a resolver saw in the meantime; a lost datagram ("") tells nothing.
        assert set(map(str, resolved.seen)) - {str(("", []))} == {str(("NOERROR", [f"relay.{installation.zone}."]))}


def test_a_missing_service_answers_503_and_works_once_it_exists(installation: Installation) -> None:
    host = f"early.{installation.zone}"
    connectors = installation.lives("connector")
    with installation.bound(installation.binding("early", host, service="late", port=80)):

        def says() -> str:
            status, reason, message = installation.condition("tunnelbinding", "early", "shop", "ResolvedRefs")
            return message if (status, reason) == ("False", "ServiceNotFound") else ""

        assert "late" in installation.until(says)
        installation.until(lambda: installation.visit(host).status == 503)
        answer = installation.visit(host)
        assert answer.status == 503
        assert answer.fields["Culvert-Error"].startswith("connector;"), answer
        assert installation.condition("tunnelbinding", "early", "shop", "Ready")[0] == "False"
        assert installation.visit(f"nobody.{installation.zone}").fields["Culvert-Error"].startswith("relay;")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "late", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }
        try:
            installation.apply(service)
            installation.served(host)
            installation.wait_ready("tunnelbinding/early", "shop")
            assert installation.condition("tunnelbinding", "early", "shop", "ResolvedRefs")[0] == "True"
            assert installation.lives("connector") == connectors
        finally:
            installation.kubectl("delete", "service", "late", "--namespace=shop")
        # And back: the Service goes, the rule says so, the hostname stays its owner's.
        installation.until(says)
        installation.until(lambda: installation.visit(host).status == 503)
        assert installation.claims()[host] == "shop"

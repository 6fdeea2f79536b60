"""The main job on a real node: helm install, two objects, and a visitor's request arrives."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from .installation import Installation


def row(table: str) -> dict[str, str]:
    """The first row of a kubectl table by its headings."""
    heading, first = (line.split() for line in table.strip().splitlines()[:2])
    return dict(zip(heading, first, strict=True))


async def talk(url: str, host: str, messages: list[str | bytes]) -> list[Any]:
    """What a WebSocket answers to each message, and the code with which it closes."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.ws_connect(url, headers={"Host": host}) as socket,
    ):
        answers: list[Any] = []
        for message in messages:
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)
            answers.append((await socket.receive()).data)
        await socket.close(code=1000)
        return [*answers, socket.close_code]


def test_two_objects_become_ready_and_a_visitor_arrives_over_http(
    installation: Installation, record_property: Any
) -> None:
    record_property(
        "apply of Tunnel and TunnelBinding → Ready, connectors started", f"{installation.first_ready:.1f} s"
    )
    installation.wait_ready("tunnel/main", installation.system)
    installation.wait_ready("tunnelbinding/first", "shop")
    answer = installation.visit(installation.first, "/hello?a=b")
    assert answer.status == 200
    said = json.loads(answer.body)
    assert said["pod"].startswith("web-")
    assert said["path"] == "/hello"
    assert said["headers"]["Host"] == installation.first
    assert said["headers"]["X-Forwarded-Proto"] == "http"
    echoed = installation.visit(installation.first, "/deliver?id=post", method="POST", body=b"x" * 200_000)
    assert (echoed.status, echoed.body) == (200, "post 200000\n")


def test_the_relay_answers_https_with_the_secrets_certificate_by_sni(installation: Installation) -> None:
    answer = installation.visit(installation.first, secure=True)
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)["headers"]["X-Forwarded-Proto"] == "https"
    # The certificate is for the visitors' names only, and a name that it does not cover is not answered with it.
    assert installation.visit("elsewhere.example.org", secure=True).status == 0


def test_a_websocket_is_a_pipe_through_the_relay(installation: Installation) -> None:
    big = bytes(range(256)) * 2048
    url = f"http://127.0.0.1:{installation.http_port}/echo"
    answers = asyncio.run(talk(url, installation.first, ["hello", "grüße", big, b""]))
    assert answers == ["hello", "grüße", big, b"", 1000]


def test_a_host_that_nobody_published_is_not_found(installation: Installation) -> None:
    unknown = installation.visit(f"nobody.{installation.zone}")
    assert unknown.status in (404, 503)
    assert unknown.fields["Culvert-Error"].startswith("relay;")
    assert installation.visit("nobody.example.org").status == 404


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_the_record_is_answered_by_a_real_name_server(installation: Installation, over: str) -> None:
    name, relay = installation.first, f"relay.{installation.zone}."
    installation.until(lambda: installation.resolve(name, over=over) == ("NOERROR", [relay]))
    # As a visitor's resolver asks: the address behind the name.
    code, _ = installation.resolve(name, kind="A", over=over)
    assert code == "NOERROR"
    assert installation.resolve(f"nobody.{installation.zone}", over=over) == ("NXDOMAIN", [])
    owner = installation.resolve(f"cname._culvert.{name}", kind="TXT", over=over)
    assert "external-dns/resource=tunnelbinding/shop/first" in owner[1][0]


def test_kubectl_get_shows_what_people_ask_for(installation: Installation) -> None:
    tunnel = row(installation.kubectl("get", "tunnel", "main", f"--namespace={installation.system}").stdout)
    assert tunnel | {"AGE": ""} == {
        "NAME": "main", "READY": "True", "CONNECTORS": "2/2", "SESSIONS": "8", "BINDINGS": "1", "AGE": "",
    }  # fmt: skip
    binding = row(installation.kubectl("get", "tb", "first", "--namespace=shop", "--output=wide").stdout)
    assert binding | {"AGE": ""} == {
        "NAME": "first", "READY": "True", "HOSTNAMES": installation.first, "TUNNEL": f"{installation.system}/main",
        "AGE": "", "REASON": "Ready",
    }  # fmt: skip
    listed = installation.kubectl("get", "culvert", "--namespace=shop", "--output=name").stdout
    assert "tunnelbinding.culvert.dev/first" in listed.split()
    assert installation.claims() == {installation.first: "shop"}


def test_every_part_shows_the_metrics_that_outsiders_rely_on(installation: Installation) -> None:
    assert installation.visit(installation.first).status == 200
    relay = installation.metrics("relay", 9901)
    assert '\nculvert_relay_sessions{state="serving"} 8.0\n' in relay
    requests = [line for line in relay.splitlines() if line.startswith("culvert_relay_requests_total{")]
    assert any('code_class="2xx",source="none"} ' in line for line in requests)
    connector = installation.metrics("connector", 20241)
    assert '\nculvert_connector_sessions{state="connected"} 4.0\n' in connector
    version = installation.document()["version"]
    shown = next(line for line in connector.splitlines() if line.startswith("culvert_connector_config_version "))
    assert float(shown.split()[1]) == version
    everyone = "".join(installation.metrics("connector", 20241, which=number) for number in range(2))
    assert '\nculvert_connector_requests_total{rule="shop/first/web",code_class="2xx",source="none"} ' in everyone
    operator = installation.metrics("operator", 9902)
    assert '\nculvert_operator_reconcile_total{result="success"} ' in operator
    assert '\nculvert_dns_changes_total{action="create",result="success"} ' in operator
    for text in (relay, connector, operator):
        expiry = next(
            line for line in text.splitlines() if line.startswith("culvert_credential_expiry_timestamp_seconds")
        )
        assert float(expiry.split()[-1]) > time.time() + 3600


def test_a_second_binding_goes_live_on_running_connectors(installation: Installation, record_property: Any) -> None:
    host = f"second.{installation.zone}"
    assert installation.visit(host).status in (404, 503)
    before = installation.lives("connector")
    assert len(before) == 2
    started = time.monotonic()
    with installation.bound(installation.binding("second", host, port=80)):
        waited = installation.served(host)
        record_property(
            "apply → first 200 on a running tunnel",
            f"{waited * 1000:.0f} ms after kubectl returned, {time.monotonic() - started:.2f} s with kubectl itself",
        )
        installation.wait_ready("tunnelbinding/second", "shop")
        record_property("apply → Ready on a running tunnel", f"{time.monotonic() - started:.1f} s")
        assert installation.lives("connector") == before
        assert json.loads(installation.visit(host).body)["headers"]["Host"] == host
        installation.until(lambda: installation.published(host))


def test_every_pod_runs_under_pod_security_restricted(installation: Installation) -> None:
    for namespace in (installation.system, "shop"):
        labels = installation.cluster.get("namespace", namespace)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        pods = installation.cluster.get("pods", f"--namespace={namespace}")["items"]
        # A Pod that is ending, of a test before, may have come to the phase Succeeded.
        phases = {pod["status"]["phase"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        assert phases == {"Running"}
    components = [pod["metadata"]["labels"].get("app.kubernetes.io/component") for pod in installation.pods_of_system()]
    assert {"operator", "relay", "connector"} <= set(components)
    # It is enforced: the same namespace refuses a Pod that is not restricted, and no culvert Pod is exempt.
    careless = {"containers": [{"name": "c", "image": "localhost/coredns:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "careless", "namespace": "shop"}, "spec": careless}
    refused = installation.kubectl("create", "--filename=-", input=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted' in refused.stderr

"""The admin address: probes, metrics, sessions; and files that change meanwhile."""

import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from culvert_protocol.statements import generate_issuer_key


async def fetch(world: Any, path: str) -> Any:
    visitor = await world.visitor(port=world.relay.ports.admin)
    return await visitor.get("admin", path, extra="Connection: close\r\n")


async def samples(world: Any) -> dict[tuple[str, ...], float]:
    text = (await fetch(world, "/metrics")).body.decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_probes(play: Any) -> None:
    async def scenario(world: Any) -> None:
        assert (await fetch(world, "/livez")).status == 200
        assert (await fetch(world, "/readyz")).body == b"ok\n"
        world.relay._leaving = True  # what `drain` sets first, while the doors are still open
        response = await fetch(world, "/readyz")
        assert (response.status, response.body) == (503, b"the relay is shutting down\n")
        assert (await fetch(world, "/livez")).status == 200
        assert (await fetch(world, "/other")).status == 404

    play(scenario)


def test_metrics_count_what_happened(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=lambda request: request.respond(201, b"12345"))
        visitor = await world.visitor()
        for _ in range(3):
            await visitor.get("app.example.com")
        await visitor.get("gone.example.com")
        visitor.send(b"nonsense\r\n\r\n")
        await visitor.response()
        await world.dial(b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n")
        seen = await samples(world)
        assert seen["culvert_relay_sessions", "serving"] == 1
        assert seen["culvert_relay_sessions", "idle"] == 0
        assert seen["culvert_relay_tunnels",] == 1
        assert seen["culvert_relay_hostnames",] == 1
        assert seen["culvert_relay_streams", "demo", "main"] == 0
        assert seen["culvert_relay_requests_total", "demo", "main", "2xx", "none"] == 3
        assert seen["culvert_relay_requests_total", "", "", "5xx", "relay"] == 1
        assert seen["culvert_relay_requests_total", "", "", "4xx", "visitor"] == 1
        assert seen["culvert_relay_sent_bytes_total", "demo", "main"] == 15
        assert seen["culvert_relay_time_to_first_byte_seconds_count", "demo", "main"] == 3
        assert seen["culvert_relay_time_to_first_byte_seconds_bucket", "demo", "main", "+Inf"] == 3
        assert seen["culvert_relay_handshakes_refused_total", "http_404"] == 1
        (session,) = world.relay.tunnels.sessions()
        assert seen["culvert_credential_expiry_timestamp_seconds",] == session.credential.expires_at
        assert ("culvert_relay_certificate_expiry_timestamp_seconds", "shop") in seen
        assert all("app.example.com" not in labels for labels in seen)

    play(scenario)


def test_sessions_are_shown_without_secrets(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com", "*.x.example.com"], version=3)
        response = await fetch(world, "/v1/sessions")
        value = json.loads(response.body)
        assert value["relay"] == "relay-1"
        (session,) = value["sessions"]
        assert (session["tunnel"], session["slot"], session["generation"], session["grantVersion"]) == ("main", 0, 1, 3)
        assert session["usable"] is True
        assert {item["hostname"]: item["tunnel"] for item in value["hostnames"]} == {
            "app.example.com": "main",
            "*.x.example.com": "main",
        }
        (live,) = world.relay.tunnels.sessions()
        assert connector.nonce.encode() not in response.body
        assert b"eyJ" not in response.body
        assert live.credential.key_id.encode() in response.body

    play(scenario)


def test_an_issuers_key_that_is_taken_away_ends_its_sessions(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        successor = generate_issuer_key().public
        file = world.folder / "issuer.pub"
        file.write_bytes(world.issuer.key.public.pem() + successor.pem())
        await world.relay.watch.look()
        assert successor.thumbprint in world.edge.issuers.keys
        assert connector.closed is None
        file.write_text("garbage")
        await world.relay.watch.look()
        assert connector.closed is None
        file.write_bytes(successor.pem())
        await world.relay.watch.look()
        await wait_until(lambda: connector.closed is not None, "the session's end")
        assert "key" in connector.drained

    play(scenario)

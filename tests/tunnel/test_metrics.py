"""`/metrics` of both processes after real traffic: what the reference page lists, and nothing else, in valid text."""

import asyncio
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from culvert_connector import metrics as connector_metrics
from culvert_relay import metrics as relay_metrics
from culvert_transport.instruments import Instrument
from culvert_transport.traffic import ERROR_SOURCES

ROLES = {"relay": relay_metrics.INSTRUMENTS, "connector": connector_metrics.INSTRUMENTS}


@pytest.fixture(scope="module")
def expositions(shared: Any) -> dict[str, str]:
    """The text of both after requests that went well, failed in several ways and were refused."""

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async def scenario() -> dict[str, str]:
        async with shared.raw_origin(answer):
            assert (await shared.get(host="raw.example.com")).status == 200
        assert (await shared.get(host="norule.example.com")).status == 404
        assert (await shared.get(host="refused.example.com")).status == 502
        assert (await shared.get(host="nobody.example.org")).status == 404
        relay, (connector, *_) = shared.relay, shared.connectors
        texts = {}
        for role, process, port in (("relay", relay, relay.admin), ("connector", connector, connector.admin)):
            status, body, fields = await process.fetch(port, "/metrics")
            assert status == 200
            assert fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            texts[role] = body.decode()
        return texts

    return asyncio.run(scenario())


@pytest.mark.parametrize("role", ROLES)
def test_promtool_finds_nothing_wrong(expositions: dict[str, str], role: str, program: Any) -> None:
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=expositions[role], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("role", ROLES)
def test_every_instrument_is_there_with_its_own_labels_and_no_other_one(expositions: dict[str, str], role: str) -> None:
    known: dict[str, Instrument] = {one.name: one for one in ROLES[role]}
    assert len(known) == len(ROLES[role])
    seen = set()
    for family in text_string_to_metric_families(expositions[role]):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        instrument = known[name]
        assert (family.type, family.documentation) == (instrument.kind, instrument.text)
        for sample in family.samples:
            assert tuple(label for label in sample.labels if label != "le") == instrument.labels, name
            assert sample.value >= 0
        seen.add(name)
    assert seen == set(known)


def test_requests_are_counted_at_both_ends_and_both_blame_the_same(expositions: dict[str, str]) -> None:
    blamed: dict[str, dict[tuple[str, str], float]] = {}
    for role, text in expositions.items():
        counts = blamed[role] = {}
        for family in text_string_to_metric_families(text):
            if family.name == f"culvert_{role}_requests":
                for sample in family.samples:
                    key = (sample.labels["code_class"], sample.labels["source"])
                    counts[key] = counts.get(key, 0) + sample.value
    assert {source for counts in blamed.values() for _, source in counts} <= set(ERROR_SOURCES)
    for key in (("2xx", "none"), ("4xx", "connector"), ("5xx", "origin")):
        assert blamed["relay"][key] >= 1
        assert blamed["connector"][key] >= 1
    assert blamed["relay"]["4xx", "visitor"] >= 1
    assert ("4xx", "visitor") not in blamed["connector"]

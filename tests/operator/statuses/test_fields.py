"""Every field of the CRDs' status is written, and nothing that they do not have, which the API server would drop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from culvert_operator.keys import ObjectKey

CRDS = Path(__file__).resolve().parents[3] / "crds"
DNS = {"memory": {}, "zones": ["example.com"], "policy": "sync", "ttl": 300, "target": {"hostname": "r.example.net"}}
MAIN = ObjectKey("culvert-system", "main")


def known(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of a schema's fields."""
    for name, field in node.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from known(field, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from known(node["items"], f"{path}[]")


def written(value: Any, path: str = "") -> Iterator[str]:
    """The paths of what an object has."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}.{name}"
            yield from written(inner, f"{path}.{name}")
    if isinstance(value, list):
        for inner in value:
            yield from written(inner, f"{path}[]")


@pytest.mark.parametrize("crd", ["tunnels", "tunnelbindings"])
def test_status_has_every_field_of_its_schema_and_no_other(simulate: Any, crd: str) -> None:
    schema = yaml.safe_load((CRDS / f"{crd}.yaml").read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    world = simulate()
    world.tunnel(dns=DNS)
    shop = world.binding("shop", "shop", "a.example.com", "b.example.com", "evilexample.com")
    world.dns_failures["b.example.com"] = "the zone cannot be written"
    world.settle()
    stored = world.tunnels[MAIN] if crd == "tunnels" else world.bindings[shop]
    assert set(written(stored["status"])) == set(known(schema["properties"]["status"]))


@pytest.mark.parametrize("crd", ["tunnels", "tunnelbindings"])
def test_every_column_shows_something(simulate: Any, crd: str) -> None:
    columns = yaml.safe_load((CRDS / f"{crd}.yaml").read_text())["spec"]["versions"][0]["additionalPrinterColumns"]
    world = simulate()
    world.tunnel()
    shop = world.binding("shop", "shop", "a.example.com")
    world.settle()
    stored = world.tunnels[MAIN] if crd == "tunnels" else world.bindings[shop]
    shown = {column["name"]: _at(stored, column["jsonPath"]) for column in columns}
    assert all(value not in (None, "", [], {}) for value in shown.values()), shown
    assert not [name for name, value in shown.items() if isinstance(value, dict | list)], "kubectl shows these as JSON"


def _at(item: Any, path: str) -> Any:
    """The value at a printer column's path, of the two forms that the CRDs use besides plain names."""
    for step in path.removeprefix(".").replace('[?(@.type=="Ready")]', ".?Ready").replace("[0]", ".0").split("."):
        if step == "?Ready":
            item = next((one for one in item if one["type"] == "Ready"), {})
        elif isinstance(item, list):
            item = item[int(step)]
        else:
            item = item.get(step)
    return item

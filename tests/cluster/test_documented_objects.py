"""README and docs: every object of culvert's that they show is one that the API server takes as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))


def shown() -> list[tuple[str, str]]:
    """(page and line, YAML) of every block that holds an object of culvert's."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if "apiVersion: culvert.dev/" in block[1]:
                line = text.count("\n", 0, block.start()) + 1
                found.append((f"{page.relative_to(REPOSITORY)}:{line}", block[1]))
    return found


SHOWN = shown()


def test_the_first_pages_show_a_tunnel_and_a_binding() -> None:
    kinds = [o["kind"] for where, text in SHOWN if where.startswith("README") for o in yaml.safe_load_all(text)]
    assert {"Tunnel", "TunnelBinding"} <= set(kinds)


@pytest.mark.parametrize(("where", "text"), SHOWN, ids=[where for where, _ in SHOWN])
def test_the_api_server_takes_it(cluster: Any, where: str, text: str) -> None:
    objects = list(yaml.safe_load_all(text))
    for namespace in {o["metadata"]["namespace"] for o in objects}:
        cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", input=text)

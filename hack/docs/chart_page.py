"""docs/chart.md: every value of the chart, out of the comments of its values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VALUES = Path(__file__).resolve().parents[2] / "charts" / "culvert" / "values.yaml"
_KEY = re.compile(r"(?P<indent> *)(?P<name>[A-Za-z]+):")
_SAID = re.compile(r" *# -- (?P<text>.+)")


def rows() -> Iterator[tuple[str, Any, str]]:
    """Each value's path, default and meaning; raises ValueError for a value that has no `# --` line above it."""
    values = yaml.safe_load(VALUES.read_text())
    path: list[str] = []
    said = ""
    inside = ""  # of a described value, whose own keys are an example of what it holds
    for line in VALUES.read_text().splitlines():
        if comment := _SAID.fullmatch(line):
            said = comment["text"]
        elif key := _KEY.match(line):
            path[len(key["indent"]) // 2 :] = [key["name"]]
            full = ".".join(path)
            if inside and full.startswith(inside + "."):
                continue
            default = values
            for name in path:
                default = default[name]
            if said:
                inside = full
                yield full, default, said
            elif not isinstance(default, dict) or not default:
                raise ValueError(f"{full} has no comment that begins with '# --' in {VALUES.name}.")
            said = ""


def page(command: str) -> str:
    """docs/chart.md."""
    lines = [
        "# The Helm chart's values",
        "",
        f"<!-- Made from charts/culvert/values.yaml by `{command}`. -->",
        "",
        "`helm install culvert charts/culvert -n culvert-system --create-namespace --set KEY=VALUE`. A key that is not "
        "here, or a value out of range, is refused by name.",
        "",
        "A cluster has one release: its ClusterRoles, admission policies and CustomResourceDefinitions have fixed "
        "names, and HostnameClaims are one operator's. Helm refuses a second release before it makes anything. "
        "`operator.watchNamespaces` narrows what the one may read; it does not make room for another.",
        "",
        "Kubernetes 1.31 or newer: the schemas use `isIP` and `isCIDR`, which older API servers refuse in new rules. "
        "Tests run on the version that `hack/cluster` builds, 1.37; none in between has been tried.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{key}` | `{json.dumps(default)}` | {text} |" for key, default, text in rows()]
    lines += [
        "",
        "Without the Prometheus operator, `charts/culvert/alerts.yaml` is a rule file for Prometheus itself.",
    ]
    return "\n".join(lines) + "\n"

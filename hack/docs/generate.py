#!/usr/bin/env python3
"""Writes the reference pages: docs/crd.md from crds/, docs/troubleshooting.md from the operator's table of reasons,
docs/metrics.md from the roles' metrics, docs/errors.md from the table of `Culvert-Error`, docs/chart.md from the
chart's values.

    python hack/docs/generate.py           write them
    python hack/docs/generate.py --check   exit 1, naming the files, when they are not what would be written

What they say is said once, in the schema and in the tables. Needs culvert's own environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart_page
import metrics_page
import yaml

from culvert_operator.conditions.reasons import troubleshooting
from culvert_protocol.attribution import reference

ROOT = Path(__file__).resolve().parent.parent.parent
ORDER = ("tunnels", "tunnelbindings", "hostnameclaims")
COMMAND = "python hack/docs/generate.py"


def kind_of_value(node: dict[str, Any]) -> str:
    """The type of a field as a person would say it."""
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        items = node["items"]
        return f"list of {_plural(items)}"
    if "additionalProperties" in node:
        return f"map of {_plural(node['additionalProperties'])}"
    return str(node.get("type", "object"))


def _plural(node: dict[str, Any]) -> str:
    return " or ".join(f"{word}s" for word in kind_of_value(node).split(" or "))


def limits(node: dict[str, Any]) -> list[str]:
    """The bounds of a field, and its default."""
    found = []
    if "minimum" in node or "maximum" in node:
        found.append(f"{node.get('minimum', '…')} to {node.get('maximum', '…')}")
    if "maxLength" in node and node.get("type") == "string" and "enum" not in node:
        found.append(f"at most {node['maxLength']} characters")
    if "maxItems" in node:
        found.append(f"{node.get('minItems', 0)} to {node['maxItems']} items")
    if "maxProperties" in node:
        found.append(f"at most {node['maxProperties']} entries")
    if "default" in node and node["default"] != {} and not isinstance(node["default"], dict):
        found.append(f"default `{json.dumps(node['default'])}`")
    return found


def rows(path: str, node: dict[str, Any], *, required: bool) -> Iterator[str]:
    """The table rows of a field and of everything below it."""
    if path:
        notes = [*(["**required**"] if required else []), *limits(node)]
        said = " ".join(part for part in (_text(node.get("description", "")), _refusals(node)) if part)
        yield f"| `{path}` | {kind_of_value(node)} | {', '.join(notes)} | {said} |"
    inner, below = (node["items"], f"{path}[]") if isinstance(node.get("items"), dict) else (node, path)
    for name, field in inner.get("properties", {}).items():
        child = f"{below}.{name}" if below else name
        yield from rows(child, field, required=name in inner.get("required", ()))


def _refusals(node: dict[str, Any]) -> str:
    """What the API server says when it refuses the field or one of its items, word by word."""
    said = [
        rule["message"] for part in (node, node.get("items", {})) for rule in part.get("x-kubernetes-validations", ())
    ]
    return " ".join(f"*{_text(message)}*." for message in dict.fromkeys(said))


def _text(text: str) -> str:
    """As the text of a table's cell."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ").strip()


def page() -> str:
    """docs/crd.md."""
    lines = [
        "# The Kubernetes API: `culvert.dev/v1alpha1`",
        "",
        f"<!-- Made from crds/ by `{COMMAND}`. -->",
        "",
        "What the API server refuses it refuses with the words in italics. Fields of `status` are written by the "
        "operator only; what conditions mean is on the [troubleshooting page](troubleshooting.md).",
    ]
    for file in ORDER:
        crd = yaml.safe_load((ROOT / "crds" / f"{file}.yaml").read_text())["spec"]
        version = crd["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        names = crd["names"]
        lines += [
            "",
            f"## {names['kind']}",
            "",
            _text(schema["description"]),
            "",
            f"{crd['scope']} scope; `kubectl get {names['shortNames'][0]}`. {_refusals(schema)}".strip(),
        ]
        for part in ("spec", "status"):
            node = schema["properties"].get(part)
            if node is not None:
                lines += [
                    "",
                    f"### {names['kind']} `{part}`",
                    "",
                    *([said, ""] if (said := _refusals(node)) else []),
                    "| field | type | limits | meaning |",
                    "|---|---|---|---|",
                ]
                lines += rows("", node, required=True)
    return "\n".join(lines) + "\n"


PAGES = {
    "docs/crd.md": page,
    "docs/troubleshooting.md": troubleshooting,
    "docs/metrics.md": lambda: metrics_page.page(COMMAND),
    "docs/errors.md": reference,
    "docs/chart.md": lambda: chart_page.page(COMMAND),
}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description="Write the generated reference pages.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is not fresh")
    check = parser.parse_args(arguments).check
    stale = []
    for name, make in PAGES.items():
        file, text = ROOT / name, make()
        if check:
            if not file.exists() or file.read_text() != text:
                stale.append(name)
        else:
            file.write_text(text)
    if stale:
        print(f"Not fresh: {', '.join(stale)}. Run: {COMMAND}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

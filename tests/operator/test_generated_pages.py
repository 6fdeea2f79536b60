"""The generated reference pages are what their sources say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


def test_generated_pages_are_fresh() -> None:
    program = ROOT / "hack" / "docs" / "generate.py"
    done = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_page_of_the_api_has_the_words_of_every_refusal_as_the_api_server_says_them() -> None:
    def messages(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
            for name, inner in node.items():
                yield from messages(inner) if name != "x-kubernetes-validations" else ()
        elif isinstance(node, list):
            for inner in node:
                yield from messages(inner)

    page = (ROOT / "docs" / "crd.md").read_text().replace("\\*", "*").replace("\\|", "|")
    said = {m for file in (ROOT / "crds").glob("*.yaml") for m in messages(yaml.safe_load(file.read_text()))}
    assert len(said) > 50
    assert {message for message in said if f"*{message}*." not in page} == set()

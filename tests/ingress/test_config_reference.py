"""docs/config.md is what the table says."""

from __future__ import annotations

from pathlib import Path

from culvert_ingress.config_file import load
from culvert_ingress.config_keys import TABLES
from culvert_ingress.config_reference import render

DOCUMENT = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_document_is_fresh() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), (
        "run: python -m culvert_ingress.config_reference > docs/config.md"
    )


def test_every_key_has_a_row() -> None:
    text = render()
    assert all(f"| `{name}` | {key.text} |" in text for table in TABLES.values() for name, key in table.items())


def test_the_example_in_the_document_is_valid() -> None:
    example = render().split("```yaml\n", 1)[1].split("```", 1)[0]
    assert len(load(example).rules) == 3

"""YAML, strictly: YAML 1.2's values, no duplicate keys, no expansion without end, and the line in every sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress import yaml_text
from culvert_ingress.yaml_text import YamlErrors, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: true\nb: False", {"a": True, "b": False}),
        ("a: yes\nb: no\nc: on", {"a": "yes", "b": "no", "c": "on"}),
        ("a: 1:30\nb: 2024-01-01", {"a": "1:30", "b": "2024-01-01"}),
        ("a: ~\nb:\nc: null", {"a": None, "b": None, "c": None}),
        ("a: 1.5\nb: 0x10\nc: 0o17\nd: 1e3\ne: -.5", {"a": 1.5, "b": 16, "c": 15, "d": 1000.0, "e": -0.5}),
        ("a: -.INF\nb: .5", {"a": -math.inf, "b": 0.5}),
        ("a: '1'\nb: \"true\"\nc: !!str 1", {"a": "1", "b": "true", "c": "1"}),
        ("- a\n- [b, {c: d}]", ["a", ["b", {"c": "d"}]]),
        ("80: x", {"80": "x"}),
        ("", None),
        ("# only a comment", None),
        ("\ufeffa: b", {"a": "b"}),
        (
            "x: &x {a: 1, b: 2}\ny: *x\nz: {<<: *x, b: 3}",
            {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3}},
        ),
        ("z: {<<: [{a: 1}, {a: 2, b: 2}]}", {"z": {"a": 1, "b": 2}}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "a: 1\nb: 2\na: 3\nb: 4",
            [
                "Line 3: the key 'a' stands twice; keep one of them.",
                "Line 4: the key 'b' stands twice; keep one of them.",
            ],
        ),
        ("a:\n  b: 1\n  b: 2", ["Line 3: the key 'b' stands twice; keep one of them."]),
        ("a: 1\n---\nb: 2", ["Line 2: a second document starts here; keep one and remove the '---'."]),
        ("a: &x [*x]", ["Line 1: *x contains itself; write the value out."]),
        ("a: *x", ["Line 1: *x has no anchor above it; define &x first."]),
        (
            "a: !!python/object:os.system x",
            [
                "Line 1: the tag 'tag:yaml.org,2002:python/object:os.system' is not supported; "
                "write the value without it."
            ],
        ),
        ("a: !secret {b: 1}", ["Line 1: the tag '!secret' is not supported; write the value without it."]),
        ("a: {<<: 1}", ["Line 1: '<<' takes keys from another mapping; give it an alias of one."]),
        ("? [a]\n: b", ["Line 1: a list or mapping stands where a key is needed; write key: value."]),
    ],
)
def test_what_a_configuration_must_not_use_is_named_with_its_line(text: str, sentences: list[str]) -> None:
    with pytest.raises(YamlErrors) as refusal:
        read_yaml(text)
    assert list(refusal.value.sentences) == sentences


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1, 2\nb: 3", r"^Line \d, column \d+: this is not YAML"),
        ("a:\n\t- b", r"^Line 2, column 1: .*spaces, not tabs"),
        ("a: 'b", r"^Line \d, column \d+: this is not YAML"),
        ("a: b: c", r"^Line 1, column \d+: this is not YAML"),
        ("a: \x00", "does not allow; save it as UTF-8|this is not YAML"),
        ("a: \ud800", "save it as UTF-8"),
    ],
)
def test_a_syntax_error_is_a_sentence_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(YamlErrors, match=sentence):
        read_yaml(text)


def test_a_billion_laughs_are_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(YamlErrors, match="expands to more than 500000 values"):
        read_yaml("\n".join(lines))


def test_nesting_and_size_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(YamlErrors, match="nested deeper than 32 levels"):
        read_yaml("[" * 100_000)
    with pytest.raises(YamlErrors, match="nested deeper than 32 levels"):
        read_yaml("a: " + "{a: " * 40 + "}" * 40)
    monkeypatch.setattr(yaml_text, "MAX_CHARACTERS", 10)
    with pytest.raises(YamlErrors, match="larger than"):
        read_yaml("a: 1 # long enough")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**17), 10**17), st.text(st.characters(codec="utf-8"), max_size=10)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc:-# 1", min_size=1), inner, max_size=3)
    ),
)


class Dumper(yaml.SafeDumper):
    """Quotes every text: PyYAML writes YAML 1.1, in which a plain `1e3` is text and here it is a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(VALUES)
def test_whatever_another_writer_wrote_is_read_back(value: Any) -> None:
    assert read_yaml(yaml.dump(value, Dumper=Dumper)) == value
    assert read_yaml(yaml.dump(value, Dumper=Dumper, default_flow_style=True)) == value

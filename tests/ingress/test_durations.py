"""Durations: Go's text form, whole milliseconds, no floating point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress.durations import MAX_MS, DurationError, format_ms, parse


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("30s", 30_000),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("0.001s", 1),
        ("1000us", 1),
        ("2000000ns", 2),
        ("0", 0),
        ("0s", 0),
        ("1h1m1s1ms", 3_661_001),
    ],
)
def test_go_durations_are_read(text: str, milliseconds: int) -> None:
    assert parse(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a duration"),
        ("30", "has no unit; write 30s"),
        ("-5s", "is negative"),
        ("5 s", "is not a duration"),
        ("5d", "is not a duration"),
        ("s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("٣s", "is not a duration"),
        ("30s\n", "is not a duration"),
        ("1us", "finer than a millisecond"),
        ("0.0001s", "finer than a millisecond"),
        ("0.0000000001s", "finer than a millisecond"),
        ("999999999h", "longer than a hundred years"),
        ("9" * 1000 + "s", "is not a duration"),
    ],
)
def test_other_texts_are_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DurationError, match=sentence):
        parse(text)


@given(st.integers(0, MAX_MS))
def test_reading_what_was_written_gives_the_same_milliseconds(milliseconds: int) -> None:
    text = format_ms(milliseconds)
    assert "." not in text
    assert parse(text) == milliseconds


@pytest.mark.parametrize(("milliseconds", "text"), [(90_000, "1m30s"), (0, "0s"), (1_500, "1s500ms"), (30_000, "30s")])
def test_the_shortest_text_of_whole_units_is_written(milliseconds: int, text: str) -> None:
    assert format_ms(milliseconds) == text

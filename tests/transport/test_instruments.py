"""Histograms, answers and families as Prometheus reads them."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from culvert_transport.endings import ENDINGS, PROTOCOL_ERROR, ending
from culvert_transport.instruments import Histogram, Instrument
from culvert_transport.traffic import Answers

BOUNDS = (0.1, 1.0, 10.0)
TIMES = Instrument("histogram", "test_seconds", "Times.", ("rule",))


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_buckets_are_cumulative_and_take_in_their_bound(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    seen = samples(TIMES.buckets([(("a",), histogram)]))
    for bound in (*BOUNDS, math.inf):
        label = "+Inf" if bound == math.inf else str(bound)
        assert seen["test_seconds_bucket", "a", label] == sum(1 for value in values if value <= bound)
    assert seen["test_seconds_count", "a"] == len(values)
    assert math.isclose(seen["test_seconds_sum", "a"], sum(values), abs_tol=1e-9)


def test_answers_are_told_apart_by_class_and_blame() -> None:
    answers = Answers()
    for status, source in (
        (200, "none"),
        (299, "none"),
        (404, "none"),
        (404, "visitor"),
        (502, "origin"),
        (999, "none"),
    ):
        answers.add(status, source)
    assert list(answers.samples()) == [
        ("2xx", "none", 2), ("4xx", "none", 1), ("9xx", "none", 1), ("4xx", "visitor", 1), ("5xx", "origin", 1),
    ]  # fmt: skip


def test_labels_of_strangers_stay_inside_their_quotes() -> None:
    nasty = 'a"} 1\nevil_total 2 #\\'
    requests = Instrument("counter", "test_requests_total", "Requests\\ of\na kind.", ("rule",))
    seen = samples(requests.many([((nasty,), 3)]))
    assert seen == {("test_requests_total", nasty): 3}


def test_every_sentence_a_session_ends_with_has_a_token() -> None:
    assert ending("nothing heard for 3 s") == "timeout"
    assert ending("connection lost: [Errno 104] Connection reset by peer") == "connection_lost"
    assert ending("replaced by generation 7 of its slot") == "replaced"
    assert ending("a response is longer than it declared") == PROTOCOL_ERROR
    assert ending("") == PROTOCOL_ERROR
    assert len(ENDINGS) == len(set(ENDINGS))

import json
import logging

import pytest

from culvert_transport.logs import JSONFormatter, TextFormatter, configure


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("culvert.relay", logging.INFO, __file__, 1, message, (), None)
    if fields:
        made.fields = fields
    return made


def test_json_is_one_object_with_the_records_fields() -> None:
    line = JSONFormatter().format(record('a "quoted"\nmessage', tunnel="ns/main"))
    value = json.loads(line)
    assert "\n" not in line
    assert value["message"] == 'a "quoted"\nmessage'
    assert (value["level"], value["logger"], value["tunnel"]) == ("info", "culvert.relay", "ns/main")
    assert value["time"].endswith("Z")


def test_text_is_one_line_whatever_it_holds() -> None:
    line = TextFormatter().format(record("forged\r\nline", key="a\nb"))
    assert "\n" not in line
    assert "forged\\r\\nline key=a\\nb" in line


def test_an_exception_stays_on_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)
    assert "\n" not in TextFormatter().format(made)
    assert "ValueError: broken" in json.loads(JSONFormatter().format(made))["exception"]


@pytest.mark.parametrize(("level", "fmt", "problem"), [("loud", "text", "log level"), ("info", "xml", "log format")])
def test_unknown_levels_and_formats_are_named(level: str, fmt: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        configure(level, fmt)

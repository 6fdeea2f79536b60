"""docs/metrics.md: every metric of the three roles, out of the code that makes them."""

# ruff: noqa: E501 - a line of the page is a line here

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics import MetricWrapperBase

from culvert_connector import metrics as connector
from culvert_connector.tallies import MAX_RULES
from culvert_operator.metrics import Metrics as OperatorMetrics
from culvert_relay import metrics as relay
from culvert_relay.tallies import MAX_TUNNELS
from culvert_transport.endings import ENDINGS
from culvert_transport.instruments import OTHER, Instrument
from culvert_transport.traffic import ERROR_SOURCES

Row = tuple[str, str, tuple[str, ...], str]


def rows_of(instruments: tuple[Instrument, ...]) -> Iterator[Row]:
    """Name, type, labels and meaning of a role's own instruments."""
    for one in instruments:
        yield one.name, one.kind, one.labels, one.text


def operator_rows() -> Iterator[Row]:
    """The same of the operator's, whose registry is asked as a scrape would ask it."""
    registry = OperatorMetrics().registry
    # A family without samples shows no labels: they are asked of the metrics themselves.
    labels = {one._name: one._labelnames for one in registry._collector_to_names if isinstance(one, MetricWrapperBase)}
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        yield name, family.type, tuple(labels[family.name]), family.documentation


def table(rows: Iterator[Row]) -> Iterator[str]:
    """The rows as Markdown."""
    yield "| name | type | labels | meaning |"
    yield "|---|---|---|---|"
    for name, kind, labels, text in rows:
        yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text.replace('|', chr(92) + '|')} |"


def page(command: str) -> str:
    """docs/metrics.md."""
    sources = ", ".join(f"`{source}`" for source in ERROR_SOURCES)
    endings = ", ".join(f"`{token}`" for token in ENDINGS)
    lines = [
        "# Metrics",
        "",
        f"<!-- Made from the roles' metrics modules by `{command}`. -->",
        "",
        "Prometheus' text format at `/metrics`: the relay's on `listen.admin` (9901), the connector's on `metrics` "
        "(20241), the operator's on its own port (9902). Units are seconds and bytes; counters begin at 0 with the process.",
        "",
        "## Labels",
        "",
        f"* `tunnel` and `issuer` (its id in `relay.yml`): at most {MAX_TUNNELS} tunnels are told apart, first come. A "
        f"tunnel without sessions gives its place up when another one needs it. Beyond that `{OTHER}`.",
        f"* `rule`: at most {MAX_RULES} rules of the applied configuration, those that had a request first; the others "
        f"are `{OTHER}`. `fallback` are requests that no rule matched.",
        "* `code_class`: `1xx` (a WebSocket handshake that succeeded) to `5xx`.",
        f"* `source`: {sources}. `none` is an answer that the origin gave, also a 404 or 500 of its own, or that a "
        "rule prescribed; the others are whoever is to blame for an answer that culvert gave instead, as on the page of "
        "[errors](errors.md), and `visitor` for what the relay refuses with a status below 500 and for visitors who left.",
        f"* `reason` of a session's end: {endings}; of a reconnect also `relay_draining` and `stuck`. The logs have the "
        "whole sentence.",
        "",
        "No label ever holds a path, a hostname or a visitor's address.",
        "",
        "Of several operators only the one that leads tells of credentials, DNS and revocations; the others have no series of a "
        "Tunnel there, or 0.",
    ]
    for title, rows in (
        ("Relay", rows_of(relay.INSTRUMENTS)),
        ("Connector", rows_of(connector.INSTRUMENTS)),
        ("Operator", operator_rows()),
    ):
        lines += ["", f"## {title}", "", *table(rows)]
    lines += [
        "",
        "## Questions and answers",
        "",
        "```",
        "# Requests that culvert itself failed, by who is to blame",
        'sum by (source) (rate(culvert_relay_requests_total{source!~"none|visitor"}[5m]))',
        "# The time that 99 of 100 responses of a tunnel take to begin, and how much of it is the origin's",
        "histogram_quantile(0.99, sum by (le, tunnel) (rate(culvert_relay_time_to_first_byte_seconds_bucket[5m])))",
        "histogram_quantile(0.99, sum by (le, rule) (rate(culvert_connector_time_to_first_byte_seconds_bucket[5m])))",
        "# Credentials and certificates with less than a week to go",
        'min({__name__=~"culvert_.*_expiry_timestamp_seconds"} > 0) - time() < 7 * 86400',
        "```",
    ]
    return "\n".join(lines) + "\n"

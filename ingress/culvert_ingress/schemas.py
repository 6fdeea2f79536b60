"""Schema numbers of the configuration document: which of its keys came with which.

Responsible for: one table of keys that connectors of an earlier version cannot read, and what of it a rule or a
document uses. Must not know: who reports which schemas, and what is done about a rule that needs a later one.
Invariant: a document says the lowest schema that has all of its keys, so that an upgrade of whoever writes it changes
no document. A key that is not in the table is one of schema 1.

A new key is a new row: with the next number when connectors that read the last number have been released, else with
the last number. ``uses`` looks at values only: a key at its default is not written, and so needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from culvert_ingress.document import Document
from culvert_ingress.rules import Rule

FIRST = 1


@dataclass(frozen=True, slots=True)
class RuleKey:
    """A key of a rule, in the words of the API, the schema that it came with, and whether a rule uses it."""

    key: str
    schema: int
    uses: Callable[[Rule], bool]


@dataclass(frozen=True, slots=True)
class DocumentKey:
    """The same of a key that is the whole document's.

    ``kept(wanted, before)`` is the wanted document with the key, and what means nothing without it, as it was before.
    """

    key: str
    schema: int
    uses: Callable[[Document], bool]
    kept: Callable[[Document, Document], Document]


RULE_KEYS: tuple[RuleKey, ...] = (
    RuleKey("originRequest.pathRewrite", 2, lambda rule: rule.origin_request.path_rewrite is not None),
    RuleKey("originRequest.requestHeaders", 2, lambda rule: rule.origin_request.request_headers is not None),
    RuleKey("originRequest.responseHeaders", 2, lambda rule: rule.origin_request.response_headers is not None),
    RuleKey("originRequest.matchSNItoHost", 2, lambda rule: rule.origin_request.match_sni_to_host),
    RuleKey("originRequest.disableChunkedEncoding", 2, lambda rule: rule.origin_request.disable_chunked_encoding),
)
DOCUMENT_KEYS: tuple[DocumentKey, ...] = (
    DocumentKey(
        "relay.proxyURL",
        2,
        lambda document: document.relay.proxy is not None,
        # As one: an address that only the proxy reaches is not dialled without it.
        lambda wanted, before: replace(wanted, relay=before.relay),
    ),
)


def later(schema: int) -> tuple[RuleKey, ...]:
    """The keys of rules that ``schema`` does not have."""
    return tuple(key for key in RULE_KEYS if key.schema > schema)


def lacking(rule: Rule, schema: int) -> tuple[RuleKey, ...]:
    """The keys that a rule uses and that ``schema`` does not have."""
    return tuple(key for key in RULE_KEYS if key.schema > schema and key.uses(rule))


def document_lacks(document: Document, schema: int) -> tuple[DocumentKey, ...]:
    """The keys of the whole document, rules aside, that it uses and that ``schema`` does not have."""
    return tuple(key for key in DOCUMENT_KEYS if key.schema > schema and key.uses(document))


def needed(document: Document) -> int:
    """The lowest schema that has every key of a document."""
    of_rules = (key.schema for rule in document.rules for key in lacking(rule, FIRST))
    return max((FIRST, *of_rules, *(key.schema for key in document_lacks(document, FIRST))))

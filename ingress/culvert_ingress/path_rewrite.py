"""`pathRewrite`: the path that an origin gets instead of the visitor's.

Responsible for: what people write (`stripPrefix` or `replacePrefix`, beside the rule's path) → a PathRewrite that fits
every path which the rule can match. Must not know how requests are rewritten. Pure.

Invariant: the prefix is made of whole segments that the rule's path condition guarantees, so that no request of the
rule is without it. Regular expressions guarantee none, except those of `config.yml`, which has no other paths, when
they begin with the prefix literally: `^/api/`, `^/api(/|$)` or `^/api$`.
"""

from __future__ import annotations

import re

from culvert_ingress.paths import PathValueError, check_path
from culvert_ingress.rules import PathMatch, PathRewrite, PathType

__all__ = ["check_rewrite", "rewrite_of"]

_LITERAL_BEGINNING = re.compile(r"\^((?:/(?:[A-Za-z0-9_~%!&',:;=@-]|\\[^A-Za-z0-9])+)+)(?=/|\$|\((?:\?:)?/[|.$)])")
_ALTERNATIVE_ENDS = ("(/|$)", "(?:/|$)", "(/.*)?$", "(?:/.*)?$")
_WEAKENING = "?*{"


def rewrite_of(path: PathMatch | None, *, strip: str | None, replace: str | None) -> PathRewrite:
    """The rewriting of a rule's paths. Raises PathValueError with a sentence that says what to write instead."""
    if (strip is None) == (replace is None):
        raise PathValueError("pathRewrite has either stripPrefix or replacePrefix; write one of them.")
    if strip is not None:
        _check_value("stripPrefix", strip)
        if strip == "/":
            raise PathValueError("stripPrefix / strips nothing; write the segments to leave out, such as /api.")
        if strip.endswith("/"):
            raise PathValueError(f"stripPrefix takes whole segments; write {strip.rstrip('/')[:80]!r}.")
        return check_rewrite(path, PathRewrite(strip))
    assert replace is not None
    _check_value("replacePrefix", replace)
    if path is not None and path.type is PathType.EXACT:
        return PathRewrite(None, replace)
    if replace != "/" and replace.endswith("/"):
        raise PathValueError(f"replacePrefix takes whole segments; write {replace.rstrip('/')[:80]!r}.")
    return check_rewrite(path, PathRewrite(_whole_prefix(path), replace.rstrip("/")))


def check_rewrite(path: PathMatch | None, rewrite: PathRewrite) -> PathRewrite:
    """`rewrite` itself when every path that `path` lets through has its prefix. Raises PathValueError."""
    if rewrite.prefix is None:
        if path is None or path.type is not PathType.EXACT:
            raise PathValueError("pathRewrite of the whole path needs an Exact path.")
        _check_value("pathRewrite", rewrite.replacement)
        return rewrite
    for value in (rewrite.prefix, rewrite.replacement):
        if value:
            _check_value("pathRewrite", value)
            if value.endswith("/"):
                raise PathValueError(f"pathRewrite takes whole segments; write {value.rstrip('/')[:80]!r}.")
    if rewrite.prefix and not _guarantees(path, rewrite.prefix):
        shown = "/" if path is None else path.value
        raise PathValueError(
            f"Not every path of this rule ({shown[:80]!r}) begins with the segments {rewrite.prefix[:80]!r}; write "
            "stripPrefix as the beginning of the rule's path."
        )
    return rewrite


def _check_value(key: str, value: str) -> None:
    try:
        check_path(PathMatch(PathType.PREFIX, value))
    except PathValueError as error:
        raise PathValueError(f"{key}: {error}") from None


def _guarantees(path: PathMatch | None, prefix: str) -> bool:
    if path is None:
        return False
    if path.type in (PathType.EXACT, PathType.PREFIX):
        return path.value == prefix or path.value.startswith(prefix + "/")
    found = _literal_beginning(path)
    return found is not None and (found == prefix or found.startswith(prefix + "/"))


def _whole_prefix(path: PathMatch | None) -> str:
    """The prefix that a rule's path is, which replacePrefix replaces."""
    if path is None:
        return ""
    if path.type is PathType.PREFIX:
        return path.value.rstrip("/")
    found = _literal_beginning(path, whole=True)
    if found is None:
        raise PathValueError(
            f"replacePrefix needs a path that is a prefix of whole segments, and {path.value[:80]!r} is not; write the "
            "path as ^/api/ or ^/api(/|$)."
        )
    return found


def _literal_beginning(path: PathMatch, *, whole: bool = False) -> str | None:
    """The whole segments that every match of a `Search` expression begins with; with `whole`, it says nothing else."""
    if path.type is not PathType.SEARCH:
        return None
    match = _LITERAL_BEGINNING.match(path.value)
    if match is None:
        return None
    literal, rest = re.sub(r"\\(.)", r"\1", match[1]), path.value[match.end() :]
    if rest in _ALTERNATIVE_ENDS or rest in ("$", "/", "/.*", "/.*$"):
        return literal
    # Behind the slash anything may follow, but neither may the slash itself be optional, nor another expression start.
    if whole or rest[:1] != "/" or rest[1:2] in tuple(_WEAKENING) or "|" in _outside_groups(rest):
        return None
    return literal


def _outside_groups(expression: str) -> str:
    """What of an expression stands outside parentheses, classes and escapes."""
    plain = re.sub(r"\\.", "", expression)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "", plain)
    depth, kept = 0, []
    for character in plain:
        depth += (character == "(") - (character == ")")
        if depth == 0:
            kept.append(character)
    return "".join(kept)

"""Drift: whether an existing object still says what culvert says.

Responsible for: comparing what is owned with what is there. Must not know: kinds, beyond the lists that Kubernetes
keeps as maps. Invariants: what the API server adds (defaults, status, injected sidecars, annotations of others) is
no difference; an object as the API server stores it right after being applied is none either (0 writes at rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from culvert_operator.api.meta import Raw

MAP_LISTS = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
}
"""Field → key of the lists that server-side apply merges by key (others are replaced whole)."""

_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{s: Decimal(1000) ** i for i, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{s: Decimal(1024) ** i for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def says(desired: Raw, actual: Raw) -> bool:
    """Whether ``actual`` holds everything that ``desired`` does."""
    return _holds(desired, actual, "", quantity=False)


def _holds(desired: Any, actual: Any, field: str, *, quantity: bool) -> bool:
    quantity = quantity or field in _QUANTITIES
    if isinstance(desired, Mapping):
        if not desired:
            return actual is None or isinstance(actual, Mapping)
        return isinstance(actual, Mapping) and all(
            _holds(value, actual.get(key), key, quantity=quantity) for key, value in desired.items()
        )
    if isinstance(desired, list):
        if not desired:
            return actual is None or actual == []
        return isinstance(actual, list) and _list_holds(desired, actual, field, quantity=quantity)
    if quantity:
        return _same_quantity(desired, actual)
    return bool(desired == actual) and isinstance(desired, bool) == isinstance(actual, bool)


def _list_holds(desired: list[Any], actual: list[Any], field: str, *, quantity: bool) -> bool:
    key = MAP_LISTS.get(field)
    if key is None:
        return len(desired) == len(actual) and all(
            _holds(d, a, "", quantity=quantity) for d, a in zip(desired, actual, strict=True)
        )
    by_key = {item.get(key): item for item in actual if isinstance(item, Mapping)}
    return all(
        isinstance(item, Mapping) and _holds(item, by_key.get(item.get(key)), "", quantity=quantity) for item in desired
    )


def _same_quantity(desired: Any, actual: Any) -> bool:
    try:
        return quantity(desired) == quantity(actual)
    except ValueError:
        return bool(desired == actual)


def quantity(value: object) -> Decimal:
    """A Kubernetes quantity as a number: ``500m`` is ``0.5``. ValueError for what is none."""
    text = str(value).strip()
    number = text.rstrip("numkKMGTPEi")
    suffix = text[len(number) :]
    if number.lower().endswith("e") or suffix not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a quantity")
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a quantity") from None

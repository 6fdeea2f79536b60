"""Random changes to any field of a CRD's own schema: set, remove, or set to what the schema forbids.

Pure: a schema, a spec and a source of randomness give a changed spec. What the API server makes of it is the test's
business.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]

# A string field's sensible values, by the end of its path; {zone} is the story's.
TEXTS: Mapping[str, tuple[str, ...]] = {
    "hostname": ("a.{zone}", "B.{zone}", "deep.a.{zone}", "*.wild.{zone}", "elsewhere.example.net", "-bad-.{zone}"),
    "hostnames.*": ("*.{zone}", "a.{zone}", "old.{zone}", "second.{zone}", "*"),
    "addresses.*": ("relay.example.net:443", "192.0.2.1:7443", "relay.example.net", "no port:x"),
    "service.name": ("web", "missing", "Not A Name"),
    "port": ("http", "nope", "80"),
    "value": ("/", "/shop", "/a/b", "^/x", "no-slash", "/[", "x"),
    "connectTimeout": ("5s", "1m30s", "0s", "soon"),
    "httpHostHeader": ("inner.example.com", "inner.example.com:8080", "two words"),
    "stripPrefix": ("/shop", "/a", "no-slash"),
    "replacePrefix": ("/", "/v2", "/v2/", "no-slash"),
    "responseTimeout": ("5m", "0s", "soon"),
    "proxyURL": ("http://proxy.example.net:3128", "http://me:secret@proxy:3128", "socks5://proxy:1080"),
    "originServerName": ("inner.example.com", "not/a/name"),
    "serverName": ("relay.example.org", "not a name"),
    "configMapRef.name": ("missing", "zone"),
    "caConfigMapRef.name": ("missing", "zone"),
    "image": ("registry.example.com/culvert:2", "localhost/culvert:other"),
    "requests.*": ("100m", "64Mi", "many"),
    "limits.*": ("1", "1Gi", "few"),
}
LABELS = ("team", "tier", "example.com/part", "not a key")
VALUES = ("x", "", "web-1", "not/a value")
NOTHING = object()


def fields(schema: Schema, spec: Any, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every place in a spec that could be changed: fields that are there and fields that could be."""
    if path:
        yield path, schema
    if schema.get("type") == "object" and isinstance(spec, dict | None):
        for name, inner in schema.get("properties", {}).items():
            yield from fields(inner, (spec or {}).get(name), (*path, name))
    elif schema.get("type") == "array" and isinstance(spec, list):
        for number, item in enumerate(spec):
            yield from fields(schema["items"], item, (*path, number))


def mutated(schema: Schema, spec: Any, chance: random.Random, *, zone: str, leave: tuple[Path, ...]) -> tuple[Any, str]:
    """A spec with one change, and what was changed."""
    places = [(p, s) for p, s in fields(schema, spec) if not any(p[: len(kept)] == kept for kept in leave)]
    path, inner = chance.choice(places)
    changed = copy.deepcopy(spec)
    value = NOTHING if chance.random() < 0.25 else _value(inner, path, chance, zone)
    _put(changed, path, value)
    where = "/".join(map(str, path))
    return changed, f"{where} removed" if value is NOTHING else f"{where} = {value!r}"


def _put(spec: Any, path: Path, value: Any) -> None:
    for step, following in itertools.pairwise(path):
        spec = spec[step] if isinstance(step, int) else spec.setdefault(step, [] if isinstance(following, int) else {})
    last = path[-1]
    if value is not NOTHING:
        spec[last] = value
    elif isinstance(last, int):
        del spec[last]
    else:
        spec.pop(last, None)


def _value(schema: Schema, path: Path, chance: random.Random, zone: str) -> Any:
    if "enum" in schema:
        return chance.choice([*schema["enum"], "Bogus"]) if chance.random() < 0.3 else chance.choice(schema["enum"])
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        return chance.choice(["http", "nope", 80, 81, 0, 70000])
    if kind == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
        return chance.choice([low, high, low + 1, (low + high) // 2, low - 1, high + 1])
    if kind == "boolean":
        return chance.choice([True, False])
    if kind == "string":
        return _text(schema, path, chance, zone)
    if kind == "array":
        return [_value(schema["items"], (*path, "*"), chance, zone) for _ in range(chance.randint(0, 2))]
    if "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        if path[-1] in ("requests", "limits"):
            names = chance.sample(["cpu", "memory"], chance.randint(0, 2))
            return {name: chance.choice(TEXTS[f"{path[-1]}.*"]) for name in names}
        names = chance.sample(LABELS, chance.randint(0, 2))
        return {name: _value(inner, (*path, "*"), chance, zone) for name in names}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        term = {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    made = {}
    for name, inner in schema.get("properties", {}).items():
        if name in schema.get("required", ()) or chance.random() < 0.4:
            made[name] = _value(inner, (*path, name), chance, zone)
    return made


def _text(schema: Schema, path: Path, chance: random.Random, zone: str) -> str:
    names = [str(step) for step in path if not isinstance(step, int)]
    pool = TEXTS.get(".".join(names[-2:])) or TEXTS.get(names[-1]) or VALUES
    if chance.random() < 0.05:
        return "x" * (schema.get("maxLength", 64) + 1)
    return chance.choice(pool).format(zone=zone)

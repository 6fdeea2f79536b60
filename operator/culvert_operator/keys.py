"""Names of things in a cluster: namespace/name, kind/name.

Responsible for: the identities that the whole operator passes around. Must not know: what the objects hold.
Invariant: keys are plain tuples, hashable and ordered, so that every iteration over them can be made deterministic.
"""

from __future__ import annotations

from typing import NamedTuple


class ObjectKey(NamedTuple):
    """A namespaced object of a kind that the context gives; prints as ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ObjectKey:
        """``namespace/name`` → key; ValueError with a sentence for anything else."""
        namespace, slash, name = text.partition("/")
        if not (slash and namespace and name) or "/" in name:
            raise ValueError(f"{text!r} is not of the form namespace/name; write for instance culvert-system/main")
        return cls(namespace, name)


class ChildKey(NamedTuple):
    """A child of a Tunnel in the Tunnel's namespace; ``kind`` as in the API, for instance ``Deployment``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


NOWHERE = ObjectKey("", "")
"""The key under which bindings are planned that name no Tunnel when the operator has no default one."""

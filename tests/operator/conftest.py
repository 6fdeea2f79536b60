"""A world in memory in which plans are carried out: a small API server, a zone, and connectors that obey.

It is strict where the real one is: resourceVersions and uids are compared, AlreadyExists is refused, an object with
finalizers outlives its deletion, a merge patch replaces lists, DNS changes compare what they replace. What is written
is counted, so that "nothing is written" can be asserted.
"""

from __future__ import annotations

import base64
import copy
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from culvert_ingress.document import SCHEMAS, Document, DocumentError
from culvert_operator import relations
from culvert_operator.api.binding import parse_binding
from culvert_operator.api.claim import parse_claim
from culvert_operator.api.cluster import Namespace, parse_service
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.compile import present_grant
from culvert_operator.conditions.condition import moment
from culvert_operator.credentials import inspect
from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.dns.plan import DNSView, ZoneView
from culvert_operator.issue import CONFIG_KEY, config_map, credential_secret
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.options import Options
from culvert_operator.plan import plan
from culvert_operator.reports import parse_report
from culvert_operator.world import (
    Apply,
    ClaimCreate,
    ClaimDelete,
    ClaimUpdate,
    Plan,
    RevocationState,
    Revoke,
    Snapshot,
)
from culvert_protocol.keys import PrivateKey
from culvert_protocol.statements import sign_revocation

FINALIZER = "culvert.dev/cleanup"
START = 1_764_000_000.0
POD_GRACE_SECONDS = 45.0
DNS = {
    "memory": {},
    "zones": ["example.com"],
    "policy": "sync",
    "ttl": 300,
    "target": {"hostname": "relay.example.net"},
}


def deep_merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target.get(key)
            if not isinstance(inner, dict):
                inner = target[key] = {}
            deep_merge(inner, value)
        else:
            target[key] = copy.deepcopy(value)


class SimulatedWorld:
    """Objects by kind and namespace/name, one zone, and what every connector reports."""

    def __init__(self, **options: Any) -> None:
        self.options = Options(**{"namespace": "culvert-system", "image": "culvert:test", **options})
        self.now = START
        self.tunnels: dict[ObjectKey, dict[str, Any]] = {}
        self.bindings: dict[ObjectKey, dict[str, Any]] = {}
        self.services: dict[ObjectKey, dict[str, Any]] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.config_maps: dict[ObjectKey, dict[str, str]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self.children: dict[tuple[str, ChildKey], dict[str, Any]] = {}
        self.zone: dict[tuple[str, str], Endpoint] = {}
        self.dns_error: str | None = None
        self.dns_failures: dict[str, str] = {}
        self.pods = 2
        self.frozen: dict[str, Any] | None = None
        self.unheard: frozenset[str] = frozenset()
        self.refused: list[dict[str, Any]] = []
        self.refused_origins: list[dict[str, str]] = []
        self.failures: dict[ChildKey, str] = {}
        self.issuer = PrivateKey(b"\x01" * 32)
        self.ledger: dict[str, Revoke] = {}
        self.untold: tuple[str, ...] = ()
        self.lingering: dict[ObjectKey, tuple[Document, float]] = {}
        self.key_ids: dict[str, str] = {}
        self.last_issued: dict[ObjectKey, int] = {}
        self.let_go: set[ObjectKey] = set()
        self.writes: Counter[str] = Counter()
        self.conflicts = 0
        self.events: list[Any] = []
        self.history: list[str] = []
        self.intercept: Callable[[str], bool] = lambda what: True
        self._numbers = itertools.count(1)

    # --- what people do -------------------------------------------------------------------------------------

    def namespace(self, name: str, **labels: str) -> None:
        self.namespaces[name] = Namespace(name, labels)

    def tunnel(self, name: str = "main", namespace: str = "culvert-system", **spec: Any) -> ObjectKey:
        key = ObjectKey(namespace, name)
        self.namespaces.setdefault(namespace, Namespace(namespace, {}))
        default: dict[str, Any] = {
            "relay": {"addresses": ["relay.example.net:443"]},
            "grants": [{"namespaces": {"from": "All"}, "hostnames": ["example.com", "*.example.com"], "maxRules": 200}],
        }
        self._put(self.tunnels, key, {"spec": {**default, **spec}})
        return key

    def service(self, name: str, namespace: str, port: int = 80, **spec: Any) -> None:
        ports = [{"name": "http", "port": port, "protocol": "TCP"}]
        self.services[ObjectKey(namespace, name)] = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ClusterIP", "selector": {"app": name}, "ports": ports, **spec},
        }

    def binding(
        self,
        name: str,
        namespace: str,
        *hostnames: str,
        tunnel: ObjectKey | None = None,
        rules: Any = None,
        wildcard: str = "",
    ) -> ObjectKey:
        """Create or edit a binding: one rule per hostname (``host`` or ``host/path``) to the Service ``web``."""
        self.namespaces.setdefault(namespace, Namespace(namespace, {}))
        key = ObjectKey(namespace, name)
        if ObjectKey(namespace, "web") not in self.services:
            self.service("web", namespace)
        if rules is None:
            rules = []
            for number, text in enumerate(hostnames):
                host, slash, path = text.partition("/")
                rules.append(
                    {
                        "name": f"r{number}",
                        "hostname": host,
                        "path": {"type": "PathPrefix", "value": slash + path or "/"},
                        "service": {"name": "web", "port": 80, "scheme": "http"},
                        **({"wildcard": wildcard} if wildcard and host.startswith("*.") else {}),
                    }
                )
        target = tunnel or ObjectKey("culvert-system", "main")
        spec = {"tunnelRef": {"name": target.name, "namespace": target.namespace}, "rules": rules}
        self._put(self.bindings, key, {"spec": spec})
        return key

    def _put(self, store: dict[ObjectKey, dict[str, Any]], key: ObjectKey, body: dict[str, Any]) -> None:
        existing = store.get(key)
        if existing is not None:
            if existing["spec"] != body["spec"]:
                existing["spec"] = body["spec"]
                existing["metadata"]["generation"] += 1
                self._touch(existing)
            return
        number = next(self._numbers)
        metadata = {
            "namespace": key.namespace,
            "name": key.name,
            "uid": f"uid-{number}",
            "generation": 1,
            "creationTimestamp": f"2025-01-01T00:00:{number % 60:02d}Z",
        }
        store[key] = {"metadata": metadata, **body}
        self._touch(store[key])

    def _touch(self, item: dict[str, Any]) -> None:
        item["metadata"]["resourceVersion"] = str(next(self._numbers))

    def delete(self, key: ObjectKey) -> None:
        """Delete a binding or Tunnel as kubectl does, a second later: it stays while it has finalizers."""
        self.now += 1
        store = self.bindings if key in self.bindings else self.tunnels
        item = store[key]
        if not item["metadata"].get("finalizers"):
            self._gone(store, key)
        elif "deletionTimestamp" not in item["metadata"]:
            item["metadata"]["deletionTimestamp"] = moment(self.now)
            item["metadata"]["generation"] += 1
            self._touch(item)

    def _gone(self, store: dict[ObjectKey, dict[str, Any]], key: ObjectKey) -> None:
        document = self.document(key) if store is self.tunnels else None
        if document is not None:
            self.lingering[key] = (document, self.now)
        uid = store.pop(key)["metadata"]["uid"]
        self.history.append(f"gone {key}")
        for child in [c for c, o in self.children.items() if _owned_by(o, uid)]:
            del self.children[child]

    # --- what the operator sees -----------------------------------------------------------------------------

    def tunnel_keys(self) -> list[ObjectKey]:
        bindings = [parse_binding(b) for b in self.bindings.values()]
        claims = [parse_claim(c) for c in self.claims.values()]
        found = set(self.tunnels)
        for b in bindings:
            found |= relations.tunnels_of_binding(b, self.options)
        for c in claims:
            found |= relations.tunnels_of_claim(c)
        return sorted(found)

    def document(self, key: ObjectKey) -> Document | None:
        stored = self.children.get((key.namespace, relations.child("ConfigMap", key.name)))
        try:
            return Document.loads(base64.b64decode(stored["binaryData"][CONFIG_KEY])) if stored else None
        except DocumentError:
            return None

    def served(self) -> list[tuple[ObjectKey, Document]]:
        """What sessions serve: of each Tunnel, and of one that went while its relays have not heard so and its Pods
        are still ending."""
        found = [(key, document) for key in self.tunnels if (document := self.document(key)) is not None]
        for key, (document, since) in self.lingering.items():
            if self.untold and self.now - since < POD_GRACE_SECONDS:
                found.append((key, document))
        return found

    def hear(self) -> None:
        """Every relay is told of every revocation from now on."""
        self.untold = ()
        self.lingering.clear()

    def reports(self, key: ObjectKey) -> dict[str, Any]:
        if (key.namespace, relations.child("Deployment", key.name)) not in self.children:
            return {}
        if self.frozen is not None:
            names = [f"pod-{i}" for i in range(self.pods)]
            return {n: None if n in self.unheard else parse_report(self.frozen) for n in names}
        document = self.document(key)
        version = document.version if document else 0
        session = {"relay": "relay-1", "state": "connected", "probed": True, "grantVersion": version}
        report = {
            "ready": True,
            "appliedVersion": version,
            "sessions": [session],
            "refusedOrigins": self.refused_origins,
            "refusedHostnames": [*self.refused, *self.held_by_another(key)],
            "schemas": SCHEMAS,
        }
        held = inspect(self.children.get((key.namespace, relations.child("Secret", key.name))))
        newest = held.key_id if held is not None else ""
        names = [f"pod-{i}" for i in range(self.pods)]
        said = {n: parse_report({**report, "keyId": self.key_ids.get(n, newest)}) for n in names}
        return {n: None if n in self.unheard else found for n, found in said.items()}

    def granted(self, key: ObjectKey) -> dict[str, int]:
        """Hostname → claimedAt in the grant that a Tunnel's connectors present to the relay."""
        document = self.document(key)
        grant = present_grant(document) if document is not None else None
        return {n.hostname: n.claimed_at for n in (*grant.names, *grant.tls_names)} if grant is not None else {}

    def serves(self, hostname: str) -> ObjectKey | None:
        """The Tunnel that the relay lets serve a hostname: of those that are granted it the one of the older claim."""
        claimed = [(g[hostname], key) for key in self.tunnels if hostname in (g := self.granted(key))]
        return min(claimed)[1] if claimed else None

    def held_by_another(self, key: ObjectKey) -> list[dict[str, str]]:
        """What the relay refuses to a Tunnel because another serves it."""
        names = [name for name in self.granted(key) if self.serves(name) != key]
        return [{"hostname": name, "relay": "relay-1", "reason": "held_by_another_tunnel"} for name in names]

    def snapshot(self, key: ObjectKey) -> Snapshot:
        raw = self.tunnels.get(key)
        tunnel = parse_tunnel(raw) if raw is not None else None
        parsed = [parse_binding(b) for b in self.bindings.values()]
        children = {
            child: found
            for child in relations.children(key.name)
            if (found := self.children.get((key.namespace, child))) is not None
        }
        secret = children.get(relations.child("Secret", key.name))
        credential = inspect(secret)
        if secret is not None:
            children[relations.child("Secret", key.name)] = {k: v for k, v in secret.items() if k != "data"}
        view = DNSView((ZoneView("example.com", tuple(self.zone.values())),), None, dict(self.dns_failures))
        if self.dns_error is not None:
            view = DNSView(error=self.dns_error)
        return Snapshot(
            key=key,
            tunnel=tunnel,
            bindings=tuple(b for b in parsed if key in relations.tunnels_of_binding(b, self.options)),
            namespaces=dict(self.namespaces),
            services={k: parse_service(s) for k, s in self.services.items()},
            config_maps=dict(self.config_maps),
            claims={name: parse_claim(c) for name, c in self.claims.items()},
            children=children,
            credential=credential,
            reports=self.reports(key),
            dns=view if tunnel is not None and tunnel.dns is not None else None,
            installation="inst",
            issuer=self.issuer.public,
            options=self.options,
            now=self.now,
            failures=dict(self.failures),
            revocation=self.revoked(key),
            repeated=self.repeated(),
            unheard=self.unheard,
            others={k: parse_tunnel(t) for k, t in self.tunnels.items() if k != key},
        )

    def repeated(self) -> tuple[str, ...]:
        """What connectors repeat: every Tunnel here has the same relays."""
        found = (self.revoked(revoke.tunnel) for _, revoke in sorted(self.ledger.items()))
        return tuple(state.token for state in found if state is not None)

    def revoked(self, key: ObjectKey) -> RevocationState | None:
        """What the ledger says of a Tunnel."""
        found = self.ledger.get(f"inst:{key}")
        if found is None or found.until <= self.now:
            return None
        token = sign_revocation(
            self.issuer, subject=found.subject, not_before=found.not_before, issued_at=found.not_before
        )
        return RevocationState(found.not_before, token, found.relay, self.untold, found.uid, found.issued_at)

    # --- what the operator does -----------------------------------------------------------------------------

    def plan(self, key: ObjectKey) -> Plan:
        return plan(self.snapshot(key))

    def step(self, key: ObjectKey) -> Plan:
        """One round: plan and carry out."""
        planned = self.plan(key)
        self.carry_out(key, planned)
        return planned

    def settle(self, *, rounds: int = 40) -> int:
        """Plan and carry out for every key until nothing is left to do; how many rounds that took."""
        for count in range(rounds):
            plans = [(key, self.plan(key)) for key in self.tunnel_keys()]
            busy = [(key, p) for key, p in plans if not p.is_empty]
            if not busy:
                return count
            for key, _ in busy:
                self.step(key)
        left = {str(key): self.plan(key) for key in self.tunnel_keys()}
        raise AssertionError(f"the world does not settle: { {k: p for k, p in left.items() if not p.is_empty} }")

    def carry_out(self, key: ObjectKey, planned: Plan) -> None:
        """In the order of culvert_operator.world; ``intercept`` may stop it before any write (a crash)."""
        for op in planned.finalizers_add:
            if not self._write("finalizer"):
                return
            self._finalizer(op, add=True)
        wrote = [self._claim(c) for c in planned.claims if self._write("claim")]
        if wrote:
            return
        if planned.revocation is not None:
            if not self._write("revocation"):
                return
            self.ledger[planned.revocation.subject] = planned.revocation
            self.history.append(f"revoked {planned.revocation.tunnel}")
        applies: list[Apply] = []
        if planned.credential is not None:
            number = next(self._numbers)
            self.last_issued[key] = planned.credential.issued_at
            new = PrivateKey(number.to_bytes(32, "big"))
            applies.append(credential_secret(planned.credential, issuer=self.issuer, key=new, jti=f"j{number}"))
        if planned.configuration is not None:
            applies.append(config_map(planned.configuration, issuer=self.issuer))
        for apply in (*applies, *planned.apply):
            if not self._write(f"apply {apply.key.kind}"):
                return
            self._apply(apply)
        for unwanted in planned.delete:
            if not self._write(f"delete {unwanted.key.kind}"):
                return
            gone = self.children.pop((unwanted.namespace, unwanted.key))
            assert (unwanted.uid, unwanted.resource_version) == (
                gone["metadata"]["uid"],
                gone["metadata"]["resourceVersion"],
            )
        for status in planned.statuses:
            if not self._write(f"status {status.kind}"):
                return
            store = self.tunnels if status.kind == "Tunnel" else self.bindings
            item = store.get(status.key)
            if item is None or status.patch["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self.conflicts += 1
                continue
            deep_merge(item.setdefault("status", {}), status.patch["status"])
            self._touch(item)
        for zone in planned.dns:
            for change in zone.changes:
                if not self._write("dns"):
                    return
                self._dns(change)
        for event in planned.events:
            if not self._write("event"):
                return
            self.events.append(event)
        for op in planned.finalizers_remove:
            if not self._write("finalizer"):
                return
            self._finalizer(op, add=False)

    def _write(self, what: str) -> bool:
        if not self.intercept(what):
            return False
        self.writes[what.partition(" ")[0]] += 1
        return True

    def _finalizer(self, op: Any, *, add: bool) -> None:
        store = self.tunnels if op.kind == "Tunnel" else self.bindings
        item = store.get(op.key)
        if item is None or item["metadata"]["uid"] != op.uid:
            self.conflicts += 1
            return
        finalizers = item["metadata"].setdefault("finalizers", [])
        assert tuple(finalizers) == op.finalizers
        finalizers.append(FINALIZER) if add else finalizers.remove(FINALIZER)
        if not add:
            self.let_go.add(op.key)
        self._touch(item)
        if not finalizers and "deletionTimestamp" in item["metadata"]:
            self._gone(store, op.key)

    def _claim(self, op: Any) -> bool:
        stored = self.claims.get(op.name)
        match op:
            case ClaimCreate(name, body):
                assert stored is None, "AlreadyExists"
                created = copy.deepcopy(dict(body))
                created["metadata"] = {**created["metadata"], "uid": f"uid-{next(self._numbers)}"}
                self._touch(created)
                self.claims[name] = created
            case ClaimUpdate(name, body):
                assert stored is not None
                assert body["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
                assert parse_claim(body).hostname == parse_claim(stored).hostname
                updated = copy.deepcopy(dict(body))
                self._touch(updated)
                self.claims[name] = updated
            case ClaimDelete(name, uid, version):
                assert stored is not None
                assert (uid, version) == (stored["metadata"]["uid"], stored["metadata"]["resourceVersion"])
                self.history.append(f"claim gone {parse_claim(stored).hostname}")
                del self.claims[name]
        return True

    def _apply(self, apply: Apply) -> None:
        where = (apply.namespace, apply.key)
        stored, body = self.children.get(where), copy.deepcopy(dict(apply.body))
        wanted = body["metadata"].pop("resourceVersion", None)
        if stored is None:
            stored = {"metadata": {"uid": f"uid-{next(self._numbers)}"}}
        else:
            assert wanted == stored["metadata"]["resourceVersion"], "409"
            before = self.document(ObjectKey(apply.namespace, apply.key.name.removesuffix("-config")))
            if apply.key.kind == "ConfigMap" and before is not None:
                self.history.append(f"configured over {before.version}")
        self._own(stored, body, apply.manager)
        deep_merge(stored, body)
        if apply.key.kind == "Deployment":
            # Nobody says how many: the API server's default.
            replicas = stored["spec"].setdefault("replicas", 1)
            stored["spec"]["progressDeadlineSeconds"] = 600
            stored["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/termination-log"
            stored["status"] = {"observedGeneration": 1, "readyReplicas": replicas, "availableReplicas": replicas}
        self._touch(stored)
        self.children[where] = stored

    def _own(self, stored: dict[str, Any], body: dict[str, Any], manager: str) -> None:
        """Managed fields, as far as replicas go: what nobody names any more is dropped."""
        entries = stored["metadata"].get("managedFields", [])
        names = "replicas" in body.get("spec", {})
        owners = {e["manager"] for e in entries} - {manager} | ({manager} if names else set())
        if entries and not owners:
            stored["spec"].pop("replicas")
        stored["metadata"]["managedFields"] = [
            {"manager": owner, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for owner in sorted(owners)
        ]

    def _dns(self, change: Any) -> None:
        actual = tuple(sorted((e for e in self.zone.values() if e.name == change.name), key=lambda e: e.key))
        ours = tuple(e for e in actual if e in change.before)
        assert ours == change.before, "prerequisite"
        self.history.append(f"dns {change.action} {change.name}")
        for e in change.before:
            del self.zone[e.key]
        for e in change.after:
            self.zone[e.key] = e

    # --- what tests ask -------------------------------------------------------------------------------------

    def condition(self, key: ObjectKey, name: str) -> tuple[str, str]:
        """(status, reason) of a condition of a binding or Tunnel."""
        item = self.bindings.get(key) or self.tunnels[key]
        found = {c["type"]: c for c in item.get("status", {}).get("conditions", [])}
        return (found[name]["status"], found[name]["reason"]) if name in found else ("", "")

    def message(self, key: ObjectKey, name: str) -> str:
        item = self.bindings.get(key) or self.tunnels[key]
        return str({c["type"]: c for c in item["status"]["conditions"]}[name]["message"])

    def status(self, key: ObjectKey) -> dict[str, Any]:
        item = self.bindings.get(key) or self.tunnels[key]
        found: dict[str, Any] = item.get("status", {})
        return found

    def routes(self, key: ObjectKey) -> list[str]:
        """hostname+path → namespace/binding of the served rules."""
        document = self.document(key)
        assert document is not None
        return [f"{r.hostname} {r.id}" for r in document.rules]


def _owned_by(item: Mapping[str, Any], uid: str) -> bool:
    return any(o["uid"] == uid for o in item["metadata"].get("ownerReferences", ()))


@pytest.fixture(scope="session")
def simulate() -> type[SimulatedWorld]:
    """The class of simulated worlds; call it with options of the operator."""
    return SimulatedWorld


@pytest.fixture
def world() -> SimulatedWorld:
    """A world with one Tunnel ``culvert-system/main`` that has DNS."""
    made = SimulatedWorld()
    made.tunnel(dns=DNS)
    return made

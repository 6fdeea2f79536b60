"""References: the Services and CA certificates that rules name, and whether they may be used.

Responsible for: ServiceRef and CA → what the rule compiles to. Must not know: hostnames, claims.
Invariants: only Services of the binding's own namespace that select Pods (an ExternalName or a selectorless Service
can point anywhere: the confused deputy); a reference that cannot be used makes the rule answer 503, never the
fallback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from culvert_ingress.certificates import CertificateError, check_certificates
from culvert_ingress.rules import HTTPService, OriginRequest, StatusService, TCPService, UnavailableService
from culvert_ingress.rules import Service as RuleService
from culvert_operator.api.binding import ServiceRef
from culvert_operator.api.cluster import Service
from culvert_operator.api.dns import KeyRef
from culvert_operator.candidates import Candidate
from culvert_operator.keys import ObjectKey

NOT_ALLOWED = "AddressNotAllowed"
"""Reason of a Service whose addresses connectors do not dial: loopback, link-local, metadata and such."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A reference that cannot be used, with the reason of the condition ResolvedRefs."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a candidate compiles to; ``problem`` is set when it answers 503 for want of a reference, or 502 for
    NOT_ALLOWED."""

    service: RuleService
    origin: OriginRequest
    problem: Unresolved | None


def resolve(
    candidate: Candidate,
    *,
    services: Mapping[ObjectKey, Service],
    config_maps: Mapping[ObjectKey, Mapping[str, str]],
    cluster_domain: str,
) -> Resolved:
    """The service and origin settings of an accepted rule."""
    rule, namespace = candidate.rule, candidate.binding.meta.namespace
    if rule.service is None:
        return Resolved(StatusService(rule.http_status or 404), candidate.origin, None)
    target = _service(rule.service, namespace, services, cluster_domain)
    if isinstance(target, HTTPService) and rule.protocol != "HTTP":
        return Resolved(TCPService(rule.protocol.lower(), target.host, target.port), candidate.origin, None)
    if isinstance(target, Unresolved):
        return Resolved(UnavailableService(target.message), candidate.origin, target)
    if rule.origin.ca is None:
        return Resolved(target, candidate.origin, None)
    authority = certificates(rule.origin.ca, namespace, config_maps)
    if isinstance(authority, Unresolved):
        return Resolved(UnavailableService(authority.message), candidate.origin, authority)
    return Resolved(target, replace(candidate.origin, ca=authority), None)


def certificates(ref: KeyRef, namespace: str, config_maps: Mapping[ObjectKey, Mapping[str, str]]) -> str | Unresolved:
    """The PEM text that a ``caConfigMapRef`` names."""
    data = config_maps.get(ObjectKey(namespace, ref.name))
    name, key = shown(ref.name), shown(ref.key)
    if data is None:
        said = f"The ConfigMap {name} does not exist in {namespace}; create it with the CA under {key}."
        return Unresolved("ConfigMapNotFound", said)
    if ref.key not in data:
        return Unresolved("ConfigMapNotFound", f"The ConfigMap {name} has no key {key}; add the CA there.")
    try:
        return check_certificates(data[ref.key])
    except CertificateError as error:
        return Unresolved("ConfigMapNotFound", f"The ConfigMap {name}, key {key}: {error}")


def shown(text: str) -> str:
    """A name as sentences show it: one that the API server would not have taken may hold anything, and a sentence that
    is not one line would make the whole configuration unreadable."""
    return text if text.isprintable() else ascii(text)


def _service(
    ref: ServiceRef, namespace: str, services: Mapping[ObjectKey, Service], cluster_domain: str
) -> HTTPService | Unresolved:
    service = services.get(ObjectKey(namespace, ref.name))
    if service is None:
        return Unresolved("ServiceNotFound", f"The Service {shown(ref.name)} does not exist in {namespace}.")
    if service.type == "ExternalName":
        said = f"The Service {ref.name} is an ExternalName, which could point anywhere; use one that selects Pods."
        return Unresolved("ServiceNotSupported", said)
    if not service.selects:
        said = f"The Service {ref.name} has no selector: its addresses could be anybody's. Use one that selects Pods."
        return Unresolved("ServiceNotSupported", said)
    tcp = [port for port in service.ports if port.protocol == "TCP"]
    found = next((p for p in tcp if ref.port in (p.port, p.name) and ref.port != ""), None)
    if found is None:
        known = ", ".join(f"{p.port} ({p.name})" if p.name else str(p.port) for p in tcp) or "none"
        said = f"The Service {ref.name} has no TCP port {shown(str(ref.port))}; it has {known}."
        return Unresolved("PortNotFound", said)
    number = found.port
    if service.headless:
        # Its name resolves to the Pods' own addresses: nothing stands in between that would change the port.
        if isinstance(found.target, str):
            said = (
                f"The Service {ref.name} is headless (clusterIP: None) and its targetPort {shown(found.target)} is a "
                f"name, which each Pod may give another number; write the number, or use a Service with a cluster IP."
            )
            return Unresolved("ServiceNotSupported", said)
        number = found.target
    return HTTPService(ref.scheme, f"{ref.name}.{namespace}.svc.{cluster_domain}", number)

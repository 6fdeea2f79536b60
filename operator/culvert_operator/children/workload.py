"""The connectors' Deployment and its PodDisruptionBudget.

Responsible for: how connectors run. Must not know: configuration, credentials (they are mounted and watched).
Invariants: Pod Security Standard *restricted*; nothing secret in args or environment; nothing in the Pod template
depends on the configuration, so that a change of rules or a renewed credential never restarts a Pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from culvert_operator.api.meta import Raw, mapping, sequence, text
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.children.keeping import kept, remembering
from culvert_operator.children.metadata import body, labels, selector_labels
from culvert_operator.options import Options
from culvert_operator.relations import child

STATUS_PORT = 20241
CONFIG_DIR = "/etc/culvert/config"
CREDENTIAL_DIR = "/etc/culvert/credential"
USER = 65532
CONTAINER = "connector"
GRACE_MARGIN_SECONDS = 15
"""The Pod's termination grace is longer than the connector's, which thus ends by itself and says so."""

DEFAULT_RESOURCES = {"requests": {"cpu": "100m", "memory": "64Mi"}}


def deployment(tunnel: Tunnel, options: Options, existing: Raw | None = None) -> Raw:
    """The Deployment. A new Pod is ready before an old one goes (``maxUnavailable: 0``).

    With autoscaling the number of Pods is not said at all: it is the autoscaler's. ``existing`` is the Deployment that
    there is; its Pods stay as they are when the Tunnel does not follow the operator.
    """
    template = None if tunnel.connector.follows_operator else kept(existing, tunnel.connector)
    name = tunnel.meta.name
    replicas = {"replicas": tunnel.connector.replicas} if tunnel.connector.autoscaling is None else {}
    made = body(
        "Deployment",
        tunnel.meta,
        {
            "spec": {
                **replicas,
                "revisionHistoryLimit": 3,
                "selector": {"matchLabels": selector_labels(name)},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": template
                or {
                    "metadata": _pod_metadata(tunnel),
                    "spec": _pod(tunnel, _image(tunnel, options, existing), options),
                },
            }
        },
    )
    return remembering(made, tunnel.connector)


def disruption_budget(tunnel: Tunnel) -> dict[str, Any]:
    """One connector at a time; Pods that are not ready never hold up a drain (the relay may be away)."""
    return body(
        "PodDisruptionBudget",
        tunnel.meta,
        {
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector_labels(tunnel.meta.name)},
            }
        },
    )


def _pod_metadata(tunnel: Tunnel) -> dict[str, Any]:
    found: dict[str, Any] = {"labels": {**tunnel.connector.pod_labels, **labels(tunnel.meta.name)}}
    if tunnel.connector.pod_annotations:
        found["annotations"] = dict(tunnel.connector.pod_annotations)
    return found


def _image(tunnel: Tunnel, options: Options, existing: Raw | None) -> str:
    if tunnel.connector.image:
        return tunnel.connector.image
    if not tunnel.connector.follows_operator:
        pod = mapping(mapping(mapping((existing or {}).get("spec")).get("template")).get("spec"))
        for container in map(mapping, sequence(pod.get("containers"))):
            if container.get("name") == CONTAINER and text(container.get("image")):
                return text(container.get("image"))
    return options.image


def _pod(tunnel: Tunnel, image: str, options: Options) -> dict[str, Any]:
    settings, name = tunnel.connector, tunnel.meta.name
    found: dict[str, Any] = {
        "serviceAccountName": child("ServiceAccount", name).name,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds + GRACE_MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(tunnel, image, options)],
        "volumes": [
            {"name": "config", "configMap": {"name": child("ConfigMap", name).name, "defaultMode": 0o440}},
            {"name": "credential", "secret": {"secretName": child("Secret", name).name, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
        "topologySpreadConstraints": _spread(tunnel),
    }
    optional = {
        "imagePullSecrets": [{"name": secret} for secret in settings.image_pull_secrets],
        "nodeSelector": dict(settings.node_selector),
        "tolerations": [without_nulls(t) for t in settings.tolerations],
        "affinity": without_nulls(settings.affinity) if settings.affinity else None,
        "priorityClassName": settings.priority_class,
    }
    return found | {key: value for key, value in optional.items() if value}


def _container(tunnel: Tunnel, image: str, options: Options) -> dict[str, Any]:
    meta, settings = tunnel.meta, tunnel.connector
    environment = {
        "CULVERT_NAMESPACE": meta.namespace,
        "CULVERT_CONFIGMAP": child("ConfigMap", meta.name).name,
        "CULVERT_SECRET": child("Secret", meta.name).name,
        "CULVERT_LOG_LEVEL": settings.log_level,
        "CULVERT_LOG_FORMAT": settings.log_format,
    }
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": options.image_pull_policy,
        "args": ["connector", "run", "--config-dir", CONFIG_DIR, "--credentials-dir", CREDENTIAL_DIR],
        "command": ["culvert"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "status", "containerPort": STATUS_PORT, "protocol": "TCP"}],
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "resources": _resources(settings.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "credential", "mountPath": CREDENTIAL_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a directory of the container
        ],
    }


def _resources(chosen: Raw | None) -> Mapping[str, Any]:
    """A person's choice, with a CPU request all the same: without one an autoscaler never scales, and nothing tells."""
    if not chosen:
        return DEFAULT_RESOURCES
    found = without_nulls(chosen)
    if any("cpu" in mapping(found.get(part)) for part in ("requests", "limits")):  # a limit is a request, too
        return dict(found)
    return {**found, "requests": {"cpu": DEFAULT_RESOURCES["requests"]["cpu"], **mapping(found.get("requests"))}}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": STATUS_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _spread(tunnel: Tunnel) -> list[Any]:
    """Over nodes and zones where possible; a person's own constraints get the Pods' selector when they have none."""
    selector = {"labelSelector": {"matchLabels": selector_labels(tunnel.meta.name)}}
    given = tunnel.connector.topology_spread
    if given is not None:
        return [{**selector, **mapping(without_nulls(constraint))} for constraint in given]
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", **selector}
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def without_nulls(value: Raw | Any) -> Any:
    """JSON without ``null`` members: the API server drops them, so that they would look like a difference for ever."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(v) for v in value]
    return value

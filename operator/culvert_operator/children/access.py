"""What a connector may do in the cluster: read one ConfigMap and one Secret by name.

Responsible for: ServiceAccount, Role, RoleBinding. Must not know: the Pods.
Invariant: nothing but get, list and watch of exactly these two objects (list and watch with a ``metadata.name``
field selector are allowed by ``resourceNames``).
"""

from __future__ import annotations

from typing import Any

from culvert_operator.api.meta import Meta
from culvert_operator.children.metadata import body
from culvert_operator.relations import child

_READ = ["get", "list", "watch"]


def service_account(tunnel: Meta) -> dict[str, Any]:
    """The connectors' identity; its token is mounted by the Pods that say so."""
    return body("ServiceAccount", tunnel, {"automountServiceAccountToken": False})


def role(tunnel: Meta) -> dict[str, Any]:
    """Read access to the configuration and the credential."""
    objects = {"configmaps": child("ConfigMap", tunnel.name), "secrets": child("Secret", tunnel.name)}
    rules = [
        {"apiGroups": [""], "resources": [resource], "resourceNames": [key.name], "verbs": _READ}
        for resource, key in objects.items()
    ]
    return body("Role", tunnel, {"rules": rules})


def role_binding(tunnel: Meta) -> dict[str, Any]:
    """The Role, to the ServiceAccount."""
    return body(
        "RoleBinding",
        tunnel,
        {
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": child("Role", tunnel.name).name,
            },
            "subjects": [
                {
                    "kind": "ServiceAccount",
                    "name": child("ServiceAccount", tunnel.name).name,
                    "namespace": tunnel.namespace,
                }
            ],
        },
    )


def secret(tunnel: Meta) -> dict[str, Any]:
    """The credential Secret without its data (see :mod:`culvert_operator.issue`)."""
    return body("Secret", tunnel, {"type": "Opaque"})


def config_map(tunnel: Meta) -> dict[str, Any]:
    """The configuration ConfigMap without its data (see :mod:`culvert_operator.issue`)."""
    return body("ConfigMap", tunnel, {})

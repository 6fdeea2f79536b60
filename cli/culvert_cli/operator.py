"""``culvert operator``: the Kubernetes operator.

Its flags are the operator's own (``culvert_operator.flags`` needs no library of the ``operator`` extra); this module
gives them their place on the command line.
"""

from __future__ import annotations

import argparse
import dataclasses

from culvert_cli.arguments import Subparsers, add_command, add_group
from culvert_cli.outcome import UsageError, load_role
from culvert_operator.flags import SettingsError, add_arguments, add_realm, from_args, realm


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    _, group = add_group(
        commands,
        "operator",
        about=(
            "Run the Kubernetes operator.\n\nIt turns Tunnel and TunnelBinding objects into connectors and DNS records."
        ),
        examples="culvert operator run --tunnel-namespaces culvert-system --default-tunnel culvert-system/main",
    )
    run = add_command(
        group,
        "run",
        about="Run the operator.\n\nUses the Pod's service account, or KUBECONFIG outside a cluster.",
        examples=(
            "culvert operator run\n"
            "culvert operator run --tunnel-namespaces culvert-system,edge --allowed-hostnames '*.example.com' \\\n"
            "    --default-tunnel culvert-system/main"
        ),
        run=_run,
    )
    add_arguments(run)
    retire = add_command(
        group,
        "retire",
        about=(
            "Let go of every Tunnel and TunnelBinding, before the operator is uninstalled.\n\n"
            "Stops the operator's Deployment and takes its finalizer off every object, so that none of them, nor its\n"
            "namespace, waits for an operator that has gone. Connectors and DNS records stay as they are; an Event on\n"
            "each object says what stays. `helm uninstall` does this by itself.\n"
            "Give it the flags that the operator ran with: then other operators' objects are left alone."
        ),
        examples=(
            "culvert operator retire --namespace culvert-system\n"
            "culvert operator retire --namespace culvert-system --watch-namespaces shop,blog"
        ),
        run=_retire,
    )
    add_realm(retire)
    retire.add_argument(
        "--helm-release", metavar="NAME", help="do nothing unless Helm is uninstalling this release (the chart's hook)"
    )


def _retire(arguments: argparse.Namespace) -> int:
    try:
        options = realm(arguments)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    role = load_role("culvert_operator.retirement", extra="operator")
    code: int = role.run(
        options, log_level=arguments.log_level, log_format=arguments.log_format, release=arguments.helm_release
    )
    return code


def _run(arguments: argparse.Namespace) -> int:
    try:
        settings = from_args(arguments)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    settings = dataclasses.replace(settings, log_level=arguments.log_level, log_format=arguments.log_format)
    code: int = load_role("culvert_operator.main", extra="operator").run(settings)
    return code

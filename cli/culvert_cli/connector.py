"""``culvert connector``: the connector inside a cluster, as the operator's Deployments run it."""

from __future__ import annotations

import argparse
from pathlib import Path

from culvert_cli.arguments import Subparsers, add_command, add_group
from culvert_cli.outcome import load_role


def add(commands: Subparsers) -> None:
    """Adds the group to the command line."""
    _, group = add_group(
        commands,
        "connector",
        about=(
            "Run a connector inside a cluster.\n\nThe operator's Deployments do this; outside a cluster use "
            "'culvert tunnel run'."
        ),
        examples="culvert connector run --config-dir /etc/culvert/config --credentials-dir /etc/culvert/credential",
    )
    run = add_command(
        group,
        "run",
        about=(
            "Run a connector from a mounted ConfigMap and Secret.\n\nStarts from the mounted files and follows the "
            "objects named in the environment (CULVERT_NAMESPACE,\nCULVERT_CONFIGMAP, CULVERT_SECRET) through the API "
            "server."
        ),
        examples="culvert connector run --config-dir /etc/culvert/config --credentials-dir /etc/culvert/credential",
        run=_run,
    )
    run.add_argument("--config-dir", metavar="DIR", type=Path, required=True, help="where config.json.gz is mounted")
    run.add_argument(
        "--credentials-dir", metavar="DIR", type=Path, required=True, help="where credentials.json is mounted"
    )


def _run(arguments: argparse.Namespace) -> int:
    connector = load_role("culvert_connector.main", extra="connector")
    code: int = connector.run_in_cluster(arguments.config_dir, arguments.credentials_dir)
    return code

"""Writes what the chart copies from the code: the CRDs and the operator's RBAC rules.

python hack/chart/sync.py           write charts/culvert/files
python hack/chart/sync.py --check   exit 1 and name the files that are stale
"""

import sys
from pathlib import Path

import yaml

from culvert_operator.cluster.permissions import Scope, rules

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = REPOSITORY / "charts" / "culvert" / "files"
SCOPES: tuple[Scope, ...] = ("cluster", "watched", "tunnels", "own")
NOTE = (
    "# Written by hack/chart/sync.py from culvert_operator/cluster/permissions.py, where each rule's reason stands.\n"
)


def contents() -> dict[Path, str]:
    """Every file of the chart's `files/` folder and what it must hold."""
    wanted = {FILES / "crds" / path.name: path.read_text() for path in sorted((REPOSITORY / "crds").glob("*.yaml"))}
    table = {scope: rules([scope]) for scope in SCOPES}
    wanted[FILES / "permissions.yaml"] = NOTE + yaml.safe_dump(
        table, sort_keys=False, default_flow_style=None, width=110
    )
    return wanted


def main(arguments: list[str]) -> int:
    """Writes or checks; 0 when nothing is stale."""
    wanted = contents()
    present = set(FILES.glob("**/*.yaml"))
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
    stale += sorted(present - set(wanted))
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(REPOSITORY)} is stale: run python hack/chart/sync.py", file=sys.stderr)
        return 1 if stale else 0
    for path in present - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

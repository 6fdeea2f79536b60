"""Where a tunnel's ``config.yml`` is: ``--config``, the environment, then the usual places.

Must not know what the file holds.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from culvert_cli.outcome import CommandError

VARIABLE: Final = "CULVERT_CONFIG"
PLACES: Final = ("config.yml", "~/.culvert/config.yml", "/etc/culvert/config.yml")
HELP: Final = (
    f"configuration file; may stand anywhere after 'tunnel' (environment: {VARIABLE}; "
    "default: the first of ./config.yml, ~/.culvert/config.yml, /etc/culvert/config.yml)"
)


def find_config(arguments: argparse.Namespace) -> Path:
    """The configuration file to use; ``CommandError`` naming every place looked at when there is none.

    A file that was asked for is taken without looking, so that its own error is shown when it is missing.
    """
    given: Path | None = getattr(arguments, "config", None)
    if given is not None:
        return given
    if named := os.environ.get(VARIABLE):
        return Path(named)
    for place in PLACES:
        path = Path(place).expanduser()
        if path.is_file():
            return path
    raise CommandError(
        "There is no configuration file at ./config.yml, ~/.culvert/config.yml or /etc/culvert/config.yml; "
        "write one, or name it with --config FILE."
    )

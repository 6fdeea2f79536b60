"""What is known of a cluster that was started: `cluster.json` in its state folder.

Responsible for the document and its atomic replacement. Must not know how clusters are made. Invariant: it is written
before anything is started or changed on the host, so that whoever finds a half-made cluster can take all of it away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

from onenode.refusal import Refusal

SCHEMA: Final = 1
Kind = Literal["control-plane", "node"]


@dataclass(frozen=True, slots=True)
class Record:
    """One cluster. `sysctls`: the host's values from before. `made`: folders outside that were not there before."""

    kind: Kind
    server: str
    complete: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)
    made: Sequence[str] = ()
    schema: int = SCHEMA


def write(record: Record, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(record), indent=2) + "\n")
    os.replace(temporary, path)


def read(path: Path) -> Record | None:
    """None when there is no cluster. Raises `Refusal` for a document of another schema."""
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise Refusal(f"{path} is damaged. Remove its folder after `hack/cluster/cluster down`.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise Refusal(f"{path} was written by another version of this program; run that version's `down`.")
    return Record(
        kind=document["kind"],
        server=document["server"],
        complete=document["complete"],
        sysctls=document["sysctls"],
        made=tuple(document["made"]),
    )

"""Makes the packages of hack importable: they are run by path, never installed."""

from __future__ import annotations

import sys
from pathlib import Path

HACK = Path(__file__).resolve().parent.parent.parent / "hack"
sys.path[:0] = [str(HACK / "cluster"), str(HACK / "image")]

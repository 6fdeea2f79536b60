"""The generated reference pages are what their sources say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_generated_pages_are_fresh() -> None:
    program = ROOT / "hack" / "docs" / "generate.py"
    done = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr

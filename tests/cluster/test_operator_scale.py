"""The operator over many bindings: how often it writes. (How fast it is, is for bench/ to say.)

`make faults` has the thousand of case D25; `make test` has fewer, because a loaded machine takes minutes for them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BINDINGS = int(os.environ.get("CULVERT_SCALE_BINDINGS", "200"))


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("control_plane")  # what the bench starts its own from is there, then
def test_d25_many_bindings_a_restart_and_one_edit_cost_only_the_writes_that_they_need(
    record_property: Any,
) -> None:
    command = [sys.executable, "-m", "bench.operator_scale", "--bindings", str(BINDINGS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {name: float(value) for name, value in re.findall(r"^  (\S.*?) +([\d.]+)$", done.stdout, re.MULTILINE)}
    for name in ("start to converged, s", "writes to converge", "writes for one hostname more", "memory, MiB"):
        record_property(f"operator, {BINDINGS} bindings: {name}", f"{figures[name]:g}")
    assert figures["writes to converge"] >= BINDINGS  # it has been counted at all
    assert figures["writes in 10 s of rest"] == 0
    assert 0 < figures["writes for one hostname more"] <= 7
    assert figures["writes on restart"] == 0

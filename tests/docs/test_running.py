"""docs/running.md: its unit files, its relay.yml and its hook are ones that work as they stand."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from culvert_relay.config import parse_config

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "running.md").read_text()
UNITS = dict(re.findall(r"<!-- unit: (\S+) -->\n```ini\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path, program: Callable[[str], str]) -> None:
    culvert = tmp_path / "culvert"
    culvert.write_text("#!/bin/sh\n")
    culvert.chmod(0o755)
    unit = tmp_path / name
    unit.write_text(UNITS[name].replace("/opt/culvert/bin/culvert", str(culvert)))
    command = [program("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if name in line or "culvert" in line]
    assert (done.returncode, said) == (0, [])


def test_both_units_are_there() -> None:
    assert UNITS.keys() == {"culvert-relay.service", "culvert-connector.service"}


def test_the_relay_reads_its_file(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(text.encode(), folder=tmp_path)
    assert config.front.https_redirect_port == 443
    # What systemd waits before it kills is longer than what the relay may take.
    assert int(re.findall(r"TimeoutStopSec=(\d+)", UNITS["culvert-relay.service"])[0]) > config.grace_period


def test_certbots_hook_makes_the_pair_that_the_relay_wants(tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- hook: certbot -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    lineage, certificates = tmp_path / "example.com", tmp_path / "certs"
    for folder in (lineage, certificates):
        folder.mkdir()
    (lineage / "privkey.pem").write_text("key")
    (lineage / "fullchain.pem").write_text("chain")
    script = text.replace("-g culvert ", "")  # this machine has no such group
    environment = {"RENEWED_LINEAGE": str(lineage), "CERTIFICATES": str(certificates), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=60)
    assert (certificates / "example.com.key").read_text() == "key"
    assert (certificates / "example.com.crt").read_text() == "chain"
    assert not (certificates / "example.com.key").stat().st_mode & 0o007

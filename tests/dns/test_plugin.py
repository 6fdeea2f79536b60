"""docs/dns-provider.md: its example is installed as a distribution of its own, found by its entry point and used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dns-provider.md"
SEED = {"example.com": [["www.example.com", "A", 300, ["192.0.2.1"]]]}
BLOCK = """\
ownerId: home
target: {{hostname: relay.example.net}}
zones: [example.com]
plugin: {{name: jsonfile, config: {{path: {path}}}}}
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the example and its metadata, as an installer leaves them."""
    page = PAGE.read_text()
    project = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    module = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert project is not None
    assert module is not None
    assert len(module[1].splitlines()) < 60
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    build = '\n[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    include = '\n[tool.hatch.build.targets.wheel]\ninclude = ["culvert_jsonfile.py"]\n'
    (source / "pyproject.toml").write_text(project[1] + build + include)
    (source / "culvert_jsonfile.py").write_text(module[1])
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def culvert(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "culvert_cli.main", *words],
        cwd=folder, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_example_of_the_page_is_installed_and_publishes(installed: Path, tmp_path: Path) -> None:
    zones, block = tmp_path / "zones.json", tmp_path / "dns.yml"
    zones.write_text(json.dumps(SEED))
    block.write_text(BLOCK.format(path=zones))
    flags = ["--dns", str(block)]
    routed = culvert(installed, tmp_path, "tunnel", "route", "dns", "home", "app.example.com", *flags)
    assert routed.returncode == 0, routed.stderr
    held = {(name, kind): values for name, kind, _, values in json.loads(zones.read_text())["example.com"]}
    assert held["app.example.com", "CNAME"] == ["relay.example.net."]
    assert "owner=home" in held["cname._culvert.app.example.com", "TXT"][0]
    refused = culvert(installed, tmp_path, "tunnel", "route", "dns", "home", "www.example.com", *flags)
    assert refused.returncode == 1
    assert culvert(installed, tmp_path, "dns", "cleanup", *flags, "--yes").returncode == 0
    assert json.loads(zones.read_text()) == SEED
    zones.write_text("no json")
    assert "cannot be read" in culvert(installed, tmp_path, "dns", "records", *flags).stderr


def test_a_provider_that_is_not_installed_is_named_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "dns.yml").write_text(BLOCK.format(path="/nowhere"))
    outcome = culvert(tmp_path, tmp_path, "dns", "records", "--dns", "dns.yml")
    assert outcome.returncode == 1
    assert "no DNS provider 'jsonfile'" in outcome.stderr
    assert "rfc2136" in outcome.stderr

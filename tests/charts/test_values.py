"""Every value of the chart does something: none is written down, documented and read by no template."""

from __future__ import annotations

import argparse
import copy
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from culvert_operator.flags import add_arguments

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "culvert"
EVERYTHING: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "every_value.yaml").read_text())
ROWS: dict[str, Any] = {
    key: default for key, default, _ in runpy.run_path(str(REPOSITORY / "hack" / "docs" / "chart_page.py"))["rows"]()
}
ALONE: dict[str, dict[str, Any]] = {
    "operator.leaderElection.enabled": {"operator.replicas": 1},
    "image.tag": {"relay.imageTag": ""},
}
"""What else has to be so, before and after, for a value to be taken back."""
DEMANDED = {"relay.hostnames"}
"""Values without which nothing is rendered."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Objects = dict[tuple[str, str, str], dict[str, Any]]


def at(values: dict[str, Any], key: str) -> Any:
    for name in filter(None, key.split(".")):
        values = values[name]
    return values


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Everything, but for these values."""
    values = copy.deepcopy(EVERYTHING)
    for key, value in changes.items():
        *way, last = key.split(".")
        at(values, ".".join(way))[last] = value
    return values


@pytest.fixture(scope="module")
def helm(built: Callable[[str], str]) -> str:
    return shutil.which("helm") or built("helm")


@pytest.fixture(scope="module")
def render(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Objects]:
    file = tmp_path_factory.mktemp("chart") / "values.yaml"

    def template(values: dict[str, Any]) -> Objects:
        file.write_text(yaml.safe_dump(values))
        command = [helm, "template", "culvert", str(CHART), "-n", "culvert-system", "--kube-version", "1.37.2"]
        done = subprocess.run([*command, "-f", str(file)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        # The CRDs are long, and pure Python would take a second for them each time.
        documents = [d for d in yaml.load_all(done.stdout, Loader=LOADER) if d]
        return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}

    return template


@pytest.fixture(scope="module")
def everything(render: Callable[[dict[str, Any]], Objects]) -> Objects:
    return render(EVERYTHING)


@pytest.mark.parametrize("key", ROWS)
def test_a_value_changes_objects_of_its_own_part(
    render: Callable[[dict[str, Any]], Objects], everything: Objects, key: str
) -> None:
    default, set_to = ROWS[key], at(EVERYTHING, key)
    if default is True:
        assert set_to is True
        taken_back: Any = False
    else:
        assert set_to != default, "every_value.yaml has the default, which shows nothing"
        taken_back = default
    others = ALONE.get(key, {})
    if key in DEMANDED:
        with pytest.raises(AssertionError, match=key):
            render(changed({**others, key: taken_back}))
        return
    before = render(changed(others)) if others else everything
    after = render(changed({**others, key: taken_back}))
    touched = {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
    assert touched, "no template reads it"
    part = key.split(".")[0]
    if part in ("operator", "relay"):
        assert any(name.startswith(f"culvert-{part}") for _, _, name in touched), touched
    if key.startswith("image"):
        assert {kind for kind, _, _ in touched} == {"Deployment", "StatefulSet", "Job"}


def test_every_flag_of_the_operator_can_be_set_by_the_chart(everything: Objects) -> None:
    rendered = everything["Deployment", "culvert-system", "culvert-operator"]
    given = {flag.split("=")[0] for flag in rendered["spec"]["template"]["spec"]["containers"][0]["args"]}
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    known = {flag for action in parser._actions for flag in action.option_strings}
    # Where the operator lives the Pod says, and where it listens the probes say.
    assert known - given == {"--namespace", "--listen"}

"""What is built, and under which name it is cached."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from onenode import modules
from onenode.layout import MODULES
from onenode.refusal import Refusal

EXAMPLE = modules.GoModule("example", {"tool": "./tool"})
FILES = {"go.mod": b"module example\n", "main.go": b"package main\n"}


def key(module: modules.GoModule = EXAMPLE, files: dict[str, bytes] = FILES, platform: str = "Linux-x86_64") -> str:
    return modules.cache_key(module, files, platform=platform)


def test_the_same_inputs_have_the_same_name() -> None:
    assert key() == key(files=dict(reversed(FILES.items())))
    assert re.fullmatch(r"example-[0-9a-f]{16}", key())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(files={**FILES, "go.mod": b"module example\n\n"}), id="go.mod"),
        pytest.param(key(files={**FILES, "more.go": b""}), id="a further file"),
        pytest.param(key(files={"go.mod": FILES["go.mod"] + b"main.go" + FILES["main.go"]}), id="moved bytes"),
        pytest.param(key(replace(EXAMPLE, tags=("no_btrfs",))), id="tags"),
        pytest.param(key(replace(EXAMPLE, linker_flags="-s")), id="linker flags"),
        pytest.param(key(replace(EXAMPLE, programs={"tool": "./other"})), id="packages"),
        pytest.param(key(platform="Linux-aarch64"), id="platform"),
    ],
)
def test_any_other_input_has_another_name(other: str) -> None:
    assert other != key()


@pytest.mark.parametrize("module", modules.GO_MODULES.values(), ids=lambda module: module.name)
def test_every_module_is_pinned_and_names_no_place_to_fetch_from(module: modules.GoModule) -> None:
    files = modules.sources(module, MODULES)
    assert "go.mod" in files
    assert "go.sum" in files or b"require" not in files["go.mod"]
    assert not re.search(rb"(?i)goproxy|=> \.|=> /|https?://[^\s\"]*proxy", b"".join(files.values()))


@pytest.mark.parametrize("module", modules.GO_MODULES.values(), ids=lambda module: module.name)
def test_every_program_comes_from_the_module_that_is_pinned_for_it(module: modules.GoModule) -> None:
    files = modules.sources(module, MODULES)
    for package in module.programs.values():
        if package.startswith("."):
            assert f"{package}/main.go".removeprefix("./") in files
        else:
            assert f"\t{package}\n".encode() in files["go.mod"] or f"tool {package}\n".encode() in files["go.mod"]


def test_the_version_that_is_reported_is_the_one_that_is_pinned() -> None:
    for name in ("controlplane", "node"):
        pinned = modules.sources(modules.GO_MODULES[name], MODULES)["go.mod"].decode()
        assert f"k8s.io/kubernetes {modules.KUBERNETES}\n" in pinned
        assert f"version.gitVersion={modules.KUBERNETES}" in modules.GO_MODULES[name].linker_flags


def test_a_control_plane_needs_less_than_a_node() -> None:
    control_plane = {module.name for module in modules.needed_for("control-plane")}
    node = {module.name for module in modules.needed_for("node")}
    assert control_plane == {"localtools", "controlplane"}
    assert control_plane < node
    assert "helm" not in node


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Refusal, match=r'nothing called "nginx".*controlplane.*kubeconform'):
        modules.named(["helm", "nginx"])

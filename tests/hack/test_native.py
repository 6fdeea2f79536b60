"""The native build's list of modules: complete enough that compiled and interpreted classes can live together."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def native() -> ModuleType:
    spec = importlib.util.spec_from_file_location("native_build", ROOT / "hack" / "native" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(native: ModuleType) -> dict[str, Path]:
    """Names of the compiled modules → their sources."""
    return {
        f"{Path(folder).name}.{module}": ROOT / folder / f"{module.replace('.', '/')}.py"
        for folder, modules in native.MODULES.items()
        for module in modules
    }


def bases(path: Path) -> Iterator[tuple[str, str, str]]:
    """(class, module of a base, name of that base) for the bases that `path` imports."""
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in imported:
                    yield node.name, *imported[base.id]


def test_every_listed_module_exists(native: ModuleType) -> None:
    assert [name for name, path in compiled(native).items() if not path.is_file()] == []


def test_no_interpreted_class_rests_on_a_compiled_one(native: ModuleType) -> None:
    """Python refuses such a class only when the first object of it is made, in the middle of serving."""
    listed = compiled(native)
    sources = [path for folder in native.MODULES for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > len(listed)
    wrong = [
        f"{path.relative_to(ROOT)}: {name} rests on {module}.{base}"
        for path in sources
        if path not in listed.values()
        for name, module, base in bases(path)
        if module in listed
    ]
    assert wrong == []


def test_the_compiled_files_stay_out_of_images() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "**/*.so" in lines


def test_an_upgrade_by_pip_removes_the_libraries(native: ModuleType, tmp_path: Path) -> None:
    info = tmp_path / "culvert-0.1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("culvert_http1/path.py,sha256=x,1\n")
    for _ in range(2):
        native.record(tmp_path, [Path("culvert_http1/path.so")])
    assert (info / "RECORD").read_text() == "culvert_http1/path.py,sha256=x,1\nculvert_http1/path.so,,\n"

"""The command line as a function, in a folder of its own, with an empty environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from culvert_cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a person sees."""

    code: int
    out: str
    err: str


Culvert = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "LOG_LEVEL", "LOG_FORMAT", "NAMESPACE", "IMAGE"):
        monkeypatch.delenv(f"CULVERT_{name}", raising=False)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", "120")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def culvert(capsys: pytest.CaptureFixture[str]) -> Culvert:
    """Runs ``culvert`` with the words given."""

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def issuer(culvert: Culvert) -> Path:
    """``keys/issuer.key`` of a new issuer."""
    assert culvert("keys", "create", "--out", "keys").code == 0
    return Path("keys/issuer.key")

"""``culvert keys``: files, modes, never overwriting, and showing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from culvert_cli import private_files
from culvert_protocol.keys import load_issuer_private, load_issuer_public

Culvert = Callable[..., Any]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_create_writes_a_matching_pair_with_the_right_modes(culvert: Culvert) -> None:
    made = culvert("keys", "create", "--out", "a/b")
    private, public = Path("a/b/issuer.key"), Path("a/b/issuer.pub")
    assert made.code == 0
    assert (mode(private), mode(public)) == (0o600, 0o644)
    key = load_issuer_private(private.read_bytes())
    assert load_issuer_public(public.read_bytes()) == (key.public,)
    assert key.public.thumbprint in made.out
    assert sorted(os.listdir("a/b")) == ["issuer.key", "issuer.pub"]
    for line in private.read_text().splitlines()[1:-1]:
        assert line not in made.out + made.err


def test_modes_do_not_depend_on_the_umask(culvert: Culvert) -> None:
    old = os.umask(0)
    try:
        assert culvert("keys", "create", "--out", "k").code == 0
    finally:
        os.umask(old)
    assert mode(Path("k/issuer.key")) == 0o600


@pytest.mark.parametrize("taken", ["issuer.key", "issuer.pub"])
def test_create_overwrites_nothing_and_leaves_nothing_half_done(culvert: Culvert, taken: str) -> None:
    Path("k").mkdir()
    Path("k", taken).write_text("mine")
    refused = culvert("keys", "create", "--out", "k")
    assert refused.code == 1
    assert f"k/{taken} exists already and is not overwritten" in refused.err
    assert os.listdir("k") == [taken]
    assert Path("k", taken).read_text() == "mine"


def test_create_does_not_write_through_a_dangling_link(culvert: Culvert) -> None:
    Path("k").mkdir()
    Path("k/issuer.key").symlink_to("elsewhere")
    assert culvert("keys", "create", "--out", "k").code == 1
    assert not Path("k/elsewhere").exists()


def test_create_says_why_a_folder_cannot_be_made(culvert: Culvert) -> None:
    Path("file").write_text("")
    refused = culvert("keys", "create", "--out", "file/below")
    assert refused.code == 1
    assert "Cannot make the folder file/below: not a directory" in refused.err


def test_show_prints_a_public_key_file_from_either_file(culvert: Culvert, issuer: Path) -> None:
    public = issuer.with_name("issuer.pub")
    from_private, from_public = culvert("keys", "show", issuer), culvert("keys", "show", public)
    assert from_private.code == from_public.code == 0
    assert from_private.out == from_public.out
    assert load_issuer_public(from_private.out.encode()) == load_issuer_public(public.read_bytes())
    assert "PRIVATE" not in from_private.out
    (key,) = load_issuer_public(public.read_bytes())
    assert f"# thumbprint: {key.thumbprint}\n" in from_private.out
    assert culvert("keys", "show", "--thumbprint", issuer).out == key.thumbprint + "\n"


def test_show_joins_files_so_that_the_later_succeed_the_first(culvert: Culvert, issuer: Path) -> None:
    culvert("keys", "create", "--out", "new")
    joined = culvert("keys", "show", issuer, "new/issuer.pub", issuer)
    first, successor = load_issuer_public(joined.out.encode())
    assert first == load_issuer_private(issuer.read_bytes()).public
    assert successor.issuer_id == first.thumbprint


def test_show_warns_when_others_can_read_a_private_key(culvert: Culvert, issuer: Path) -> None:
    assert culvert("keys", "show", issuer).err == ""
    issuer.chmod(0o640)
    shown = culvert("keys", "show", issuer)
    assert shown.code == 0
    assert "warning: others can read keys/issuer.key; protect it with: chmod 600 keys/issuer.key" in shown.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "Cannot read key.pem: no such file or directory"),
        (b"hello", "key.pem: This file does not hold PEM blocks"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key.pem: The PEM block does not hold"),
        (b"x" * 70_000, "key.pem is too large"),
    ],
)
def test_show_refuses_what_is_no_key_file(culvert: Culvert, content: bytes | None, sentence: str) -> None:
    if content is not None:
        Path("key.pem").write_bytes(content)
    refused = culvert("keys", "show", "key.pem")
    assert refused.code == 1
    assert sentence in refused.err
    assert refused.out == ""


def test_a_file_system_without_hard_links_is_good_enough(culvert: Culvert, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(private_files.os, "link", no_links)
    assert culvert("keys", "create", "--out", "k").code == 0
    assert mode(Path("k/issuer.key")) == 0o600
    assert sorted(os.listdir("k")) == ["issuer.key", "issuer.pub"]
    load_issuer_private(Path("k/issuer.key").read_bytes())
    assert culvert("keys", "create", "--out", "k").code == 1


def test_two_writers_of_one_name_do_not_overwrite_each_other() -> None:
    private_files.create_file(Path("f"), b"first")
    with pytest.raises(private_files.CommandError, match="exists already"):
        private_files.create_file(Path("f"), b"second")
    assert Path("f").read_bytes() == b"first"
    assert os.listdir() == ["f"]

"""Tab completes paths after `@` and after `/file`, and nothing of text that is no path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.keyboard import typed
from tests.support.talk import at_prompt
from tests.support.upstream import Upstream


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in."""
    here = tmp_path / "here"
    (here / "src" / "deep").mkdir(parents=True)
    (here / "my things").mkdir()
    for name in ("notes.txt", "src/main.py", "src/deep/er.py", "my things/list one.md", ".hidden"):
        (here / name).write_text("words", "utf-8")
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("Explain @not\t", "Explain @notes.txt"),
        ("@sr\tma\t", "@src/main.py"),
        ("(@NOT\t", "(@notes.txt"),
        ("see\n@src/de\ter\t", "see\n@src/deep/er.py"),
        ("@my\t", '@"my things/'),
        ('@"my things/li\t', '@"my things/list one.md"'),
        ("@.hid\t", "@.hidden"),
        ("请看@not\t", "请看@notes.txt"),
        ("/file not\t", "/file notes.txt"),
        ("/file my\tli\t", "/file my things/list one.md"),
        ("/fil src/m\t", "/fil src/main.py"),
        ("/file --keep not\t", "/file --keep notes.txt"),
        ("/export src/m\t", "/export src/main.py"),
        ("/save --force not\t", "/save --force notes.txt"),
        ("@./not\t", "@./notes.txt"),
        # A part from the middle of a name.
        ("@otes\t", "@notes.txt"),
    ],
)
def test_tab_completes_a_path(keys: str, line: str) -> None:
    pieces = [piece + "\t" for piece in keys.split("\t")[:-1]]
    assert typed(*pieces, "\r") == line


def test_the_home_of_the_user_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    assert typed("@~/not\t", "\r") == "@~/notes.txt"


@pytest.mark.parametrize(
    "keys", ["me@not\t", "`@not\t", "not\t", "/help not\t", "//file not\t", "@hid\t", "@nosuch/\t"]
)
def test_what_is_no_path_is_not_completed(keys: str) -> None:
    assert typed(keys, "\r").rstrip("\t") == keys.rstrip("\t")


def test_names_that_cannot_be_typed_or_read_are_not_offered(folder: Path) -> None:
    for name in (b"odd\nline", b"odd\x1b[31m", b"odd\xff"):
        (folder / os.fsdecode(name)).write_text("words")
    (folder / "odd-loop").symlink_to("odd-loop")
    (folder / "odd.txt").write_text("words")
    assert typed("@odd\t", "\r") == "@odd.txt"


def test_a_terminal_offers_files_with_their_sizes(tmp_path: Path, upstream: Upstream) -> None:
    moa = Moa(tmp_path / "home", upstream.url)
    (moa.folder / "notes.txt").write_text("w" * 2000)
    (moa.folder / "novels").mkdir()
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("Sum up @no\t")
        terminal.wait_for("notes.txt  2 kB")
        terminal.wait_for("novels/    folder")

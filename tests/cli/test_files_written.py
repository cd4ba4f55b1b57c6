"""The files that `moa` writes: readable by their owner alone whatever the umask, never of a name
that another system reserves for a device, and named where they cannot be written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.upstream import Upstream


@pytest.fixture
def open_to_all() -> Iterator[None]:
    """A umask that takes nothing away."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def entries(home: Path) -> set[Path]:
    """All files and folders there."""
    return set(home.rglob("*"))


def test_nobody_else_can_read_what_is_written(moa: Moa, tmp_path: Path, open_to_all: None) -> None:
    (moa.folder / "in.jsonl").write_text('{"prompt": "one"}\n')
    before = entries(tmp_path)
    commands = (
        ("ask", "hi", "--save-profile", "mine"),
        ("profile", "copy", "self", "copied"),
        ("profile", "new", "made", "-m", "lab:a"),
        ("config", "set", "usage", "true"),
        ("history", "export", "--all", "-o", "all.json"),
        ("history", "export", "--all", "-o", "all.html"),
        ("batch", "in.jsonl", "out.jsonl", "-y"),
        ("bench", "run", "in.jsonl", "-y", "--arms", "mixture,single"),
        ("bench", "export", "runs/in-lab", "--to", "jsonl", "-o", "answers.jsonl"),
        ("bench", "report", "runs/in-lab", "-o", "report.html"),
        ("models", "lab"),
    )
    for command in commands:
        ran = moa.run(*command)
        assert ran.code == 0, (command, ran.err)
    # Where nothing is set up, the first chat says more, and notes that it did.
    with moa.terminal("chat", env={"MOA_CONFIG_DIR": str(tmp_path / "none")}) as terminal:
        terminal.wait_for("›")
        terminal.send("/exit\r")
        terminal.wait()
    written = entries(tmp_path) - before
    open_ones = {path for path in written if stat.S_IMODE(path.stat().st_mode) & 0o077}
    assert open_ones == set()
    assert stat.S_IMODE((moa.config / "config.toml").stat().st_mode) == 0o600
    names = {path.name for path in written}
    assert {"conversations.db", "prompt-history", "greeted", "mine.toml", "out.jsonl"} <= names
    assert {"all.json", "all.html", "answers.jsonl", "report.html", "run.json"} <= names


@pytest.mark.parametrize(
    "command",
    [
        ("history", "export", "--all", "-o", "con.json"),
        ("history", "export", "--all", "--force", "-o", "./NUL"),
        ("batch", "in.jsonl", "aux.jsonl", "-y"),
        ("batch", "in.jsonl", "out.", "-y"),
        ("bench", "run", "in.jsonl", "-y", "-o", "runs/lpt1.x"),
        ("bench", "run", "com¹.jsonl", "-y"),
        ("bench", "run", "in.jsonl", "-y", "--cache", "prn"),
        ("MOA_LOG=nul.log", "ask", "hi"),
    ],
    ids=" ".join,
)
def test_no_file_gets_a_name_that_windows_cannot_have(
    moa: Moa, upstream: Upstream, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for name in ("in.jsonl", "com¹.jsonl"):
        (moa.folder / name).write_text('{"prompt": "one"}\n')
    assert moa.run("ask", "hi").code == 0
    asked, before = len(upstream.requests), entries(tmp_path)
    if command[0].startswith("MOA_LOG"):
        moa.environment["MOA_LOG"] = command[0].partition("=")[2]
        command = command[1:]
    ran = moa.run(*command)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    assert "Windows reserves the name" in ran.err or "Windows drops a dot" in ran.err
    assert len(upstream.requests) == asked
    assert entries(tmp_path) == before


def test_a_provider_of_such_a_name_is_refused(moa: Moa) -> None:
    ran = moa.run("config", "set", "providers.nul.base_url", "http://127.0.0.1:9/v1")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "invalid name of a provider: Windows reserves the name `nul`" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("batch", "in.txt", "loop/out.jsonl", "-y"),
        ("history", "backup", "loop/x.db"),
        ("history", "recover", "loop/x.db"),
    ],
    ids=" ".join,
)
def test_a_path_through_links_that_lead_to_each_other_is_named(
    moa: Moa, arguments: tuple[str, ...]
) -> None:
    (moa.folder / "loop").symlink_to("loop")
    (moa.folder / "in.txt").write_text("one\n")
    moa.run("ask", "hi")
    ran = moa.run(*arguments)
    assert ran.code == 1
    assert arguments[-1 if arguments[0] == "history" else 2] in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err

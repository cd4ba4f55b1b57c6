"""The file of prompts: what goes into it, how many, and what stands in its way."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from moa_cli.chat.commands.registry import ChatOptions
from moa_cli.chat.prompt_history import PromptFile
from moa_cli.core import paths
from tests.support.command import PATIENCE, Moa
from tests.support.keyboard import typed
from tests.support.talk import at_prompt
from tests.support.upstream import Upstream

UNSAVED = ChatOptions(save=False)


def kept() -> list[str]:
    """What stands in the file."""
    return [entry.text for entry in PromptFile(1000).read()]


def test_without_saving_earlier_prompts_come_back_and_nothing_is_added() -> None:
    typed("of an earlier chat\r")
    before = paths.history_file().read_bytes()
    assert typed("a secret\r", options=UNSAVED) == "a secret"
    assert typed("\x1b[A\r", options=UNSAVED) == "of an earlier chat"
    assert paths.history_file().read_bytes() == before


def test_without_saving_no_file_is_made() -> None:
    typed("a secret\r", options=UNSAVED)
    assert not paths.history_file().exists()


def test_no_more_prompts_are_kept_than_are_wanted() -> None:
    few = ChatOptions(prompts=3)
    for word in ("one", "two", "three\nlines", "four"):
        typed(f"\x1b[200~{word}\x1b[201~", "\r", options=few)
    assert kept() == ["two", "three\nlines", "four"]
    assert "one" not in paths.history_file().read_text("utf-8")
    typed("five\r", options=ChatOptions(prompts=0))
    assert kept() == ["two", "three\nlines", "four"]


def test_a_leading_space_keeps_a_line_out() -> None:
    assert typed(" a secret\r").strip() == "a secret"
    typed("told\r")
    assert kept() == ["told"]


def test_a_file_that_all_may_read_is_made_private() -> None:
    file = paths.history_file()
    paths.make_private(file.parent)
    file.write_bytes(b"\n# 2024-05-01 10:00:00.123456\n+of an older version\n")
    file.chmod(0o644)
    assert typed("\x1b[A\r") == "of an older version"
    typed("new\r")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kept()[0] == "of an older version"


def test_bytes_that_are_no_utf_8_and_lines_of_something_else_are_read_over() -> None:
    file = paths.history_file()
    paths.make_private(file.parent)
    file.write_bytes(b"\xff\xfe\x00junk\n# no time\n+caf\xe9\n\n+after\r\n#\n")
    assert kept() == ["caf\ufffd", "after\r"]
    typed("new\r", options=ChatOptions(prompts=3))
    assert b"caf\xe9" in file.read_bytes()


def test_of_a_huge_file_the_end_is_read() -> None:
    file = paths.history_file()
    paths.make_private(file.parent)
    line = b"\n# 2024-05-01 10:00:00\n+" + b"x" * 1000 + b"\n"
    file.write_bytes(line * 12_000 + b"\n# 2024-05-01 10:00:00\n+the last\n")
    assert kept()[-1] == "the last"
    typed("new\r")
    assert kept()[-2:] == ["the last", "new"]
    assert file.stat().st_size < 2_000_000


def test_a_prompt_too_long_for_the_file_is_sent_all_the_same() -> None:
    pasted = "word " * 300_000 + "end"
    assert typed("\r", default=pasted) == pasted
    assert kept() == []


@pytest.mark.parametrize("kind", ["folder", "fifo", "no state folder", "loop"])
def test_what_is_no_file_is_told_of_in_one_line(moa: Moa, kind: str) -> None:
    file = moa.state / "prompt-history"
    if kind == "no state folder":
        moa.state.write_text("")
    else:
        moa.state.mkdir(mode=0o700)
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "loop":
        file.symlink_to(file)
    with moa.terminal("chat", columns=200) as terminal:
        at_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
        at_prompt(terminal)
        terminal.send("\x1b[A")
        terminal.wait_for("› hello")
        told = [
            line for line in terminal.lines() if "prompts are remembered for this chat only" in line
        ]
        assert len(told) == 1
        assert str(file) in told[0]
        assert b"Traceback" not in terminal.raw


def test_a_link_to_nowhere_is_a_way_to_keep_nothing(moa: Moa) -> None:
    moa.state.mkdir(mode=0o700)
    (moa.state / "prompt-history").symlink_to(os.devnull)
    with moa.terminal("chat", columns=200) as terminal:
        at_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
        assert "prompts are remembered" not in "\n".join(terminal.lines())
    assert (moa.state / "prompt-history").is_symlink()


def test_a_full_disk_costs_a_line_and_leaves_the_file_whole(moa: Moa, tmp_path: Path) -> None:
    moa.state.mkdir(mode=0o700)
    file = moa.state / "prompt-history"
    before = b"\n# 2024-05-01 10:00:00\n+" + b"x" * 1020 + b"\n"
    file.write_bytes(before)
    # No file of this process may grow beyond 1,050 bytes. Python would leave as much of bytecode in
    # the environment, and no process could import those modules any more.
    (tmp_path / "sitecustomize.py").write_text(
        "import resource, signal, sys\n"
        "sys.dont_write_bytecode = True\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1050, 1050))\n"
    )
    python_path = f"{tmp_path}{os.pathsep}{moa.environment['PYTHONPATH']}"
    options = ("chat", "--no-live")
    with moa.terminal(*options, columns=200, env={"PYTHONPATH": python_path}) as terminal:
        at_prompt(terminal)
        for _ in range(2):
            terminal.send("hello there\r")
            terminal.wait_for("calls, ")
            at_prompt(terminal)
        told = [
            line for line in terminal.lines() if "prompts are remembered for this chat only" in line
        ]
        assert len(told) == 1
        assert "File too large" in told[0]
        assert b"Traceback" not in terminal.raw
    assert file.read_bytes() == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    elsewhere, beside = tmp_path / "elsewhere", tmp_path / ".elsewhere-a1b2c3d_"
    beside.write_text("somebody else's")
    paths.make_private(paths.state_dir())
    paths.history_file().symlink_to(elsewhere)
    for word in ("one", "two", "three"):
        typed(f"{word}\r", options=ChatOptions(prompts=2))
    assert paths.history_file().is_symlink()
    assert b"+three" in elsewhere.read_bytes()
    assert b"+one" not in elsewhere.read_bytes()
    assert beside.read_text() == "somebody else's"


def test_many_that_add_at_once_lose_nothing_and_keep_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine may keep one of them waiting, which is not what this asks for.
    monkeypatch.setattr("moa_cli.chat.prompt_history._LOCK_SECONDS", PATIENCE)

    def add(name: int) -> None:
        file = PromptFile(200)
        for number in range(60):
            assert file.add(f"{name} {number}")

    threads = [threading.Thread(target=add, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = kept()
    assert len(found) == len(set(found)) == 200
    for name in range(4):
        own = [int(text.split()[1]) for text in found if text.startswith(f"{name} ")]
        assert own == sorted(own)
        # The latest of each are there.
        assert own[-1] == 59


def test_who_reads_while_another_rewrites_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may keep one of them waiting, which is not what this asks for.
    monkeypatch.setattr("moa_cli.chat.prompt_history._LOCK_SECONDS", PATIENCE)
    file = PromptFile(50)
    for number in range(50):
        file.add(f"{number} " + "long " * 2000)
    ended = threading.Event()

    def add() -> None:
        for number in range(50, 150):
            file.add(f"{number} " + "long " * 2000)
            # The other gets the lock in between.
            time.sleep(0.002)
        ended.set()

    thread = threading.Thread(target=add)
    thread.start()
    while not ended.wait(0.002):
        found = [int(entry.text.split()[0]) for entry in file.read()]
        assert found == list(range(found[0], found[0] + 50))
    thread.join()


def test_what_was_deleted_does_not_come_back_from_another_chat(moa: Moa) -> None:
    file = moa.state / "prompt-history"
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)

        def ended(turns: int) -> None:
            terminal.wait_for(lambda: "\n".join(terminal.lines()).count("calls, ") == turns)
            at_prompt(terminal)

        for number, word in enumerate(("secret", "other"), 1):
            terminal.send(f"{word}\r")
            ended(number)
        assert PromptFile(1000, file).remove(lambda entry: entry.text == "secret") == 1
        terminal.send("third\r")
        ended(3)
        terminal.send("\x1b[A" * 5)
        terminal.wait_for("› other")
    assert [entry.text for entry in PromptFile(1000, file).read()] == ["other", "third"]
    assert b"secret" not in file.read_bytes()


def test_the_setting_may_be_false(moa: Moa) -> None:
    for value, said in (("false", "0"), ("0", "0"), ("25", "25")):
        assert moa.run("config", "set", "prompt_history", value).code == 0
        assert moa.run("config", "get", "prompt_history").text.strip() == said
    for value in ("true", "-1", "many", "1e9"):
        assert moa.run("config", "set", "prompt_history", value).code == 2
    moa.run("config", "set", "prompt_history", "false")
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
        at_prompt(terminal)
        terminal.send("\x1b[A")
        terminal.wait_for("› hello")
    assert not (moa.state / "prompt-history").exists()


# Prompts in an editor.


@pytest.mark.parametrize("keys", ["/edit plumbago\r", "plumbago\x18\x05"])
def test_a_prompt_in_the_editor_is_private_and_wiped(
    moa: Moa, upstream: Upstream, tmp_path: Path, keys: str
) -> None:
    editor = tmp_path / "editor"
    # As editors do: a backup beside the file. Then it waits.
    editor.write_text('#!/bin/sh\ncp "$1" "$1~"\necho "$1" > "$HOME/began"\nsleep 100\n')
    editor.chmod(0o700)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"VISUAL": str(editor), "TMPDIR": str(scratch)}
    with moa.terminal("chat", "--no-save", env=env) as terminal:
        at_prompt(terminal)
        terminal.send(keys)
        terminal.wait_for(lambda: (tmp_path / "began").exists())
        terminal.wait_for(lambda: bool((tmp_path / "began").read_text()))
        file = Path((tmp_path / "began").read_text().strip())
        assert file.is_relative_to(moa.state)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        # Another one that starts meanwhile leaves it alone.
        assert moa.run("ask", "--no-save", "hi").code == 0
        assert file.exists()
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
        assert file.exists()
        assert moa.run("ask", "hi").code == 0
        assert not file.parent.exists()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("keys", ["/edit plumbago\r", "plumbago\x18\x05"])
def test_a_window_that_is_closed_leaves_no_prompt_of_an_editor(
    moa: Moa, tmp_path: Path, keys: str
) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ntouch "$HOME/began"\nsleep 100\n')
    editor.chmod(0o700)
    with moa.terminal("chat", env={"VISUAL": str(editor)}) as terminal:
        at_prompt(terminal)
        terminal.send(keys)
        terminal.wait_for((tmp_path / "began").exists)
        assert list((moa.state / "drafts").iterdir())
        os.killpg(terminal.process.pid, signal.SIGHUP)
        terminal.wait()
    assert list((moa.state / "drafts").iterdir()) == []


def test_where_no_state_can_be_written_the_editor_opens_all_the_same(moa: Moa) -> None:
    moa.state.write_text("")
    with moa.terminal("chat", env={"VISUAL": "sed -i s/plain/edited/"}) as terminal:
        at_prompt(terminal)
        terminal.send("/edit plain text\r")
        terminal.wait_for("› edited text")

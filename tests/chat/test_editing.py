"""Keys and commands that edit the line, here and in the user's editor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from moa_cli.chat.commands.registry import ChatOptions
from moa_cli.chat.outcomes import Edit
from tests.support.command import Moa
from tests.support.keyboard import typed
from tests.support.talk import Talk, at_empty_prompt
from tests.support.upstream import Upstream


def test_edit_asks_for_the_editor_on_a_text(talk: Talk) -> None:
    assert talk.chat.outcome("/edit a text to begin with") == Edit("a text to begin with")
    assert talk.chat.outcome("/edit") == Edit("")


def test_multiline_swaps_enter_and_alt_enter() -> None:
    swapped = ChatOptions(multiline=True)
    assert typed("one\rtwo\nthree\x1b\r", options=swapped) == "one\ntwo\nthree"
    assert typed("one\x1b\rtwo\nthree\r") == "one\ntwo\nthree"


@pytest.mark.parametrize("multiline", [False, True])
def test_a_search_is_left_by_enter_either_way(multiline: bool) -> None:
    typed("the first question\r")
    options = ChatOptions(multiline=multiline)
    sends = "\x1b\r" if multiline else "\r"
    assert typed("\x12", "quest", "\r", f"\x05!{sends}", options=options) == "the first question!"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """$EDITOR puts a line before and one after what it is given, and copies that to a file."""
    given = tmp_path / "given"
    script = tmp_path / "editor.py"
    script.write_text(
        "import sys\npath = sys.argv[-1]\ntext = open(path).read()\n"
        f"open({str(given)!r}, 'w').write(path + '|' + text)\n"
        "open(path, 'w').write(f'above\\n{text}\\nbelow\\n')\n",
        "utf-8",
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    return given


def test_ctrl_x_ctrl_e_edits_the_line_elsewhere_and_does_not_send_it(writes: Path) -> None:
    assert typed("half a line\x18\x05", "!\r") == "above\nhalf a line\nbelow!"
    name, _, text = writes.read_text("utf-8").partition("|")
    assert (Path(name).suffix, text) == (".md", "half a line")


def test_vi_keys_edit_where_they_were_chosen() -> None:
    vi = ChatOptions(vi=True)
    assert typed("world", "\x1b", "0ihello \x1b", "A!\r", options=vi) == "hello world!"
    assert typed("one", "\x1b", "obelow\r", options=vi) == "one\nbelow"
    assert typed("world", "\x1b", "\r", options=vi) == "world"
    assert typed("two\nlines\r", options=vi) == "two\nlines"


def test_emacs_keys_edit_elsewhere() -> None:
    assert typed("world\x01hello \x05!\r") == "hello world!"
    assert typed("one two\x1bbX\r") == "one Xtwo"


def test_edit_opens_the_editor_and_its_text_waits_at_the_prompt(
    moa: Moa, upstream: Upstream, writes: Path
) -> None:
    with moa.terminal("chat", env={"EDITOR": os.environ["EDITOR"]}) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit some text\r")
        terminal.wait_for("below")
        assert upstream.requests == []
        assert "› above" in terminal.shown()
        terminal.send("!\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == "above\nsome text\nbelow!"
    assert writes.read_text("utf-8").endswith("|some text")


@pytest.mark.parametrize(
    ("editor", "said"),
    [
        ("false", "the editor `false` ended with status 1"),
        ("no-such-editor --x", "the editor `no-such-editor --x` could not be started"),
        ("'", "the editor `'` could not be started"),
    ],
)
def test_an_editor_that_fails_loses_no_text(moa: Moa, editor: str, said: str) -> None:
    with moa.terminal("chat", columns=120, env={"VISUAL": editor}) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/edit some text\r")
        terminal.wait_for(said)
        terminal.wait_for("› some text")


_SAVES = "import sys; open(sys.argv[-1], 'wb').write({data!r})"


def saves(tmp_path: Path, data: bytes) -> str:
    """An editor that saves these bytes, whatever it is given."""
    script = tmp_path / "saves.py"
    script.write_text(_SAVES.format(data=data), "utf-8")
    return f"{sys.executable} {script}"


@pytest.mark.parametrize("open_it", ["/edit\r", "\x18\x05"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_an_editor_on_windows_saves_is_read(
    moa: Moa, upstream: Upstream, tmp_path: Path, open_it: str, encoding: str
) -> None:
    editor = saves(tmp_path, "Gr\u00fc\u00dfe\r\nund mehr\r\n".encode(encoding))
    with moa.terminal("chat", env={"VISUAL": editor}) as terminal:
        at_empty_prompt(terminal)
        terminal.send(open_it)
        terminal.wait_for("und mehr")
        terminal.send("\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == "Gr\u00fc\u00dfe\nund mehr"


@pytest.mark.parametrize("open_it", ["/edit half a line\r", "half a line\x18\x05"])
def test_what_an_editor_saves_in_another_encoding_is_told_and_loses_no_text(
    moa: Moa, tmp_path: Path, open_it: str
) -> None:
    editor = saves(tmp_path, b"gr\xfc\xdfe")
    with moa.terminal("chat", columns=160, env={"VISUAL": editor}) as terminal:
        at_empty_prompt(terminal)
        terminal.send(open_it)
        terminal.wait_for("is not UTF-8 text: byte 3 of line 1 is 0xFC")
        terminal.wait_for("\u203a half a line")

"""A line that begins with a path, as people paste it: it is no command, the error says what to do,
and the line waits to be sent."""

from __future__ import annotations

import pytest

from tests.support.command import Moa
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Upstream


def test_a_path_names_the_remedy_and_enter_sends_the_line(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/home/me/x.py explain\r")
        terminal.wait_for("there is no command /home/me/x.py (begin the line with two slashes")
        terminal.wait_for("› //home/me/x.py explain")
        assert upstream.requests == []
        terminal.send("\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == "/home/me/x.py explain"


def test_a_file_that_is_there_can_be_attached(moa: Moa) -> None:
    file = moa.folder / "notes.txt"
    file.write_text("rain")
    with moa.terminal("chat", columns=400) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{file} what is this?\r")
        terminal.wait_for(f"`/file {file}` attaches it")


def test_a_folder_of_the_root_is_a_path_and_a_command_stays_one(moa: Moa) -> None:
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/tmp what is in it?\r")
        terminal.wait_for("› //tmp what is in it?")
        terminal.send("\x03")
        at_empty_prompt(terminal)
        terminal.send("/sys be brief\r")
        terminal.wait_for("system be brief")


def test_pasted_code_waits_to_be_sent_too(moa: Moa, upstream: Upstream) -> None:
    pasted = "/* adds */\nint add(int a, int b);"
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"\x1b[200~{pasted}\x1b[201~\r")
        terminal.wait_for("there is no command /* (begin the line with two slashes")
        terminal.wait_for("› //* adds */")
        terminal.send("\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == pasted


def test_a_pasted_error_of_several_lines_is_not_lost(moa: Moa, upstream: Upstream) -> None:
    pasted = "/usr/bin/cc: error: no input\n  at line 3"
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"\x1b[200~{pasted}\x1b[201~\r")
        terminal.wait_for("there is no command /usr/bin/cc:")
        terminal.wait_for("at line 3")
        terminal.send("\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == pasted


@pytest.mark.parametrize("separator", ["\n", "\t"])
def test_the_name_of_a_command_ends_at_any_white_space(moa: Moa, separator: str) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"\x1b[200~/system{separator}be brief\x1b[201~\r")
        terminal.wait_for("system be brief")

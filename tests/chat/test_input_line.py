"""The line that the user types: which keys send and which begin a new line, what a paste is,
what can be completed and searched, and that the file of prompts is the owner's alone."""

from __future__ import annotations

import stat

import pytest

from moa_cli.core import paths
from tests.support.keyboard import typed


def test_enter_sends() -> None:
    assert typed("what is rain?\r") == "what is rain?"


@pytest.mark.parametrize("key", ["\x1b\r", "\n"], ids=["Alt-Enter", "Ctrl-J"])
def test_another_key_begins_a_new_line(key: str) -> None:
    assert typed(f"one{key}two\r") == "one\ntwo"


def test_a_paste_of_several_lines_is_one_message() -> None:
    pasted = "\x1b[200~one\r\ntwo\n\n  three\r\x1b[201~"
    assert typed(pasted, "!\r") == "one\ntwo\n\n  three\n!"


def test_a_paste_that_holds_commands_sends_none() -> None:
    assert typed("\x1b[200~/exit\n/clear\n\x1b[201~", "\r") == "/exit\n/clear\n"


def test_colours_in_a_paste_that_is_not_marked_as_one_are_left_out() -> None:
    assert typed("\x1b[31mred\x1b[0m and \x1b[1;32mgreen\x1b[0m\r") == "red and green"


def test_a_default_can_be_edited() -> None:
    assert typed("!\r", default="what was typed") == "what was typed!"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("/rou\t", "/rounds"),
        ("/multi-turn of\t", "/multi-turn off"),
        ("/profile cou\t", "/profile council"),
    ],
)
def test_tab_completes_names_and_values(keys: str, line: str) -> None:
    assert typed(keys, "\r").rstrip() == line


@pytest.mark.parametrize("keys", ["rou\t", "//rou\t", "what /rou\t"])
def test_nothing_is_completed_outside_a_command(keys: str) -> None:
    assert typed(keys, "\r").rstrip("\t ") == keys.rstrip("\t")


def test_ctrl_c_ends_the_line_and_ctrl_d_the_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        typed("half a line\x03")
    with pytest.raises(EOFError):
        typed("\x04")


def test_ctrl_d_within_a_line_does_not_end_it() -> None:
    assert typed("ab\x1b[D\x04c\r") == "ac"


def test_prompts_typed_before_come_back() -> None:
    typed("first\r")
    typed("sec\nond\r")
    assert typed("\x1b[A", "\x1b[A", "\x1b[A", "\r") == "first"


def test_a_search_in_the_history_is_left_by_enter() -> None:
    typed("the first question\r")
    typed("another\r")
    # The first Enter takes what was found, the second sends it.
    assert typed("\x12", "quest", "\r", "\r") == "the first question"


def test_the_file_of_prompts_is_its_owner_s_alone() -> None:
    typed("a secret\r")
    path = paths.history_file()
    assert "a secret" in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_where_no_file_can_be_written_prompts_are_kept_in_memory() -> None:
    # A file where a folder should be.
    paths.make_private(paths.state_dir().parent)
    paths.state_dir().write_text("")
    assert typed("hi\r") == "hi"


def test_half_a_character_in_a_paste_does_not_end_the_program() -> None:
    line = typed("\x1b[200~a\udcffb\x1b[201~", "\r")
    assert (line[0], line[-1]) == ("a", "b")
    assert typed("\x1b[A", "\r") == "a?b"


def test_a_long_line_and_wide_characters_are_kept() -> None:
    text = "漢字 😀 é " * 200
    assert typed(f"{text}\r") == text

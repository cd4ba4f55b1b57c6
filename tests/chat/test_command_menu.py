"""The menu of slash commands at a real terminal: what it shows while the user types, which keys
choose in it, and that nothing of it stays."""

from __future__ import annotations

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Upstream

SIZES = [(80, 24), (200, 50), (40, 12)]


def rows_below(terminal: Terminal) -> list[str]:
    """What stands below the line, without the bar."""
    return [row for row in terminal.shown()[terminal.screen.cursor.y + 1 : -1] if row]


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_slash_opens_a_menu_with_what_each_command_does(
    moa: Moa, columns: int, rows: int
) -> None:
    with moa.terminal("chat", columns=columns, rows=rows) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/")
        terminal.wait_for("/aggregator")
        shown = rows_below(terminal)
        assert 5 <= len(shown) <= 8
        assert shown[0].split()[0] == "/add"
        assert "Add a prop" in shown[0]
        assert max(map(len, terminal.shown())) <= columns
        assert terminal.shown()[-1].startswith("lab · 1 round")
        terminal.send("roun")
        terminal.wait_for(lambda: len(rows_below(terminal)) == 1)
        assert "Show or set the" in rows_below(terminal)[0]


def test_the_values_of_a_command_follow_its_name(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/multi-turn ")
        terminal.wait_for(lambda: [row.strip() for row in rows_below(terminal)] == ["on", "off"])
        terminal.send("\t\t\r")
        terminal.wait_for("multi-turn off")


def test_the_arrows_choose_and_enter_does_it(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/mu")
        terminal.wait_for("/multiline")
        terminal.send("\x1b[B")
        terminal.wait_for("› /multi-turn")
        terminal.send("\x1b[B")
        terminal.wait_for("› /multiline")
        terminal.send("\r")
        terminal.wait_for("Alt-Enter sends, Enter begins a new line")
        assert not any("Show or set" in line for line in terminal.lines())


def test_a_chosen_command_that_needs_an_argument_waits_for_it(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/dro")
        terminal.wait_for("/drop MODEL")
        terminal.send("\t\r")
        terminal.wait_for(lambda: [row.strip() for row in rows_below(terminal)][:1] == ["lab:a"])
        terminal.send("\t\r")
        terminal.wait_for("round 1: lab:b, lab:c")


def test_esc_closes_the_menu_and_keeps_the_line(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/ro")
        terminal.wait_for("/rounds")
        terminal.send("\x1b")
        terminal.wait_for(lambda: not rows_below(terminal))
        terminal.send("unds 3\r")
        terminal.wait_for("rounds 3")
        assert upstream.requests == []


def test_deleting_leaves_the_menu_open(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/rou")
        terminal.wait_for("/rounds")
        terminal.send("\x7f\x7f")
        terminal.wait_for("/remerge")


def test_a_word_of_the_help_finds_the_command(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/cost")
        terminal.wait_for("/usage")


@pytest.mark.parametrize("line", ["//", "what about /", "/home/me/", "a"])
def test_other_lines_open_no_menu(moa: Moa, line: str) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(line)
        terminal.wait_for(f"› {line}")
        terminal.settle()
        assert rows_below(terminal) == []


def test_earlier_commands_come_back_without_a_menu(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        for line in ("/rounds 2", "/rounds 3"):
            terminal.send(f"{line}\r")
            terminal.wait_for(line[1:])
            at_empty_prompt(terminal)
        terminal.send("\x1b[A")
        terminal.wait_for("› /rounds 3")
        terminal.settle()
        terminal.send("\x1b[A")
        terminal.wait_for(
            lambda: terminal.screen.display[terminal.screen.cursor.y].startswith("› /rounds 2")
        )
        assert rows_below(terminal) == []


@pytest.mark.parametrize("rows", [3, 4, 6])
def test_a_low_screen_keeps_the_line(moa: Moa, rows: int) -> None:
    with moa.terminal("chat", rows=rows) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/rounds 2")
        terminal.wait_for("› /rounds 2")
        terminal.settle()
        assert "too small" not in "\n".join(terminal.shown())
        terminal.send("\r")
        terminal.wait_for("rounds 2")


def test_nothing_of_the_menu_stays_in_the_scrollback(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat", rows=12) as terminal:
        at_empty_prompt(terminal)
        for _ in range(4):
            terminal.send("/")
            terminal.wait_for("/aggregator")
            terminal.send("rounds 2")
            terminal.wait_for("› /rounds 2")
            terminal.send("\r")
            at_empty_prompt(terminal)
        lines = terminal.lines()
        assert not any("/aggregator" in line or "Add a proposer" in line for line in lines)
        assert lines.count("› /rounds 2") == 4

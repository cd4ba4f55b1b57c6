"""The menu of slash commands at a real terminal: what it shows while the user types, which keys
choose in it, and that nothing of it stays."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.command import Moa, Terminal
from tests.support.kept import keep
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Upstream

SIZES = [(80, 24), (200, 50), (40, 12)]


def rows_below(terminal: Terminal) -> list[str]:
    """What stands below the line, without the bar."""
    return [row for row in terminal.shown()[terminal.screen.cursor.y + 1 : -1] if row]


def shows_line(terminal: Terminal, line: str) -> bool:
    """Whether the row of the screen that is typed in is that."""
    return terminal.shown()[terminal.screen.cursor.y].rstrip() == line


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_slash_opens_a_menu_with_what_each_command_does(
    moa: Moa, columns: int, rows: int
) -> None:
    with moa.terminal("chat", columns=columns, rows=rows) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/")
        terminal.wait_for("/aggregator")
        # A frame may be half drawn.
        terminal.wait_for(lambda: 5 <= len(rows_below(terminal)) <= 16)
        shown = rows_below(terminal)
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


def test_enter_does_what_is_chosen_also_where_it_begins_new_lines(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/multiline\r")
        terminal.wait_for("Alt-Enter sends, Enter begins a new line")
        at_empty_prompt(terminal)
        terminal.send("/mu")
        terminal.wait_for("/multi-turn")
        terminal.send("\x1b[B\x1b[B")
        terminal.wait_for("› /multiline")
        terminal.send("\r")
        terminal.wait_for("Enter sends, Alt-Enter begins a new line")


def test_a_chosen_command_that_needs_an_argument_waits_for_it(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/dr")
        terminal.wait_for("/drop MODEL")
        terminal.send("\t\r")
        terminal.wait_for(lambda: [row.strip() for row in rows_below(terminal)][:1] == ["lab:a"])
        terminal.send("\t\r")
        terminal.wait_for("round 1: lab:b, lab:c")


def test_tab_goes_on_to_the_argument_that_a_command_needs(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/dro\tlab:b\r")
        terminal.wait_for("round 1: lab:a, lab:c")


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


def test_conversations_are_suggested_with_their_titles_and_found_by_them(moa: Moa) -> None:
    zebras = keep(moa, ("what do zebras wear?", "Stripes."))
    rain = keep(moa, ("what is rain?", "Water."), title="Wetter\x1b[2J Übung")
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/resume ")
        terminal.wait_for(
            lambda: (
                [row.split() for row in rows_below(terminal)]
                == [[rain, "Wetter", "Übung"], [zebras, "what", "do", "zebras", "wear?"]]
            )
        )
        terminal.send("zebr")
        terminal.wait_for(lambda: len(rows_below(terminal)) == 1)
        terminal.send("\t\r")
        terminal.wait_for(f"continuing {zebras}")


def test_without_any_conversation_nothing_is_suggested_or_written(moa: Moa) -> None:
    with moa.terminal("chat", "--no-save") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/resume ")
        terminal.settle()
        assert rows_below(terminal) == []
    assert not (moa.state.parent / "data" / "conversations.db").exists()


def test_settings_are_suggested_with_what_they_mean_and_then_their_values(moa: Moa) -> None:
    with moa.terminal("chat", columns=120) as terminal:
        at_empty_prompt(terminal)
        terminal.send("/set strat")
        terminal.wait_for(lambda: any(row.split()[1:] for row in rows_below(terminal)[:1]))
        assert "strategy" in rows_below(terminal)[0]
        terminal.send("\t")
        terminal.wait_for(
            lambda: (
                [row.split()[0] for row in rows_below(terminal)]
                == ["synthesize", "fusion", "vote", "select", "council"]
            )
        )
        assert rows_below(terminal)[0].split() == ["synthesize", "now"]
        terminal.send("fus\t\r")
        terminal.wait_for("strategy = fusion")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("/set compact ", ["on", "off now"]),
        ("/set multi_turn ", ["true now", "false"]),
        ("/set rounds ", ["1 now"]),
        ("/set aggregator.model ag", ["lab:agg"]),
        ("/set  judge   lab:ag", ["lab:agg"]),
        ("/set nothing ", []),
        ("/multi-turn o", ["on", "off"]),
    ],
)
def test_values_that_a_setting_can_have(moa: Moa, line: str, values: list[str]) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(line)
        terminal.wait_for(lambda: [" ".join(row.split()) for row in rows_below(terminal)] == values)


def test_profiles_are_suggested_with_their_descriptions(moa: Moa) -> None:
    moa.profile("mine", "a", description="only of \x1b[2Jthe lab")
    (moa.config / "profiles" / "broken.toml").write_text("no = [toml")
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/profile mi")
        terminal.wait_for("only of the lab")
        terminal.send("\t\r")
        terminal.wait_for("profile mine: only of")
        at_empty_prompt(terminal)
        terminal.send("/profile brok")
        terminal.wait_for("broken")


def test_proposals_are_suggested_with_how_they_begin(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
        at_empty_prompt(terminal)
        terminal.send("/diff ")
        terminal.wait_for("lab:a: ")
        terminal.send("1 2")
        terminal.wait_for("lab:b: ")


def test_the_latest_line_that_begins_so_is_suggested_behind_the_line(
    moa: Moa, upstream: Upstream
) -> None:
    with moa.terminal("chat") as terminal:
        for line in ("what is rain?", "what is snow?\nwhich is cold", "what was that?"):
            at_empty_prompt(terminal)
            terminal.send(line.replace("\n", "\x1b\r"))
            terminal.wait_for(line.split("\n")[-1])
            terminal.send("\r")
            upstream.wait_for(lambda: upstream.in_flight == 0)
        at_empty_prompt(terminal)
        for keys, suggested in (
            ("w", "what was that?"),
            ("hat i", "what is snow?"),
            ("s r", "what is rain?"),
            ("\x7fx", "what is x"),
            ("\x15wh", "what was that?"),
            ("i", "which is cold"),
            ("\x05", "which is cold"),
        ):
            terminal.send(keys)
            terminal.wait_for(partial(shows_line, terminal, f"› {suggested}"))

"""Lines that stay and lines that live: what was committed stands above the live region, each
line once and in order, however the region grows, shrinks, scrolls or is resized; each frame is
one write; and in the end the terminal is as it was."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyte import modes

from moa_cli.terminal.board.screen import Screen, terminal_size
from tests.support.reflow import Reflowing, Rules
from tests.support.scrolling import Scrolling

SYNC_ON, SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
RED, PLAIN = "\x1b[31m", "\x1b[0m"


class Emulator(io.StringIO):
    """A terminal with a scrollback. frames: what was written to it, write by write."""

    def __init__(self, columns: int = 20, rows: int = 8) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        self.screen = Scrolling(columns, rows, history=10_000)
        self.frames: list[str] = []
        self._stream = pyte.Stream(self.screen)

    def write(self, text: str) -> int:
        self.frames.append(text)
        self._stream.feed(text)
        return len(text)

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self.columns, self.rows

    def lines(self) -> list[str]:
        """Scrollback and screen, without what is empty at the end."""
        above = [
            "".join(row[place].data for place in range(self.columns)).rstrip()
            for row in self.screen.history.top
        ]
        rows = [*above, *(row.rstrip() for row in self.screen.display)]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def narrow(self, columns: int) -> None:
        """Become narrower and wrap the rows that are too long, as most terminals do."""
        rows, place = [], 0
        for number, row in enumerate(self.lines()):
            pieces = [row[at : at + columns] for at in range(0, max(len(row), 1), columns)]
            rows += pieces
            if number == self.screen.cursor.y:
                # The cursor stays at its character.
                place = len(rows) - len(pieces) + self.screen.cursor.x // columns
        self.columns = columns
        self.screen.resize(columns=columns)
        self.screen.reset()
        self._stream.feed("\r\n".join(rows) + f"\x1b[{place + 1};{columns}H")


def made(columns: int = 20, rows: int = 8) -> tuple[Emulator, Screen]:
    """A terminal, and the screen that writes to it."""
    emulator = Emulator(columns, rows)
    return emulator, Screen(emulator, emulator.size)


def test_the_region_stands_below_what_was_committed() -> None:
    emulator, screen = made()
    screen.commit(["one", "two"])
    screen.paint(["live 1", "live 2"])
    assert emulator.lines() == ["one", "two", "live 1", "live 2"]


def test_a_frame_replaces_the_one_before() -> None:
    emulator, screen = made()
    for region in (["a", "b", "c"], ["a", "x", "c"], ["longer", "x"], ["y"], ["1", "2", "3", "4"]):
        screen.paint(region)
        assert emulator.lines() == region
    screen.paint([])
    assert emulator.lines() == []


def test_only_rows_that_changed_are_written() -> None:
    emulator, screen = made()
    screen.paint(["first", "second", "third"])
    screen.paint(["first", "2nd", "third"])
    assert "2nd" in emulator.frames[-1]
    assert "first" not in emulator.frames[-1]
    assert "third" not in emulator.frames[-1]


def test_a_frame_without_a_change_is_not_written() -> None:
    emulator, screen = made()
    screen.paint(["same"])
    count = len(emulator.frames)
    screen.paint(["same"])
    screen.commit([])
    assert len(emulator.frames) == count


def test_each_frame_is_one_write_between_synchronizing_marks() -> None:
    emulator, screen = made()
    screen.paint(["a", "b"])
    screen.commit(["one"])
    screen.commit(["two"], ["c"])
    screen.close()
    assert len(emulator.frames) == 4
    for frame in emulator.frames:
        assert frame.startswith(SYNC_ON)
        assert frame.endswith(SYNC_OFF)


def test_what_is_committed_goes_above_the_region_which_stays() -> None:
    emulator, screen = made()
    screen.paint(["live"])
    screen.commit(["one"])
    screen.commit(["two", "three"])
    assert emulator.lines() == ["one", "two", "three", "live"]


def test_a_commit_can_bring_the_next_region_with_it() -> None:
    emulator, screen = made()
    screen.paint(["about to be final", "still open"])
    screen.commit(["final"], ["still open", "and more"])
    assert emulator.lines() == ["final", "still open", "and more"]
    screen.commit(["done"], [])
    assert emulator.lines() == ["final", "done"]
    screen.commit([], ["live again"])
    assert emulator.lines() == ["final", "done", "live again"]


def test_the_region_takes_half_the_screen_at_most_and_shows_its_end() -> None:
    emulator, screen = made(rows=8)
    screen.commit(["kept"])
    screen.paint([f"live {number}" for number in range(20)])
    assert emulator.lines() == ["kept", *(f"live {number}" for number in range(16, 20))]
    screen.commit(["more"], [f"new {number}" for number in range(20)])
    assert emulator.lines() == ["kept", "more", *(f"new {number}" for number in range(16, 20))]


def test_a_region_that_grows_at_the_bottom_scrolls_and_loses_nothing() -> None:
    emulator, screen = made(rows=6)
    committed = [f"line {number}" for number in range(6)]
    screen.commit(committed)
    for height in (1, 2, 3):
        region = [f"live {number} of {height}" for number in range(height)]
        screen.paint(region)
        assert emulator.lines() == [*committed, *region]


def test_a_committed_line_that_is_too_long_wraps_and_a_live_one_does_not() -> None:
    emulator, screen = made(columns=10)
    screen.paint(["live", "x" * 10])
    screen.commit(["0123456789abcde"])
    assert emulator.lines() == ["0123456789", "abcde", "live", "x" * 10]
    screen.paint(["live"])
    assert emulator.lines() == ["0123456789", "abcde", "live"]


def test_colours_do_not_leak_and_do_not_count() -> None:
    emulator, screen = made(columns=10)
    screen.paint([f"{RED}{'x' * 10}{PLAIN}", f"{RED}y{PLAIN}"])
    screen.commit([f"{RED}one{PLAIN}"])
    screen.paint(["plain"])
    assert emulator.lines() == ["one", "plain"]
    assert emulator.screen.buffer[1][0].fg == "default"


def test_a_wider_terminal_leaves_the_region_in_place() -> None:
    emulator, screen = made(columns=10)
    screen.commit(["one"])
    screen.paint(["x" * 10, "y" * 10])
    emulator.columns = 20
    emulator.screen.resize(columns=20)
    screen.paint(["x" * 20, "y" * 20])
    assert emulator.lines() == ["one", "x" * 20, "y" * 20]


def test_a_narrower_terminal_that_wraps_leaves_no_torn_frame() -> None:
    for painted in (["x" * 7], [], ["new"]):
        emulator, screen = made(columns=20)
        screen.commit(["one", "two"])
        screen.paint(["x" * 20, f"{RED}{'y' * 18}{PLAIN}"])
        emulator.narrow(7)
        assert emulator.lines()[2:] == ["x" * 7, "x" * 7, "x" * 6, "y" * 7, "y" * 7, "y" * 4]
        screen.paint(painted)
        assert emulator.lines() == ["one", "two", *painted]


def test_what_is_committed_after_a_resize_goes_above_the_region() -> None:
    emulator, screen = made(columns=20)
    screen.paint(["x" * 20])
    emulator.narrow(10)
    screen.commit(["one"], ["live"])
    assert emulator.lines() == ["one", "live"]


def hidden(emulator: Emulator) -> bool:
    """Whether the cursor cannot be seen."""
    return bool(emulator.screen.cursor.hidden)


def test_in_the_end_the_terminal_is_as_it_was() -> None:
    for last in ([], ["committed"]):
        emulator, screen = made()
        screen.paint(["a", "b"])
        assert hidden(emulator)
        screen.commit(last)
        screen.close()
        assert emulator.lines() == last
        assert not hidden(emulator)
        assert modes.DECAWM in emulator.screen.mode
        assert (emulator.screen.cursor.x, emulator.screen.cursor.y) == (0, len(last))


def test_a_screen_that_showed_nothing_writes_nothing_in_the_end() -> None:
    emulator, screen = made()
    screen.paint([])
    screen.close()
    screen.close()
    assert emulator.frames == []


ROWS = st.lists(st.text("ab", max_size=8), max_size=9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("paint"), ROWS),
        st.tuples(st.just("commit"), ROWS),
        st.tuples(st.just("both"), ROWS),
    ),
    max_size=12,
)


@given(STEPS, st.integers(2, 9))
def test_after_any_steps_there_is_what_was_committed_and_then_the_region(
    steps: list[tuple[str, list[str]]], rows: int
) -> None:
    emulator, screen = made(columns=10, rows=rows)
    committed: list[str] = []
    region: list[str] = []
    for step, lines in steps:
        if step == "paint":
            screen.paint(lines)
            region = lines
        elif step == "commit":
            screen.commit(lines)
            committed += lines
        else:
            screen.commit(lines, lines[::-1])
            committed += lines
            region = lines[::-1]
        expected = [*committed, *region[-max(1, rows // 2) :]]
        while expected and not expected[-1]:
            expected.pop()
        assert emulator.lines() == expected
    screen.close()
    while committed and not committed[-1]:
        committed.pop()
    assert emulator.lines() == committed


def test_what_is_no_terminal_has_the_usual_size() -> None:
    assert terminal_size(io.StringIO()) == (80, 24)


@pytest.mark.parametrize("rules", ["tmux", "windows", "xterm"])
def test_a_window_that_became_lower_since_its_size_was_read_loses_no_line(rules: Rules) -> None:
    terminal, known = Reflowing(80, 24), (80, 24)
    stream = pyte.Stream(terminal)
    written = io.StringIO()

    def feed() -> None:
        stream.feed(written.getvalue())
        written.seek(0)
        written.truncate()

    screen = Screen(written, size=lambda: known)
    screen.commit([f"line {number:02}" for number in range(12)])
    screen.paint([f"region {number}" for number in range(8)])
    feed()
    terminal.change_size(80, 14, rules)
    screen.commit(["line 12"], ["region"])
    feed()
    known = (80, 14)
    screen.commit(["line 13"])
    screen.close()
    feed()
    rows = [row.rstrip() for row in terminal.all_rows()]
    assert [row for row in rows if row.startswith("line")] == [f"line {n:02}" for n in range(14)]


def test_lines_are_sent_before_the_region_where_a_write_would_be_parted() -> None:
    terminal = Emulator(80, 24)
    screen = Screen(terminal, size=terminal.size)
    screen.paint(["region"])
    screen.commit([f"line {number:02}" * 10 for number in range(40)], ["region", "status"])
    *_, lines, region = terminal.frames
    assert "region" not in lines
    assert "line" not in region
    # A line feed at its end would make it a line of others.
    assert not lines.endswith("\n")
    # A short one is one write.
    screen.commit(["short"], ["region"])
    assert "short" in terminal.frames[-1]
    assert "region" in terminal.frames[-1]

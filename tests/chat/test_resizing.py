"""A window of tmux that changes its size while panels and a reply are drawn: no torn rows are left
on the screen or in the scrollback, and each word of the reply stands there once."""

from __future__ import annotations

import re
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.tmux import Tmux, needs_tmux
from tests.support.upstream import Reply, Upstream

pytestmark = needs_tmux

SIZES = {
    "half and back": [(80, 32), (40, 32), (80, 32)],
    "split in two": [(80, 32), (39, 32), (80, 32)],
    "pulled": [(90, 32), (88, 32), (85, 31), (80, 30), (84, 33)],
    "wide and low": [(160, 48), (80, 40), (200, 50), (120, 24)],
}
WORDS = [f"w{number:03}" for number in range(90)]


@pytest.mark.parametrize("command", ["chat", "ask Why?"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_a_window_that_changes_its_size_leaves_no_torn_rows(
    moa: Moa, upstream: Upstream, tmp_path: Path, sizes: list[tuple[int, int]], command: str
) -> None:
    proposed = threading.Event()
    upstream.always("*", Reply(text="some words of a long answer " * 40))
    upstream.always("c", Reply(text="words", after=proposed))
    upstream.always("agg", Reply(text=" ".join(WORDS), pause=0.02))
    program = (sys.executable, "-m", "moa_cli", *command.split())
    (columns, rows), *changes = sizes
    with Tmux(tmp_path, moa.environment, *program, columns=columns, rows=rows) as window:
        if command == "chat":
            window.wait_for(lambda: window.cursor_row().rstrip() == "›")
            window.type("Why?")
            window.press("Enter")
        window.wait_for("╭─ ")
        for change in changes:
            window.resize(*change)
            time.sleep(0.3)
        window.wait_for(lambda: len(panels_of_b(window)) <= 1)
        proposed.set()
        window.wait_for("w010")
        for change in [sizes[0], *changes]:
            window.resize(*change)
            time.sleep(0.15)
        window.wait_for("w089")
        window.wait_for(lambda: "›" in window.cursor_row() or command != "chat")
        # What is drawn for one size is drawn again after a change.
        window.wait_for(lambda: is_whole("\n".join(window.lines())))


def panels_of_b(window: Tmux) -> list[str]:
    return [line for line in window.screen() if "lab:b" in line and "profile" not in line]


def is_whole(text: str) -> bool:
    """Whether each line of a turn is there once, and nothing is left of the panels."""
    return (
        re.findall("w[0-9]{3}", text) == WORDS
        and not set(text) & set("╭╮╰╯│▸")
        and [text.count(f"✓ lab:{name}") for name in "abc"] == [1, 1, 1]
    )


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_the_prompt_is_there_once(
    moa: Moa, upstream: Upstream, tmp_path: Path, sizes: list[tuple[int, int]]
) -> None:
    program = (sys.executable, "-m", "moa_cli", "chat")
    (columns, rows), *changes = sizes
    with Tmux(tmp_path, moa.environment, *program, columns=columns, rows=rows) as window:
        window.wait_for(lambda: window.cursor_row().rstrip() == "›")
        window.type("half a line")
        window.wait_for(lambda: window.cursor_row().rstrip() == "› half a line")
        for change in changes:
            window.resize(*change)
            time.sleep(0.3)
        window.wait_for(lambda: window.cursor_row().rstrip() == "› half a line")
        # The bar comes once tmux has told where the cursor is.
        window.wait_for("1 round")
        window.wait_for(lambda: "\n".join(window.lines()).count("1 round") == 1)
        lines = window.lines()
    assert [line for line in lines if "half a line" in line] == ["› half a line"]

"""The bar below the line of `moa chat`: what it says, and what a narrow terminal still shows."""

from __future__ import annotations

import pytest

from tests.support.command import Moa
from tests.support.talk import at_empty_prompt


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "lab · 1 round · 3 → lab:agg · 0 tokens"),
        (34, "lab · 3 → lab:agg · 0 tokens"),
        (22, "lab · 3 → lab:agg"),
        (12, "lab"),
        (3, "l…"),
    ],
)
def test_a_narrow_terminal_shows_the_most_important_parts_whole(
    moa: Moa, columns: int, shown: str
) -> None:
    with moa.terminal("chat", columns=columns, rows=12) as terminal:
        at_empty_prompt(terminal)
        terminal.wait_for(lambda: terminal.shown()[-1].strip() == shown)

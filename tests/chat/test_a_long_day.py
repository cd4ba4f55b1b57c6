"""`moa chat` for a day: whatever is done at the terminal, each line of each reply stands in the
scrollback once, and memory does not grow.

MOA_DAY sets how many turns the day has.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.day import hold_day
from tests.support.tmux import needs_tmux
from tests.support.upstream import Upstream

TURNS = int(os.environ.get("MOA_DAY", "24"))
# Turns after which all that is loaded late has been loaded.
_WARM = 12
_GROWTH_KB = 20_000

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    needs_tmux,
    pytest.mark.slow,
    pytest.mark.timeout(60 + 10 * TURNS),
]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_each_line_of_each_reply_stands_in_the_scrollback_once(
    moa: Moa, upstream: Upstream, tmp_path: Path, columns: int, rows: int
) -> None:
    day = hold_day(moa, upstream, tmp_path, turns=TURNS, columns=columns, rows=rows)
    assert day.wrong() == {}
    stopped = [turn for turn in day.turns if turn.stopped]
    assert all(day.counts()[turn.tags[0]] == 1 for turn in stopped)
    assert day.turns[-1].rss - day.turns[_WARM].rss < _GROWTH_KB
    assert not any("Traceback" in line for line in day.lines)

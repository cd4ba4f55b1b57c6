"""A day at `moa chat`: 120 turns of all kinds, in a real terminal (tmux) of 80×24 and of 200×50.

In its turns the window changes its size, texts of many lines are pasted, models fail, replies are
stopped, and the program is suspended. Counted is how many lines of the replies stand in the
scrollback in the end other than once. Memory is how much more the process holds after the last turn
than after the twentieth (of a shorter day: after the first sixth).

Beside the last third of the day, a chat that has just begun holds the same turns, in turn with it.
Each turn's time, from Enter to the next prompt, is divided by that of its like; the median is told,
and the ratio of all CPU seconds of the two processes. *of the first third*: the same for the turns
of their kind in the day's own first third, which ran minutes earlier. In a long conversation each
call sends tens of thousands of tokens. The time has in it that the endpoint, a thread of the
script, reads them; CPU has not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import environment_line, table
from tests.support.command import KEY, Moa
from tests.support.day import Chatting, Turn
from tests.support.upstream import Upstream

_ROOT = Path(__file__).parents[1]
_SIZES = ((80, 24), (200, 50))
# After so many turns, their kinds and what happens in them come again.
_PERIOD = 24
# Turns of a fresh chat that are not compared: much is loaded late.
_WARM_UP = 4


def measure_here(columns: int, rows: int, turns: int) -> list[str]:
    """Hold a day in a window of that size, and beside its end the beginning of another."""
    third = turns // 3
    first = turns - third
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as beside,
        Upstream(api_key=KEY) as upstream,
        _chat(upstream, Path(folder), columns, rows) as long,
        _chat(upstream, Path(beside), columns, rows) as fresh,
    ):
        for number in range(first):
            long.hold_turn(number)
        for number in range(max(0, first - _WARM_UP), first):
            fresh.hold_turn(number)
        for number in range(first, turns):
            # Neither is always the first to hold a turn.
            for chatting in (long, fresh) if number % 2 else (fresh, long):
                chatting.hold_turn(number)
        day, other = long.leave(), fresh.leave()
    last = day.turns[-third:]
    pairs = list(zip(last, other.turns[-third:], strict=True))
    like = [(turn, early) for turn in last for early in day.turns[:third] if _alike(turn, early)]
    growth = (day.turns[-1].rss - day.turns[turns // 6 - 1].rss) / 1024
    return [
        f"{columns}×{rows}",
        str(sum(len(turn.tags) for turn in day.turns)),
        str(len(day.wrong()) + len(other.wrong())),
        f"{growth:.1f}",
        *_ratios(pairs),
        *_ratios(like),
    ]


def _chat(upstream: Upstream, folder: Path, columns: int, rows: int) -> Chatting:
    return Chatting(Moa(folder, upstream.url), upstream, folder, columns=columns, rows=rows)


def _alike(turn: Turn, other: Turn) -> bool:
    return turn.number % _PERIOD == other.number % _PERIOD


def _ratios(pairs: Sequence[tuple[Turn, Turn]]) -> list[str]:
    """Of the first to the second: the median of the times, and all CPU seconds."""
    if not pairs:
        return ["–", "–"]
    time = statistics.median(turn.seconds / other.seconds for turn, other in pairs)
    spent, others = (sum(turn.cpu_seconds for turn in turns) for turns in zip(*pairs, strict=True))
    return [f"{time:.2f}", f"{spent / others:.2f}"]


def measure(turns: int) -> list[list[str]]:
    """Measure all sizes, each in a process of its own, at the same time."""
    command = [sys.executable, "-m", "benchmarks.chat_day", "--turns", str(turns), "--cell"]
    processes = [
        subprocess.Popen(
            [*command, str(columns), str(rows)], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        for columns, rows in _SIZES
    ]
    found = [process.communicate()[0] for process in processes]
    for process in processes:
        if process.returncode:
            sys.exit(process.returncode)
    return [json.loads(row) for row in found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat_day")
    parser.add_argument("--turns", type=int, default=120, help="at least 6")
    parser.add_argument("--cell", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        columns, rows = given.cell
        print(json.dumps(measure_here(columns, rows, given.turns)))
        return
    found = measure(given.turns)
    print(environment_line(f"{given.turns} turns"))
    heads = ["window", "lines of replies", "of these not there once", "memory, more MB"]
    heads += ["time of a turn, of a fresh chat", "its CPU", "of the first third", "its CPU"]
    print(table(heads, found))


if __name__ == "__main__":
    main()

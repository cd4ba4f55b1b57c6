"""CPU seconds for showing a Markdown reply while it streams in.

A reply of mixed Markdown arrives at 100 tokens a second, one token a chunk, on a terminal of 40
rows; time is simulated, so that the number of frames is that of a real run. Each cell is a
process of its own. *ours*: the sink that `moa` uses, with the status line below the reply. *aider*:
the Markdown stream of aider-chat 0.86.2, installed by the script into an environment of its own.
*naive*: Rich's `Live(Markdown(text so far))` ten times a second. *raw*: printing the chunks.
*whole*: one rendering of the finished text. In brackets: the longest single step, milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import json
import os
import platform
import selectors
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.replies import chunks, long_blocks, mixed, sample

_ROOT = Path(__file__).parents[1]
_AIDER = "aider-chat==0.86.2"
_ROWS = 40
_TOKENS_PER_SECOND = 100
_FRAME_SECONDS = 0.1
_BURST = int(_TOKENS_PER_SECOND * _FRAME_SECONDS)
# Cells that take longer are measured once.
_WORTH_REPEATING = 5.0


class Terminal(io.StringIO):
    """Takes text as a terminal would, and drops it; its size is told by COLUMNS and LINES."""

    def write(self, text: str) -> int:
        return len(text)

    def isatty(self) -> bool:
        return True


class Stopwatch:
    """CPU seconds of this process: in all, and of the longest step."""

    def __init__(self) -> None:
        self.total = 0.0
        self.longest = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        began = time.process_time()
        yield
        spent = time.process_time() - began
        self.total += spent
        self.longest = max(self.longest, spent)


class _Skip(selectors.SelectSelector):
    """Does not wait: it moves the clock on by the time that it should have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class _SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._skip = _Skip()
        super().__init__(self._skip)

    def time(self) -> float:
        return self._skip.now


def simulate(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` with all its waiting skipped."""
    with asyncio.Runner(loop_factory=_SimulatedLoop) as runner:
        runner.run(main)


def bursts(text: str) -> Iterator[list[str]]:
    """The chunks that arrive from one frame to the next."""
    arriving = chunks(text)
    while burst := list(islice(arriving, _BURST)):
        yield burst


def ours(text: str, watch: Stopwatch) -> None:
    """The sink of the program itself, its own ticker and all."""
    from moa_cli.core.events import (
        AggregatorDelta,
        AggregatorFinished,
        AggregatorStarted,
        TurnStarted,
    )
    from moa_cli.terminal.board.live import MarkdownReply
    from moa_cli.terminal.board.status import TurnStatus

    async def stream() -> None:
        sink = MarkdownReply(Terminal(), status=TurnStatus(lambda: "Esc: stop"))
        sink.handle(TurnStarted(profile="p", prompt="?", rounds=0, aggregator="m"))
        sink.handle(AggregatorStarted(name="m", model="m", references=0))
        for burst in bursts(text):
            for chunk in burst:
                with watch.step():
                    sink.handle(AggregatorDelta(text=chunk))
            # In no time of the loop's, but in that of the one frame which falls due.
            with watch.step():
                await asyncio.sleep(_FRAME_SECONDS)
        with watch.step():
            sink.handle(AggregatorFinished(model="m", text=text))
            sink.close()

    simulate(stream())


def status_share(seconds: int = 200) -> float:
    """The share of a core that the status line takes of itself: drawn ten times a second below a
    reply of which so many tokens come, and nothing else is drawn."""
    from moa_cli.core.events import AggregatorDelta, AggregatorStarted, TurnStarted
    from moa_cli.terminal.board.live import console_for
    from moa_cli.terminal.board.screen import Screen
    from moa_cli.terminal.board.status import status_line
    from moa_cli.terminal.board.view import TurnView
    from moa_cli.terminal.line import Styles

    terminal, view = Terminal(), TurnView()
    screen, styles = Screen(terminal), Styles(console_for(terminal))
    view.apply(TurnStarted(profile="p", prompt="?", rounds=0, aggregator="m"))
    view.apply(AggregatorStarted(name="a-model-of-some-lab", model="m", references=3))
    spent = 0.0
    for frame in range(int(seconds / _FRAME_SECONDS)):
        now = frame * _FRAME_SECONDS
        for _ in range(_BURST):
            view.apply(AggregatorDelta(at=now, text="word "))
        began = time.process_time()
        screen.commit([], [status_line(view, now, 80, "Esc: stop").ansi(styles)])
        spent += time.process_time() - began
    return spent / seconds


def aider(text: str, watch: Stopwatch) -> None:
    """aider's MarkdownStream; how long it rests between renderings is left to itself."""
    module: Any = importlib.import_module("aider.mdstream")
    live = module.Live
    arrived, since = 0.0, time.perf_counter()
    module.time = SimpleNamespace(time=lambda: arrived + time.perf_counter() - since)
    # Its refreshing thread would run in real time.
    module.Live = lambda *given, **named: live(*given, **{**named, "auto_refresh": False})
    sys.stdout = Terminal()
    stream = module.MarkdownStream()
    known = ""
    for burst in bursts(text):
        arrived, since = arrived + _FRAME_SECONDS, time.perf_counter()
        known += "".join(burst)
        with watch.step():
            stream.update(known)
            stream.live.refresh()
    with watch.step():
        stream.update(known, final=True)
    sys.stdout = sys.__stdout__


def naive(text: str, watch: Stopwatch) -> None:
    """All of the text so far in a Live, anew for each frame that there is time for."""
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown

    known, arrived, idle_from = "", 0.0, 0.0
    with Live(console=Console(file=Terminal()), auto_refresh=False) as live:
        for burst in bursts(text):
            known += "".join(burst)
            arrived += _FRAME_SECONDS
            if arrived < idle_from and len(known) < len(text):
                continue
            before = watch.total
            with watch.step():
                live.update(Markdown(known), refresh=True)
            idle_from = arrived + watch.total - before


def raw(text: str, watch: Stopwatch) -> None:
    """Chunk by chunk as it is."""
    terminal = Terminal()
    for burst in bursts(text):
        with watch.step():
            for chunk in burst:
                print(chunk, end="", file=terminal, flush=True)


def whole(text: str, watch: Stopwatch) -> None:
    """Rendered by Rich once, when all is there."""
    from rich.console import Console
    from rich.markdown import Markdown

    with watch.step():
        Console(file=Terminal()).print(Markdown(text))


CONTESTANTS: dict[str, Callable[[str, Stopwatch], None]] = {
    "ours": ours,
    "aider": aider,
    "naive": naive,
    "raw": raw,
    "whole": whole,
}


@dataclass(frozen=True)
class Cell:
    """What one process measured; times in CPU seconds."""

    seconds: float
    longest: float


def measure_here(contestant: str, reply: str) -> Cell:
    """Measure in this process. reply: a number of tokens, or the name of a long block."""
    text = mixed(int(reply)) if reply.isdigit() else long_blocks()[reply]
    show = CONTESTANTS[contestant]
    show(sample(), Stopwatch())
    watch = Stopwatch()
    show(text, watch)
    return Cell(watch.total, watch.longest)


def measure(contestant: str, reply: str, columns: int, python: str, runs: int) -> Cell:
    """Measure in fresh processes; the median of `runs`, where that does not take too long."""
    environment = {name: value for name, value in os.environ.items() if "COLOR" not in name}
    environment |= {"COLUMNS": str(columns), "LINES": str(_ROWS), "TERM": "xterm-256color"}
    command = [python, "-m", "benchmarks.streaming_markdown", "--cell", contestant, reply]
    cells: list[Cell] = []
    while len(cells) < runs and (not cells or cells[0].seconds < _WORTH_REPEATING):
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        cells.append(Cell(**json.loads(done.stdout)))
    return Cell(
        statistics.median(cell.seconds for cell in cells),
        statistics.median(cell.longest for cell in cells),
    )


def aider_python(cache: Path) -> str | None:
    """The interpreter of an environment with aider and the Rich that moa uses, made if need be."""
    folder = cache / f"{_AIDER}-rich-{version('rich')}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        uv = shutil.which("uv")
        if uv is None:
            return None
        packages = [f"rich=={version('rich')}", "packaging"]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [*install, "--no-deps", _AIDER],
            [*install, *packages],
        ):
            if subprocess.run(command, check=False).returncode:
                shutil.rmtree(folder, ignore_errors=True)
                return None
    return str(python)


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def compare(sizes: list[int], columns: int, pythons: dict[str, str], runs: int) -> None:
    """Print the table of one width."""
    print(f"\nCPU seconds, {columns} columns (in brackets: the longest single step, ms)\n")
    row("tokens", *pythons)
    row("---:", *("---:" for _ in pythons))
    cells: dict[tuple[str, int], Cell] = {}
    for size in sizes:
        for name, python in pythons.items():
            cells[name, size] = measure(name, str(size), columns, python, runs)
        told = [cells[name, size] for name in pythons]
        row(size, *(f"{one.seconds:.3f} ({one.longest * 1000:.1f})" for one in told))
    print()
    if {8_000, 32_000} <= set(sizes):
        growth = cells["ours", 32_000].seconds / cells["ours", 8_000].seconds
        print(f"ours, 32k over 8k: {growth:.2f} (goal: at most 5.5)")
    if 8_000 in sizes and "whole" in pythons:
        share = cells["ours", 8_000].seconds / cells["whole", 8_000].seconds
        print(f"ours over one whole rendering at 8k: {share:.1f} (goal: under 20)")
    longest = max(cells["ours", size].longest for size in sizes) * 1000
    print(f"ours, longest step: {longest:.1f} ms (goal: at most 30)")


def compare_long_blocks(columns: int, runs: int) -> None:
    """Print the table of the replies that are one long block."""
    print(f"\nReplies of one long block, ours, {columns} columns\n")
    row("reply", "CPU seconds", "longest step, ms", "whole, seconds")
    row("---", "---:", "---:", "---:")
    for name in long_blocks():
        mine = measure("ours", name, columns, sys.executable, runs)
        once = measure("whole", name, columns, sys.executable, runs)
        row(name, f"{mine.seconds:.3f}", f"{mine.longest * 1000:.1f}", f"{once.seconds:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming_markdown")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 2_000, 8_000, 32_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[80, 120])
    parser.add_argument("--runs", type=int, default=3, help="a cell is the median of so many")
    parser.add_argument(
        "--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    parser.add_argument("--cache", type=Path, default=cache / "moa-benchmarks")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(vars(measure_here(*given.cell))))
        return
    pythons = dict.fromkeys(given.only, sys.executable)
    if "aider" in pythons:
        found = aider_python(given.cache)
        if found is None:
            print(f"skipped: aider, because {_AIDER} could not be installed with uv")
            del pythons["aider"]
        else:
            pythons["aider"] = found
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, rich {version('rich')}")
    for columns in given.columns:
        compare(given.sizes, columns, pythons, given.runs)
    for columns in given.columns:
        compare_long_blocks(columns, given.runs)
    print(f"\nThe status line takes {status_share():.2%} of one core (goal: at most 1 %).")


if __name__ == "__main__":
    main()

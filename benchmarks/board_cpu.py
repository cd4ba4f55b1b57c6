"""CPU share of one core while proposers stream and the board shows them.

Each proposer gives 100 tokens a second for ten seconds, over HTTP from another process, through
the real client and engine, at a pseudo-terminal of 120×40. Each cell is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import platform
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from benchmarks.replies import chunks, mixed
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation
from moa_cli.core.events import Caller, Event, LayerStarted, ProposerDelta, TurnStarted
from moa_cli.core.stream import EventQueue, Sink, deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build
from moa_cli.terminal.board.live import Board

_ROOT = Path(__file__).parents[1]
_COLUMNS, _ROWS = 120, 40
_TOKENS_PER_SECOND = 100
# Between two chunks of the endpoint's, which takes its time for sending one, too.
_PAUSE = 0.009
_WARM_UP = 2.0
CELLS = ("all", "all but the board", "events and the board", "events")


def answer(seconds: float) -> list[str]:
    """The chunks of an answer that outlasts a measurement of so many seconds."""
    return list(chunks(mixed(int((_WARM_UP + seconds) * _TOKENS_PER_SECOND * 1.2))))


@contextmanager
def terminal() -> Iterator[TextIO]:
    """A pseudo-terminal that another process reads from."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    reader = subprocess.Popen(
        [sys.executable, "-c", "import os\nwhile os.read(0, 65536): pass"],
        stdin=master,
        stderr=subprocess.DEVNULL,
    )
    os.close(master)
    try:
        with open(slave, "w", encoding="utf-8") as stream:
            yield stream
    finally:
        reader.wait()


@contextmanager
def upstream(seconds: float) -> Iterator[str]:
    """The URL of a model endpoint in another process."""
    command = [sys.executable, "-m", "benchmarks.board_cpu", "--serve", "--seconds", str(seconds)]
    with subprocess.Popen(
        command, cwd=_ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("")


def serve(seconds: float) -> None:
    """Be that endpoint until standard input ends."""
    from tests.support.upstream import Reply, Upstream

    with Upstream() as server:
        server.always("*", Reply(chunks=answer(seconds), pause=_PAUSE))
        print(server.url, flush=True)
        sys.stdin.read()


async def simulated(proposers: int, seconds: float) -> AsyncGenerator[Event, None]:
    """The events of a layer, without engine and network, each proposer in a task of its own."""
    now = asyncio.get_running_loop().time
    began = now()

    async def proposer(index: int) -> None:
        for number, chunk in enumerate(answer(seconds)):
            await asyncio.sleep(began + number / _TOKENS_PER_SECOND - now())
            queue.emit(ProposerDelta(at=now() - began, layer=1, index=index, text=chunk))

    async def layer() -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(proposers):
                group.create_task(proposer(index))

    yield TurnStarted(profile="p", prompt="?", rounds=1, aggregator="agg")
    callers = tuple(Caller(name=f"model-{n}", model=f"m{n}") for n in range(proposers))
    yield LayerStarted(layer=1, proposers=callers)
    async with EventQueue() as queue:
        queue.start(layer())
        async for event in queue:
            yield event


def asked(proposers: int, url: str) -> tuple[AsyncGenerator[Event, None], ClientPool]:
    """The events of a real turn over HTTP."""
    settings = ProviderSettings(base_url=url, api_key_env="KEY")
    pool = ClientPool(Config(providers={"lab": settings}), {"KEY": "some-key-0123456789"})
    table = {
        "aggregator": {"model": "lab:agg"},
        "proposers": [{"model": f"lab:model-{n}"} for n in range(proposers)],
    }
    return run_turn(build("p", table), Conversation().ask("?"), pool), pool


class Counter:
    """A sink that counts tokens."""

    tokens = 0

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self.tokens += isinstance(event, ProposerDelta)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Cell:
    """share: CPU seconds a second. rate: tokens a second from all proposers."""

    share: float
    rate: float


async def watched(
    events: AsyncGenerator[Event, None], sinks: Sequence[Sink], seconds: float
) -> Cell:
    """Deliver the events for so long, and tell what it took."""
    counter = Counter()
    delivery = asyncio.create_task(deliver(events, *sinks, counter))
    await asyncio.wait([delivery], timeout=_WARM_UP)
    spent, tokens, began = time.process_time(), counter.tokens, time.perf_counter()
    await asyncio.wait([delivery], timeout=seconds)
    took = time.perf_counter() - began
    cell = Cell((time.process_time() - spent) / took, (counter.tokens - tokens) / took)
    delivery.cancel()
    with suppress(asyncio.CancelledError):
        await delivery
    return cell


async def measure_here(name: str, proposers: int, seconds: float) -> Cell:
    """Measure one cell in this process."""
    with terminal() as stream:
        sinks = [Board(stream)] if name in ("all", "events and the board") else []
        if name.startswith("events"):
            return await watched(simulated(proposers, seconds), sinks, seconds)
        with upstream(seconds) as url:
            events, pool = asked(proposers, url)
            try:
                return await watched(events, sinks, seconds)
            finally:
                await pool.aclose()


def measure(name: str, proposers: int, seconds: float) -> Cell:
    """Measure one cell in a fresh process."""
    environment = {key: value for key, value in os.environ.items() if "COLOR" not in key}
    command = [sys.executable, "-m", "benchmarks.board_cpu", "--cell", name]
    command += ["--proposers", str(proposers), "--seconds", str(seconds)]
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env=environment | {"TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return Cell(**json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.board_cpu")
    parser.add_argument("--proposers", type=int, nargs="+", default=[8, 6])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cell", choices=CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.seconds)
        return
    if given.cell:
        cell = asyncio.run(measure_here(given.cell, given.proposers[0], given.seconds))
        print(json.dumps(vars(cell)))
        return
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {_COLUMNS}×{_ROWS}\n")
    print("| proposers | what runs | tokens/s | % of one core |")
    print("| ---: | --- | ---: | ---: |")
    for proposers in given.proposers:
        for name in CELLS:
            cell = measure(name, proposers, given.seconds)
            print(f"| {proposers} | {name} | {cell.rate:.0f} | {cell.share:.1%} |", flush=True)


if __name__ == "__main__":
    main()

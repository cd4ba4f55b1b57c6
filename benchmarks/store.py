"""Wall time of commands that read kept conversations, at a small and at a large store.

Whole processes, start-up included. Conversations have ten turns with three proposals each, 250
words a text, words as frequent as in a language; the file is in the page cache.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import os
import platform
import pty
import random
import select
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.startup import Taken, home
from moa_cli.core.conversation import Proposal, Turn, Usage
from moa_cli.store.database import open_database
from moa_cli.store.stored_values import dump, pack, without_defaults

_SIZES = (1_000, 100_000)
_TURNS_OF_ONE = 10
_MODELS = ("lab:a", "lab:b", "lab:c")
_VOCABULARY, _PROMPT_WORDS, _REPLY_WORDS = 30_000, 25, 250
_SETTINGS = 'rounds = 1\n[aggregator]\nmodel = "lab:agg"\n'
_RARE, _TITLE = "xylophone", "About the marimba"
# Chinese characters, and how often a text of Chinese is written.
_CHARACTERS, _CHARACTERS_OF_ONE, _EVERY = 2000, 200, 20
_MOA = ["-m", "moa_cli"]


class _Words:
    """Text whose words come as often as those of a language: the nth as 1 in n."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        syllables = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an")]
        made = dict.fromkeys(
            "".join(self._random.choices(syllables, k=self._random.choice((1, 2, 2, 3, 3, 4))))
            for _ in range(_VOCABULARY * 2)
        )
        self.vocabulary = list(made)[:_VOCABULARY]
        self._weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(_VOCABULARY)))

    def text(self, count: int) -> str:
        """About that many words."""
        count = self._random.randint(count // 2, count * 3 // 2)
        total = self._weights[-1]
        places = (bisect.bisect(self._weights, self._random.random() * total) for _ in range(count))
        return " ".join(self.vocabulary[place] for place in places)

    def chinese(self) -> str:
        """A text without spaces, some characters more frequent than others."""
        places = (int(_CHARACTERS * self._random.random() ** 3) for _ in range(_CHARACTERS_OF_ONE))
        return "".join(chr(0x4E00 + place) for place in places)


def build(file: Path, turns: int) -> _Words:
    """Make a store of that many turns; returns the words it is made of."""
    words = _Words(1)
    # Proposals are not indexed: it is enough that they differ.
    proposals = [words.text(_REPLY_WORDS) for _ in range(1000)]
    connection, _ = open_database(file)
    identities = random.Random(2).sample(range(10**9, 10**10), turns // _TURNS_OF_ONE)
    connection.execute("BEGIN")
    for number, identity in enumerate(identities):
        _conversation(connection, words, proposals, str(identity), number)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return words


def _conversation(
    connection: sqlite3.Connection,
    words: _Words,
    proposals: list[str],
    identity: str,
    number: int,
) -> None:
    began = 1.7e9 + number * 3600
    connection.execute(
        "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
        (identity, _TITLE if number % 1000 == 9 else words.text(8)[:60], "lab", began, began),
    )
    for place in range(_TURNS_OF_ONE):
        reply = words.text(_REPLY_WORDS)
        if number % 100 == 7 and place == 3 and number < 1000:
            reply += f" {_RARE}"
        if number % _EVERY == 0:
            reply += f" {words.chinese()}"
        turn = connection.execute(
            "INSERT INTO turns (conversation_id, started, process, profile, settings, prompt,"
            " status, reply, rest) VALUES (?, ?, 0, 'lab', ?, ?, 'finished', ?, ?)",
            (identity, began + place, _SETTINGS, words.text(_PROMPT_WORDS), reply, _rest()),
        ).lastrowid
        connection.executemany(
            "INSERT INTO proposals VALUES (?, 1, ?, ?)",
            (
                (turn, index, _proposal(index, proposals[(number + place + index) % 1000]))
                for index in range(len(_MODELS))
            ),
        )


def _rest() -> str:
    turn = Turn("", profile="lab", model="lab:agg", usage=Usage(900, 900, calls=4), seconds=3.5)
    return dump(without_defaults(turn))


def _proposal(index: int, text: str) -> bytes:
    model = _MODELS[index]
    made = Proposal(1, index, model, model, text, usage=Usage(100, 300, calls=1), seconds=1.5)
    return pack(without_defaults(made))


def commands(words: _Words) -> dict[str, list[str]]:
    """The arguments of each command, by what is printed for it; `words` tells what is common."""
    common, less_common = words.vocabulary[0], words.vocabulary[20]
    return {
        "moa --version": ["--version"],
        "moa history list": ["history", "list"],
        "moa history list --json -n 100": ["history", "list", "--json", "-n", "100"],
        "moa history search, a rare word": ["history", "search", _RARE],
        "moa history search, the commonest word": ["history", "search", common],
        "moa history search, two common words": ["history", "search", common, less_common],
        "moa history search, how a rare word begins": ["history", "search", _RARE[:6]],
        "moa history search, a part of a rare word": ["history", "search", _RARE[2:-1]],
        "moa history search, Chinese": ["history", "search", "\u4e00\u4e01"],
        "moa history search, a word of a title": ["history", "search", _TITLE.split()[-1]],
        "moa history search, a phrase": ["history", "search", f'"{common} {less_common}"'],
        "moa history show": ["history", "show"],
        "moa ask -c --dry-run": ["ask", "-c", "--dry-run", "-p", "one", "hi"],
    }


# Where is the cursor? Asked when the prompt is drawn.
_AT_PROMPT = "\x1b[6n"
# The arguments, and what is then waited for at a terminal.
PROMPTS: dict[str, tuple[list[str], str]] = {
    "moa chat, to the prompt": (["chat", "-p", "one"], _AT_PROMPT),
    "moa chat -c, to the prompt": (["chat", "-c", "-p", "one"], _AT_PROMPT),
    "moa chat --resume, to the list": (["chat", "--resume", "-p", "one"], "Enter resumes"),
}


def seconds_to(arguments: list[str], text: str, environment: Mapping[str, str]) -> float:
    """The wall time from the start until a terminal has been sent that text."""
    master, slave = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *_MOA, *arguments],
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as process:
        seen = b""
        while text.encode() not in seen:
            if not select.select([master], [], [], 30)[0]:
                raise TimeoutError(f"{text!r} was not shown, but {seen!r}")
            seen += os.read(master, 65536)
        took = time.perf_counter() - began
        process.kill()
    os.close(master)
    os.close(slave)
    return took


def measure(folders: Mapping[int, Path], words: _Words, runs: int) -> dict[str, list[list[float]]]:
    """Wall times by command, then by size."""
    # No model is asked.
    environments = [home(folder, "http://127.0.0.1:9/v1") for folder in folders.values()]
    named = commands(words)
    times: dict[str, list[list[float]]] = {
        name: [[] for _ in environments] for name in [*named, *PROMPTS]
    }
    # In turn, so that a busy moment of the machine's meets them all; the first time unseen.
    for run in range(runs + 1):
        for place, environment in enumerate(environments):
            for name, taken in times.items():
                if name in named:
                    process = Taken()
                    process.add([sys.executable, *_MOA, *named[name]], environment)
                    [took] = process.wall
                else:
                    took = seconds_to(*PROMPTS[name], environment)
                if run:
                    taken[place].append(took)
    return times


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store")
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folders = {turns: Path(folder) / str(turns) for turns in _SIZES}
        heads = []
        for turns, place in folders.items():
            place.mkdir(mode=0o700)
            file = place / "conversations.db"
            words = build(file, turns)
            heads.append(f"{turns:,} turns, {file.stat().st_size / 1e6:,.0f} MB")
        times = measure(folders, words, given.runs)
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(f"{versions}, {os.cpu_count()} cores, {given.runs} runs each, median ms\n")
    print(f"| command | {' | '.join(heads)} | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name, taken in times.items():
        small, large = (statistics.median(walls) * 1000 for walls in taken)
        print(f"| `{name}` | {small:.0f} | {large:.0f} | {large / small:.2f} |")


if __name__ == "__main__":
    main()

"""The first turn of `moa chat` beside the second: from Enter to the reply, after a time of typing.

While the user types, the chat loads what a turn needs and opens connections. What is still left for
the first turn shows as the difference. Each chat is a process of its own, at a pseudo-terminal.
"""

from __future__ import annotations

import argparse
import os
import platform
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.startup import home
from tests.support.upstream import Reply, Upstream

_TURNS = 3
_REPLY = "Hello."
_PROMPT = "›"
# Where is the cursor? Asked when a prompt is drawn; a terminal answers.
_CURSOR_ASKED, _CURSOR = b"\x1b[6n", b"\x1b[1;1R"
_PATIENCE = 30.0


class Chat:
    """`moa chat` at a pseudo-terminal."""

    def __init__(self, profile: str, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._seen = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moa_cli", "chat", "-p", profile],
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._wait_for(_PROMPT)

    def turn(self, typing: float) -> float:
        """The seconds from Enter to the reply, after so many seconds of typing."""
        self._read(typing)
        os.write(self._master, b"hi")
        # The line is drawn anew; that is not measured.
        self._read(0.2)
        self._seen = b""
        began = time.perf_counter()
        os.write(self._master, b"\r")
        self._wait_for(_REPLY)
        took = time.perf_counter() - began
        self._wait_for(_PROMPT)
        return took

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while text.encode() not in self._seen:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} was not shown, but {self._seen!r}")
            self._read(0.01, once=True)

    def _read(self, seconds: float, *, once: bool = False) -> None:
        """Read what is shown within that time; once: only until there is something."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._master], [], [], left)[0]:
                return
            shown = os.read(self._master, 65536)
            self._seen += shown
            if _CURSOR_ASKED in shown:
                os.write(self._master, _CURSOR)
            if once:
                return


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat_turns")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--typing", type=float, default=2.0, help="seconds before the first Enter")
    given = parser.parse_args()
    took: dict[str, list[list[float]]] = {"one": [], "three": []}
    with tempfile.TemporaryDirectory() as folder, Upstream() as upstream:
        upstream.always("*", Reply(text=_REPLY))
        environment = home(Path(folder), upstream.url)
        for _ in range(given.runs):
            for profile, chats in took.items():
                chat = Chat(profile, environment)
                try:
                    chats.append([chat.turn(given.typing) for _ in range(_TURNS)])
                finally:
                    chat.close()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {given.runs} runs each;")
    print(f"{given.typing} s of typing; medians, ms\n")
    print("| profile | first turn | second | third | first less second |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for profile, chats in took.items():
        turns = [statistics.median(times) * 1000 for times in zip(*chats, strict=True)]
        more = statistics.median(first - second for first, second, _ in chats) * 1000
        figures = " | ".join(f"{turn:.0f}" for turn in turns)
        print(f"| {profile} | {figures} | {more:.0f} |")


if __name__ == "__main__":
    main()

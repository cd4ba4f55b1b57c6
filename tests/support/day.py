"""A day at `moa chat`, as a script: many turns of all kinds, with pastes, faults, stops, changes of
the window's size and suspensions, in a real terminal."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.command import PATIENCE, Moa
from tests.support.tmux import Tmux
from tests.support.upstream import Reply, Upstream

__all__ = ["Chatting", "Day", "Turn", "hold_day"]

# What each line of a reply is known by: the turn and the line. No width of a window folds it.
_TAG = re.compile(r"t\d{3}n\d{3}")
_PROMPT = re.compile(r"^› ?")
_SHELL = "shell$"
_WIDE = "漢字かな交じり文 שלום עולם 🙂 e\u0301"
_SIZES = ((60, 15), (80, 24), (100, 30), (132, 43), (200, 50), (72, 20))
_PIECE_SECONDS = 0.001


@dataclass
class Turn:
    """What was done in a turn, and what was found. seconds: from Enter to the next prompt.

    cpu_seconds: of CPU that the process took in that time. rss: kilobytes of memory that it takes
    afterwards. stopped: whether the reply was cut.
    """

    number: int
    kind: str
    doing: str
    tags: list[str]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rss: int = 0
    stopped: bool = False


@dataclass
class Day:
    """All turns, and the scrollback in the end."""

    turns: list[Turn] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def counts(self) -> Counter[str]:
        """How often each line of each reply stands in the scrollback."""
        return Counter(_TAG.findall("\n".join(self.lines)))

    def wrong(self) -> dict[str, int]:
        """The lines of replies that do not stand in the scrollback once, and how often they do."""
        counts = self.counts()
        # Of a reply that was stopped, the later lines have not come.
        return {
            tag: counts[tag]
            for turn in self.turns
            for tag in turn.tags
            if counts[tag] > 1 or (counts[tag] == 0 and not turn.stopped)
        }


def _tag(turn: int, line: int) -> str:
    return f"t{turn:03}n{line:03}"


def reply_of(turn: int) -> tuple[str, str]:
    """The kind of the reply of a turn, and its Markdown, each line with a tag of its own."""

    def tags(count: int) -> list[str]:
        return [_tag(turn, line) for line in range(count)]

    match turn % 8:
        case 0:
            return "paragraphs", "\n\n".join(f"{tag} is a short paragraph." for tag in tags(9))
        case 1:
            return "list", "\n".join(f"- {tag} is an item of a list" for tag in tags(40))
        case 2:
            code = "\n".join(f"    value = work({tag!r})  # comment" for tag in tags(60))
            return "code", f"Here it is:\n\n```python\ndef work(name):\n{code}\n```\n\nThat is all."
        case 3:
            rows = "\n".join(f"| {tag} | {number} |" for number, tag in enumerate(tags(12)))
            return "table", f"| name | number |\n|---|---|\n{rows}\n"
        case 4:
            return "headings", "\n\n".join(f"## {tag}\n\n> a quotation" for tag in tags(8))
        case 5:
            return "wide", "\n\n".join(f"{tag} {_WIDE}" for tag in tags(12))
        case 6:
            return "prose", " ".join(f"{tag} and five or six more words" for tag in tags(80))
        case _:
            return "long", "\n".join(f"{number + 1}. {tag}" for number, tag in enumerate(tags(200)))


class _Script:
    """What the models answer in the turn that is held."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def prepare(self, turn: int, doing: str) -> None:
        """Script the next turn."""
        proposal = Reply(text=f"A proposal for question {turn}. " * 5, pause=_PIECE_SECONDS)
        for model in ("a", "b", "c"):
            self.upstream.always(model, proposal)
        _, text = reply_of(turn)
        pieces = re.findall(r"\S+\s*|\s+", text)
        reply = Reply(chunks=pieces, pause=_PIECE_SECONDS)
        self.upstream.always("agg", reply)
        match doing:
            case "lost":
                self.upstream.enqueue("b", Reply(status=500))
            case "refused":
                self.upstream.enqueue("agg", Reply(status=400))
            case "enough":
                self.upstream.enqueue("c", Reply(text="Never ends", stall_after=1))
            case "stopped":
                middle = len(pieces) // 2
                self.upstream.enqueue("agg", Reply(chunks=pieces, stall_after=middle))
            case "suspended" | "resized":
                slow = Reply(chunks=pieces, pause=max(_PIECE_SECONDS, 0.8 / len(pieces)))
                self.upstream.enqueue("agg", slow)
            case "resized early":
                slow = Reply(text="A slow proposal. " * 20, pause=0.015)
                self.upstream.enqueue("a", slow)
                self.upstream.enqueue("b", slow)


_DOINGS = {
    3: "lost",
    5: "suspended",
    6: "refused",
    8: "enough",
    9: "stopped",
    10: "pasted",
    1: "resized early",
    2: "resized",
    11: "suspended before",
}


class Chatting:
    """`moa chat`, started from a shell in a window of that size, which is all of its environment.

    seed: for what happens by chance. resizing: whether the window's size changes.
    """

    def __init__(
        self,
        moa: Moa,
        upstream: Upstream,
        folder: Path,
        *,
        columns: int,
        rows: int,
        seed: int = 1,
        resizing: bool = True,
    ) -> None:
        self.day = Day()
        self._size = columns, rows
        self._random = random.Random(seed) if resizing else None
        self._script = _Script(upstream)
        environment = moa.environment | {"PS1": f"{_SHELL} ", "PROMPT_COMMAND": "", "HISTFILE": ""}
        shell = ("bash", "--norc", "--noprofile", "-i")
        self.window = Tmux(folder, environment, *shell, columns=columns, rows=rows)

    def __enter__(self) -> Self:
        self.window.wait_for(_SHELL)
        self.window.type(f"clear; {sys.executable} -m moa_cli chat")
        self.window.press("Enter")
        _at_prompt(self.window)
        self._pid = _child_of(self.window.pid())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.window.__exit__(kind, error, traceback)

    def hold_turn(self, number: int) -> Turn:
        """Hold the turn of that number, which says what happens in it."""
        before = _cpu_seconds(self._pid)
        turn = _hold_turn(self.window, self._script, number, self._random)
        turn.cpu_seconds = _cpu_seconds(self._pid) - before
        turn.rss = _rss(self._pid)
        self.day.turns.append(turn)
        return turn

    def leave(self) -> Day:
        """Leave the chat; all that was held."""
        self.window.resize(*self._size)
        self.window.type("/exit")
        self.window.press("Enter")
        self.window.wait_for(lambda: self.window.cursor_row().startswith(_SHELL))
        self.day.lines = self.window.lines()
        return self.day


def hold_day(
    moa: Moa,
    upstream: Upstream,
    folder: Path,
    *,
    turns: int,
    columns: int,
    rows: int,
    seed: int = 1,
    pace: float = 0.0,
    resizing: bool = True,
    look: Callable[[Turn, Tmux], None] = lambda turn, window: None,
) -> Day:
    """Hold a conversation of so many turns in a window of that size.

    pace: seconds from the start of one turn to the start of the next, at least. resizing: whether
    the window's size changes. look: called after each turn.
    """
    with Chatting(
        moa, upstream, folder, columns=columns, rows=rows, seed=seed, resizing=resizing
    ) as chatting:
        for number in range(turns):
            began = time.monotonic()
            look(chatting.hold_turn(number), chatting.window)
            time.sleep(max(0.0, began + pace - time.monotonic()))
        return chatting.leave()


def _hold_turn(window: Tmux, script: _Script, number: int, some: random.Random | None) -> Turn:
    kind, text = reply_of(number)
    doing = _DOINGS.get(number % 12, "")
    if some is None and doing.startswith("resized"):
        doing = ""
    turn = Turn(number, kind, doing, _TAG.findall(text))
    script.prepare(number, doing)
    if doing == "suspended before":
        window.press("C-z")
        _resume(window)
    prompt = f"Question {number}: what is there to say?"
    if doing == "pasted":
        window.paste("\n".join(["Look at this:", *(f"    line {line}" for line in range(40))]))
        prompt = " What is it?"
    window.type(prompt)
    window.wait_for(lambda: prompt.strip()[-12:] in "\n".join(window.screen()))
    began, calls = time.monotonic(), len(script.upstream.chats())
    window.press("Enter")
    # The line is still on the screen, as at a prompt, until the Enter is read.
    script.upstream.wait_for(lambda: len(script.upstream.chats()) > calls)
    match doing:
        case "resized early" if some is not None:
            _wait_for_work(window)
            for _ in range(3):
                window.resize(*some.choice(_SIZES))
                time.sleep(0.15)
        case "resized" if some is not None:
            _wait_for_reply(window, number)
            for _ in range(3):
                window.resize(*some.choice(_SIZES))
                time.sleep(0.15)
        case "suspended":
            _wait_for_reply(window, number)
            window.press("C-z")
            _resume(window)
        case "enough":
            # Before any answer, an Esc would cancel the turn.
            window.wait_for("write the reply now")
            window.press("Escape")
        case "stopped":
            _wait_for_reply(window, number)
            time.sleep(0.5)
            window.press("C-c")
            turn.stopped = True
        case "refused":
            # The question waits in the line; Enter asks it again.
            window.wait_for("refused")
            _at_prompt(window, empty=False)
            calls = len(script.upstream.chats())
            window.press("Enter")
            script.upstream.wait_for(lambda: len(script.upstream.chats()) > calls)
    script.upstream.wait_for(lambda: script.upstream.in_flight == 0)
    _at_prompt(window)
    turn.seconds = time.monotonic() - began
    return turn


def _resume(window: Tmux) -> None:
    window.wait_for(lambda: window.cursor_row().startswith(_SHELL))
    window.type("fg")
    window.press("Enter")
    time.sleep(0.2)


def _wait_for_work(window: Tmux) -> None:
    window.wait_for(lambda: "lab:c" in "\n".join(window.screen()))


def _wait_for_reply(window: Tmux, number: int) -> None:
    window.wait_for(lambda: _tag(number, 0) in "\n".join(window.lines()))


def _at_prompt(window: Tmux, *, empty: bool = True) -> None:
    """Until a line can be typed."""

    def ready() -> bool:
        row = window.cursor_row().rstrip()
        return row == "›" if empty else bool(_PROMPT.match(row))

    window.wait_for(ready, PATIENCE)
    # A prompt that is drawn after a turn is drawn once more when its keys are read.
    time.sleep(0.05)


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def _cpu_seconds(pid: int) -> float:
    # Behind the name in brackets: user and system time are the 12th and the 13th field.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> int:
    """Kilobytes of memory that a process holds and shares with no file."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found.group(1))

"""Every call of a run that has ended, written down at once, so that none is made twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from moa_cli.bench.data.json_lines import Lines, plain, read_lines
from moa_cli.core.conversation import Usage, check_usage
from moa_cli.core.endpoints import Request
from moa_cli.core.text import dumps
from moa_cli.core.values import load_value

__all__ = ["Entry", "Journal", "call_key", "occurrence_key"]


_BEGUN = "begun.jsonl"
_KILLED = "the process was killed"


@dataclass(frozen=True)
class Entry:
    """A call that has ended: a line of calls.jsonl.

    key: see `call_key`. item, turn: what it was first made for; turn from 0. model: as the
    profile names it. usage: priced by what was known when the run began; estimated where the
    endpoint told none. seconds: from the request to the end; first_token likewise.
    when: its end, seconds since 1970. logprobs: see `Delta`. error: why there is no whole answer.
    Such a call is made again, but counts as spent.
    """

    key: str
    item: str
    turn: int
    model: str
    text: str = ""
    reasoning: str = ""
    answered_by: str | None = None
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    seconds: float = 0.0
    first_token: float | None = None
    when: float = 0.0
    logprobs: tuple[tuple[str, float], ...] | None = None
    error: str | None = None


def call_key(item: str, turn: int, model: str, request: Request) -> str:
    """What a call of an item's turn is known by, whichever arm makes it: the whole request.

    Layers need not be told apart: what a later one is sent holds the answers of the one before.
    """
    fields = plain(request)
    # Arms that ask the same share a call, wherever in their turns they ask it.
    del fields["place"]
    table = [item, turn, model, fields]
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def occurrence_key(key: str, occurrence: int) -> str:
    """The key of one of several equal calls of a turn (samples). occurrence: from 0."""
    return f"{key}-{occurrence}" if occurrence else key


def _entry(line: str) -> Entry:
    """Raises ValueError if it is none, or tells of costs that cannot be: sums and caps would
    mean nothing any more."""
    entry = load_value(Entry, json.loads(line))
    check_usage(entry.usage)
    return entry


class Journal:
    """The calls of a run. Raises BenchError if the file is damaged.

    A call is written down before it is made, too, in a file beside that is there only while the
    work is done: what a start that was killed had begun counts as spent.

    path: None keeps them in memory. spent: what all of them took, those without an answer included.
    """

    def __init__(self, path: Path | None) -> None:
        self._lines = None if path is None else Lines(path)
        self._begun = None if path is None else Lines(path.with_name(_BEGUN))
        self._in_flight: Counter[str] = Counter()
        self._entries: dict[str, Entry] = {}
        self.spent = Usage()
        if path is None:
            return
        for entry in read_lines(path, _entry):
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        self.spent += entry.usage
        if entry.error is None:
            self._entries[entry.key] = entry

    def find(self, key: str) -> Entry | None:
        """The call of that key, if it was answered."""
        return self._entries.get(key)

    def __len__(self) -> int:
        return len(self._entries)

    def take_up(self) -> None:
        """Count what a start that was killed had begun. Only for who works in the folder alone.

        Raises BenchError if that file is damaged, OSError if it cannot be counted.
        """
        if self._begun is None:
            return
        begun: dict[str, list[Entry]] = {}
        for entry in read_lines(self._begun.path, _entry):
            if entry.error is None:
                begun.setdefault(entry.key, []).append(entry)
            elif entry.key in begun:
                begun[entry.key].pop()
                if not begun[entry.key]:
                    del begun[entry.key]
        for lost in begun.values():
            for entry in lost:
                self.add(replace(entry, error=_KILLED))
        self._begun.path.unlink(missing_ok=True)

    def begin(self, entry: Entry) -> None:
        """A call is about to be made. entry: with what it may take. Raises OSError."""
        if self._begun is not None:
            self._begun.add(dumps(plain(entry)))
        self._in_flight[entry.key] += 1

    def ended(self, key: str) -> None:
        """It has ended, and stands here if it took anything. Raises OSError."""
        self._in_flight[key] -= 1
        if not self._in_flight[key]:
            del self._in_flight[key]
        if self._begun is not None:
            self._begun.add(dumps(plain(Entry(key, "", 0, "", error="ended"))))

    def add(self, entry: Entry) -> None:
        """Write down a call that has ended. Raises OSError."""
        if self._lines is not None:
            self._lines.add(dumps(plain(entry)))
        self._take(entry)

    def close(self) -> None:
        """No call will end any more."""
        if self._lines is not None:
            self._lines.close()
        if self._begun is not None:
            self._begun.close()
            if not self._in_flight:
                with contextlib.suppress(OSError):
                    self._begun.path.unlink(missing_ok=True)

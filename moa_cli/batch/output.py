"""Writes the answers of a batch to OUT. A later start reads there which prompts are answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from moa_cli.batch.growing import GrowingFile
from moa_cli.batch.index import Index, OutputLine
from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.lines import identity_of
from moa_cli.batch.prompts import Todo
from moa_cli.bench.run.journal import Result
from moa_cli.core.conversation import Failure
from moa_cli.core.outcomes import cut_text

_OUT = "out"
# Lines that wait for earlier lines stay in memory up to this many characters; further ones go to
# the index.
_MOST_HELD = 1 << 23


class OutputStream:
    """Writes lines to a stream. A written line cannot be removed again."""

    def __init__(self, stream: IO[str], index: Index) -> None:
        self._stream = stream
        self._index = index

    def add(self, line: OutputLine) -> None:
        """Write and flush a line. Raises OSError."""
        self._stream.write(line.text + "\n")
        self._stream.flush()
        self._index.settle(line.id)

    def finish(self) -> None:
        """There is nothing to do: each line is flushed when it is written."""


class OutputFile:
    """A file of lines. Its answers of earlier starts stay; its failures are replaced.

    index: it knows the prompts of the input. in_order: whether lines must have the order of their
    prompts at the end. sampled: whether prompts are asked several times.
    Raises BenchError if the file cannot be read, or a line of it is not of this batch.
    """

    def __init__(self, path: Path, index: Index, *, in_order: bool, sampled: bool) -> None:
        self._index = index
        self._sampled = sampled
        self._in_order = in_order
        self._file = GrowingFile(path, index, _OUT)
        if not self._file.fits:
            index.forget_lines()
        for start, (place, identity, good) in self._file.unread(self._read):
            index.add_line(place, start, good=good)
            if good:
                index.take_held(place)
                index.settle(identity)
        index.before_commit.append(self._file.mark)
        self._dropped = index.count_failed()
        self._changed = False

    def _read(self, line: str) -> tuple[int, str, bool]:
        """The place, the id, and whether it is an answer. Raises ValueError if the line is not of
        this batch."""
        values: Any = json.loads(line)
        found = values if isinstance(values, dict) else {}
        identity, _, good = identity_of(found, sampled=self._sampled)
        place = self._index.place(identity)
        if place is None:
            raise ValueError("no line of this batch")
        return place, identity, good

    def add(self, line: OutputLine) -> None:
        """Write a line. The first one also removes the failures of earlier starts, because these
        items are tried again."""
        if not self._changed and self._dropped:
            self._rewrite("start")
        self._changed = True
        self._index.add_line(line.place, self._file.add(line.text), good=line.good)
        if line.good:
            self._index.settle(line.id)
        if self._index.due:
            self._index.commit()

    def _rewrite(self, order: str) -> None:
        """Write the lines anew in that order; see `Index.move_lines`."""
        self._index.move_lines(order, self._file.rewrite)
        self._index.commit()

    def finish(self) -> None:
        """Put the lines in order. Raises OSError, BenchError."""
        if self._in_order and self._changed and not self._index.in_order():
            self._rewrite("place")

    def close(self) -> None:
        self._file.close()


class InOrder:
    """Holds each line back until the lines before it are written.

    Beyond a limit, the index keeps the waiting lines, so that they take no memory and survive a
    kill. count: how many places there are. A line is expected for each place that is not done.
    """

    def __init__(self, inner: OutputStream | OutputFile, index: Index, count: int) -> None:
        self._inner = inner
        self._index = index
        written = bytearray(index.done)
        self._waiting = 0
        for place in index.held():
            written[place] = 0
            self._waiting += 1
        self._places: Iterator[int] = (place for place in range(count) if not written[place])
        self._next = next(self._places, None)
        self._held: dict[int, OutputLine] = {}
        self._size = 0
        self._write()

    def add(self, line: OutputLine) -> None:
        """Write this line and those that waited for it, or hold it back."""
        if line.place != self._next:
            if self._size + len(line.text) > _MOST_HELD:
                self._index.hold(line)
                self._waiting += 1
            else:
                self._held[line.place] = line
                self._size += len(line.text)
            return
        self._inner.add(line)
        self._next = next(self._places, None)
        self._write()

    def _write(self) -> None:
        while self._next is not None:
            line = self._take(self._next)
            if line is None:
                return
            self._inner.add(line)
            self._next = next(self._places, None)

    def _take(self, place: int) -> OutputLine | None:
        line = self._held.pop(place, None)
        if line is not None:
            self._size -= len(line.text)
            return line
        held = self._index.take_held(place) if self._waiting else None
        self._waiting -= held is not None
        return held

    def finish(self) -> None:
        """Write all lines that still wait, although lines before them are missing."""
        while self._held or self._waiting:
            first = min(self._held, default=None)
            stored = next(self._index.held(), None) if self._waiting else None
            place = min(place for place in (first, stored) if place is not None)
            line = self._take(place)
            assert line is not None
            self._inner.add(line)
        self._inner.finish()


def release(index: Index, output: OutputStream | OutputFile) -> None:
    """Write the lines that an earlier start held back because it wrote in order."""
    while (place := next(index.held(), None)) is not None:
        line = index.take_held(place)
        assert line is not None
        output.add(line)


Written = OutputStream | OutputFile | InOrder


class Answers:
    """The results of a batch; see `runner.Results`.

    answered: how many items were answered. lost: how many of these answers lost a proposal. cut:
    how many of these answers were cut. failed: how many items failed. losses: how many answers lost
    a certain model, by the sentence that reports the loss.
    """

    def __init__(self, todo: Todo, journal: IndexedJournal, output: Written) -> None:
        self._todo = todo
        self._writer = todo.batch.writer
        self._journal = journal
        self._output = output
        self.answered = self.lost = self.cut = self.failed = 0
        self.losses: Counter[str] = Counter()

    def error(self, name: tuple[str, str]) -> Failure | None:
        """None for an item that is answered. Raises KeyError for any other, so that failed items
        are tried again."""
        if not self._todo.index.is_done(name[1]):
            raise KeyError(name)
        return None

    def add(self, result: Result) -> None:
        """Write the line of an item that was answered or has failed. Raises OSError."""
        work = self._todo.running[result.item]
        text = self._writer.line(work, result, self._journal)
        good = result.error is None
        self._output.add(OutputLine(work.order, work.item.id, text, good))
        if not good:
            self.failed += 1
            return
        self._todo.index.set_done(work.order)
        self.answered += 1
        last = result.turns[-1]
        self.lost += bool(last.lost)
        self.losses.update(set(last.lost))
        self.cut += last.reply is not None and bool(cut_text(last.reply.finish_reason))

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Complete the output after the last item. Raises OSError, BenchError."""
        del order
        self._output.finish()

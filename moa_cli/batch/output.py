"""The answers of a batch on their way to OUT, which also tells what is done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from moa_cli.batch.prompts import Batch
from moa_cli.bench.data.json_lines import Lines, read_lines
from moa_cli.bench.run.journal import CallJournal, Result
from moa_cli.core.conversation import Failure
from moa_cli.core.outcomes import cut_text


class OutputStream:
    """Writes lines to a stream, from which none can be taken back."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, order: int, line: str) -> None:
        """Write a line. order: of its item. Raises OSError."""
        del order
        self._stream.write(line + "\n")
        self._stream.flush()

    def finish(self) -> None:
        """No more will come."""


class OutputFile:
    """A file of lines; good ones that are there already stay as they are.

    orders: the place of each item, by id. in_order: whether lines stand in that order at the end.
    there: the ids of items with a good line.
    Raises BenchError if the file cannot be read, or holds what is no line of this batch.
    """

    def __init__(self, path: Path, orders: Mapping[str, int], *, in_order: bool) -> None:
        self._path = path
        self._orders = orders
        self._in_order = in_order
        self._lines = Lines(path)
        found = read_lines(path, self._read)
        self._kept = [line for _, line, good in found if good]
        self._dropped = len(found) - len(self._kept)
        self._places = [self._orders[name] for name, _, good in found if good]
        self._changed = False
        self.there = {name for name, _, good in found if good}

    def _read(self, line: str) -> tuple[str, str, bool]:
        """Id, line, and whether it is an answer. Raises ValueError."""
        values: Any = json.loads(line)
        name = str(values.get("id")) if isinstance(values, dict) else ""
        if name not in self._orders or "reply" not in values:
            raise ValueError("no line of this batch")
        return name, line, values["reply"] is not None and values.get("error") is None

    def add(self, order: int, line: str) -> None:
        """Write a line. The first takes out those of failed items, which are tried again."""
        if not self._changed and self._dropped:
            self._lines.replace(self._kept)
        self._kept, self._changed = [], True
        self._lines.add(line)
        self._places.append(order)

    def finish(self) -> None:
        """Put the lines in order. Raises OSError, BenchError."""
        if self._in_order and self._changed and self._places != sorted(self._places):
            lines = read_lines(self._path, self._read)
            lines.sort(key=lambda line: self._orders[line[0]])
            self._lines.replace(line for _, line, _ in lines)
            self._places.sort()

    def close(self) -> None:
        """Nothing more is added."""
        self._lines.close()


class InOrder:
    """Holds lines back until those before them have been written.

    orders: of all lines that will come.
    """

    def __init__(self, inner: OutputStream | OutputFile | InOrder, orders: list[int]) -> None:
        self._inner = inner
        self._orders = iter(sorted(orders))
        self._next = next(self._orders, None)
        self._held: dict[int, str] = {}

    def add(self, order: int, line: str) -> None:
        """Write what can be written now."""
        self._held[order] = line
        while self._next in self._held:
            self._inner.add(self._next, self._held.pop(self._next))
            self._next = next(self._orders, None)

    def finish(self) -> None:
        """Write what was held back."""
        for order in sorted(self._held):
            self._inner.add(order, self._held.pop(order))
        self._inner.finish()


Written = OutputStream | OutputFile | InOrder


class Answers:
    """What came of each item, as the results of a batch; see `runner.Results`.

    journal: of the calls. there: the ids of items that were answered before.
    lost: how many of the later ones were answered without some of the proposals. cut: how many
    of those replies were cut. failed: how many failed. losses: how many of those replies lack a
    model, by the sentence that says so.
    """

    def __init__(
        self, batch: Batch, journal: CallJournal, output: Written, there: Iterable[str]
    ) -> None:
        self._batch = batch
        self._journal = journal
        self._output = output
        self._errors: dict[str, Failure | None] = dict.fromkeys(there)
        self._work = {work.item.id: work for work in batch.work()}
        self.lost = self.cut = self.failed = 0
        self.losses: Counter[str] = Counter()

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why that item failed. Raises KeyError if it has not ended."""
        return self._errors[name[1]]

    def add(self, result: Result) -> None:
        """An item has ended, or failed for good. Raises OSError."""
        work = self._work[result.item]
        self._output.add(work.order, self._batch.line(work.item, result, self._journal))
        self._errors[result.item] = result.error
        if result.error is None:
            last = result.turns[-1]
            self.lost += bool(last.lost)
            self.losses.update(set(last.lost))
            self.cut += last.reply is not None and bool(cut_text(last.reply.finish_reason))
        else:
            self.failed += 1

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Nothing more will come. Raises OSError, BenchError."""
        del order
        self._output.finish()

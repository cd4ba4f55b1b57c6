"""The journal of a batch's calls. Only an index of it is kept, and on disk: there may be
millions of calls."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

from moa_cli.batch.growing import GrowingFile
from moa_cli.batch.index import Index
from moa_cli.batch.tally import ModelTally, count_call
from moa_cli.bench.data.json_lines import Lines, to_line
from moa_cli.bench.run.journal import BEGUN, CallJournal, CallRecord, read_record
from moa_cli.core.conversation import Usage

_CALLS, _SPENT, _MODELS, _EARLIER = "calls", "spent", "models", "earlier"
# How many of the latest records stay in memory. They are needed again soon, when the line of their
# prompt is written.
_MOST_RECENT = 2000
# When ended calls fill about this many bytes in the file of calls in flight, it is written anew
# without them.
_MOST_BEGUN = 1 << 22


class IndexedJournal(CallJournal):
    """A journal that finds only the calls of prompts without a line; see `CallJournal`.

    path: the path of its file; None keeps the calls in the index. models: sums over each model's
    calls.
    """

    def __init__(self, path: Path | None, index: Index) -> None:
        super().__init__(None)
        self._index = index
        self.models: ModelTally = {}
        self._recent: OrderedDict[str, CallRecord] = OrderedDict()
        self._file = None if path is None else GrowingFile(path, index, _CALLS)
        self._begun_size = 0
        if path is not None:
            self._begun = Lines(path.with_name(BEGUN))
            index.before_commit.append(self._mark)

    def go_on_from(self, spent: Usage, models: ModelTally) -> None:
        """Count the calls of earlier starts, which were removed when all prompts were answered."""
        self._index.set_meta(_EARLIER, [asdict(spent), models])
        self._index.commit()

    def catch_up(self) -> None:
        """Index the calls that were written after the last commit of the index, and count the calls
        that a killed start had begun.

        The output must be indexed before, because calls of answered prompts are left out.
        Raises BenchError if the file is damaged, OSError.
        """
        if self._file is None:
            return
        if self._file.fits:
            self.spent = Usage(**(self._index.meta(_SPENT) or {}))
            self.models = self._index.meta(_MODELS) or {}
        else:
            self._index.forget_calls()
            spent, self.models = self._index.meta(_EARLIER) or ({}, {})
            self.spent = Usage(**spent)
        for start, entry in self._file.unread(read_record):
            self._note(entry, start)
        self.take_up()

    def _mark(self) -> None:
        assert self._file is not None
        self._file.mark()
        self._index.set_meta(_SPENT, asdict(self.spent))
        self._index.set_meta(_MODELS, self.models)

    def _note(self, entry: CallRecord, start: int, line: str | None = None) -> None:
        self.spent += entry.usage
        count_call(self.models, entry)
        if not self._index.is_done(entry.item):
            answered = entry.error is None
            self._index.add_call(entry.item, entry.key, start, answered=answered, line=line)

    def find(self, key: str) -> CallRecord | None:
        """The call with that key, if it was answered and its prompt has no line yet."""
        recent = self._recent.get(key)
        if recent is not None:
            return recent
        found = self._index.call(key)
        return None if found is None else self._read(*found)

    def _read(self, start: int, line: str | None) -> CallRecord:
        if line is None:
            assert self._file is not None
            line = self._file.line_at(start)
        return read_record(line)

    def __len__(self) -> int:
        return self._index.count_calls()

    def usage_of(self, item: str) -> Usage:
        """The usage of all calls of a prompt, including failed and lost ones and those of earlier
        starts."""
        return sum((call.usage for call in self.calls_of(item)), Usage())

    def calls_of(self, item: str) -> list[CallRecord]:
        """All calls of a prompt that has no line yet, including those that were not answered."""
        return [self._read(*call) for call in self._index.calls_of(item)]

    def ended(self, key: str) -> None:
        """See `CallJournal`. Ended calls are removed from the file of calls in flight when they
        fill about _MOST_BEGUN bytes, at 512 bytes a call."""
        super().ended(key)
        if self._begun is None:
            return
        self._begun_size += 1
        if self._begun_size >= _MOST_BEGUN // 512:
            entries = [entry for group in self._in_flight.values() for entry in group]
            self._begun.replace(map(to_line, entries))
            self._begun_size = 0

    def add(self, entry: CallRecord) -> None:
        """Write down a call that has ended. Raises OSError."""
        line = to_line(entry)
        start = 0 if self._file is None else self._file.add(line)
        self._note(entry, start, line if self._file is None else None)
        if entry.error is None:
            self._recent[entry.key] = entry
            if len(self._recent) > _MOST_RECENT:
                self._recent.popitem(last=False)
        if self._index.due:
            self._index.commit()

    def close(self) -> None:
        super().close()
        if self._file is not None:
            self._file.close()

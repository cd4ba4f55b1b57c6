"""The folder of a batch's state, OUT.state.

OUT.state/batch.json   settings (`BatchSettings`), with the facts on models
OUT.state/calls.jsonl  a `CallRecord` for each call
OUT.state/index.db     the index, see `index`

The calls and the index are removed when all prompts are answered.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from moa_cli.batch.index import INDEX, Index
from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.prompts import Batch, BatchSettings, InputDigest
from moa_cli.batch.shards import BATCH_FILE
from moa_cli.bench.run.folder import State, StateFolder
from moa_cli.bench.run.journal import CALLS

_HINT = "use the same, or name another OUT"


class MemoryState(State[BatchSettings]):
    """The state of a batch in memory only; nothing is left when the process ends."""

    def __init__(self, batch: Batch) -> None:
        self.index = Index(None)
        self.calls = IndexedJournal(None, self.index)
        super().__init__(journal=self.calls)
        self.intake, _ = batch.take_in(self.index, None)

    def close(self) -> None:
        super().close()
        self.index.close()


class BatchFolder(StateFolder[BatchSettings]):
    """The open folder of a batch; see `StateFolder`.

    intake: what this start found in the input. index: the index of what is done; it is complete
    when the output and the calls are opened. Raises BenchError if the input is wrong or the folder
    belongs to another batch, UsageError if the input is not text.
    """

    noun = "batch"

    def __init__(self, path: Path, batch: Batch) -> None:
        # Set first, because `_leave` needs it even if the settings cannot be read.
        self.path = path
        self.index = Index(path / INDEX)
        try:
            self.calls = IndexedJournal(path / CALLS, self.index)
            super().__init__(path, BATCH_FILE, BatchSettings, _HINT, self.calls)
            known = None if self.settings is None else self.settings.input
            self.intake, goes_on = batch.take_in(self.index, known)
            digest = self.intake.digest
            self._check(batch, known if goes_on and known is not None else digest)
        except BaseException:
            self._leave()
            with contextlib.suppress(OSError):
                path.rmdir()
            raise

    def _check(self, batch: Batch, digest: InputDigest) -> None:
        if self.settings is None and (self.path / CALLS).exists():
            # If there are calls but no settings, `check` reports that, and the calls stay. So they
            # must be counted first.
            self.calls.catch_up()
        settings = batch.settings(digest)
        self.check(settings)
        if self.settings is not None:
            self.settings = replace(self.settings, input=self.intake.digest)

    @property
    def has_calls(self) -> bool:
        """Whether there is a journal. A new batch and a completely answered one have none."""
        return (self.path / CALLS).exists()

    def forget_calls(self) -> None:
        """Remove the calls and the index, which nobody needs any more. Raises OSError."""
        super().forget_calls()
        self.index.remove()

    def close(self) -> None:
        super().close()
        self._leave()

    def _leave(self) -> None:
        """Close the index. Remove it if there is no journal beside it."""
        if self.has_calls:
            self.index.close()
        else:
            self.index.remove()

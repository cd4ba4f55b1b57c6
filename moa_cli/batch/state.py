"""The folder of a batch's state, OUT.state.

OUT.state/batch.json   settings (`BatchSettings`), with the facts on models
OUT.state/calls.jsonl  a `CallRecord` for each call
OUT.state/index.db     see `index`; like the calls, it is removed once all is answered
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
    """The state of a batch of which nothing is left when the process ends."""

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

    intake: what was found in the input of this start. index: of what is done, to be completed by
    the output and the calls.
    Raises BenchError if the input is wrong, or this is the state of another batch, UsageError if
    the input is not text.
    """

    noun = "batch"

    def __init__(self, path: Path, batch: Batch) -> None:
        # Also where the settings cannot be read.
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
            # Calls without settings are told of, and left as they are.
            self.calls.catch_up()
        settings = batch.settings(digest)
        self.check(settings)
        if self.settings is not None:
            self.settings = replace(self.settings, input=self.intake.digest)

    @property
    def has_calls(self) -> bool:
        """Whether there is a journal: a batch that is new, or all answered, has none."""
        return (self.path / CALLS).exists()

    def forget_calls(self) -> None:
        """Nothing will need them any more. Raises OSError."""
        super().forget_calls()
        self.index.remove()

    def close(self) -> None:
        super().close()
        self._leave()

    def _leave(self) -> None:
        """Keep the index only beside what it is an index of."""
        if self.has_calls:
            self.index.close()
        else:
            self.index.remove()

"""The folder of a run, a judge or a batch, which is all of its state: the work can be stopped and
continued."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from moa_cli.bench.data.json_lines import Lines, to_line
from moa_cli.bench.run.journal import CALLS, CallJournal
from moa_cli.bench.run.reader import ITEMS, RUN_FILE, read_results
from moa_cli.bench.run.records import Result
from moa_cli.bench.run.settings import (
    ModelFacts,
    RunSettings,
    Settings,
    Versions,
    differences,
    read_settings,
    write_settings,
)
from moa_cli.core import paths
from moa_cli.core.conversation import Failure
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.file_lock import locked_folder
from moa_cli.core.file_names import why_unfit

_MOST_DIFFERENCES = 3


class State(Generic[Settings]):
    """The settings of some work and its calls; in memory, so that nothing of it is left when the
    process ends.

    settings: None for new work. journal: of the calls.
    """

    def __init__(self, settings: Settings | None = None, calls: Path | None = None) -> None:
        self.settings = settings
        self.journal = CallJournal(calls)
        self.journal.take_up()

    def facts(self, now: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        """What was known of the models when the work began, else what is known now.

        It keeps to that: a context that becomes known would change prompts, a price sums.
        """
        kept = (self.settings and self.settings.facts) or {}
        return {
            name: ModelInfo(
                id=info.id,
                context_length=kept[name].context_length,
                # A price that was unknown may be told later.
                price=kept[name].price or info.price,
            )
            if name in kept
            else info
            for name, info in now.items()
        }

    def begin(self, settings: Settings, facts: Mapping[str, ModelInfo]) -> None:
        """Write the settings. Raises OSError."""
        known = {name: ModelFacts(info.context_length, info.price) for name, info in facts.items()}
        self._write(replace(settings, facts=known, versions=self._versions()))

    def note(self, settings: Settings) -> None:
        """Change the settings, but not what is known of the models. Raises OSError."""
        facts = self.settings.facts if self.settings else None
        self._write(replace(settings, facts=facts, versions=self._versions()))

    def _versions(self) -> Versions:
        """Those that the work was begun with."""
        return (self.settings and self.settings.versions) or Versions.now()

    def _write(self, settings: Settings) -> None:
        self.settings = settings

    def close(self) -> None:
        """Nothing more is written."""
        self.journal.close()


class StateFolder(State[Settings]):
    """An open folder; nobody else has it open. See `State`.

    file, kind: of its settings. hint: what helps where they differ.
    """

    def __init__(self, path: Path, file: str, kind: type[Settings], hint: str) -> None:
        there = (path / file).exists()
        super().__init__(read_settings(path / file, kind) if there else None, path / CALLS)
        self.path = path
        self._file = file
        self._hint = hint

    def check(self, settings: Settings) -> None:
        """Raise BenchError if this is the folder of work with other settings."""
        if self.settings is None:
            if len(self.journal):
                raise BenchError(f"{self.path}: holds calls, but no {self._file}", hint=self._hint)
            return
        found = list(differences(self.settings, settings))
        if not found:
            return
        more = len(found) - _MOST_DIFFERENCES
        told = "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise BenchError(f"{self.path}: is a run with other settings: {told}", hint=self._hint)

    def _write(self, settings: Settings) -> None:
        super()._write(settings)
        write_settings(self.path / self._file, settings)

    def forget_calls(self) -> None:
        """Nothing will need them any more. Raises OSError."""
        self.journal.close()
        (self.path / CALLS).unlink(missing_ok=True)


class RunFolder(StateFolder[RunSettings]):
    """An open run. See `StateFolder`.

    results: by arm and item, failed ones included.
    """

    def __init__(self, path: Path) -> None:
        hint = "use the same, or name another folder with -o"
        super().__init__(path, RUN_FILE, RunSettings, hint)
        self.results = {result.name: result for result in read_results(path / ITEMS)}
        self._items = Lines(path / ITEMS)

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why that arm failed at that item. Raises KeyError if it has not ended."""
        return self.results[name].error

    def add(self, result: Result) -> None:
        """An item has ended, or failed for good. Raises OSError."""
        self._items.add(to_line(result))
        self.results[result.name] = result

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """All have ended: write them in this order, of arm and item. Raises OSError."""
        self._items.replace(to_line(self.results[name]) for name in order)

    def close(self) -> None:
        """Nothing more is written."""
        super().close()
        self._items.close()


def open_run(path: Path) -> AbstractContextManager[RunFolder]:
    """The run in that folder; see `opened`."""
    return opened(path, RunFolder)


class _Closable(Protocol):
    def close(self) -> None:
        """Nothing more is written."""


_Folder = TypeVar("_Folder", bound=_Closable)


@contextlib.contextmanager
def opened(path: Path, read: Callable[[Path], _Folder]) -> Iterator[_Folder]:
    """What `read` makes of the folder, which is made if need be, and removed again if nothing
    came into it.

    Raises:
        BenchError: Another process has it open, or a file in it is damaged.
        UsageError: A new folder cannot have that name on every system.
    """
    made = not path.exists()
    unfit = why_unfit(path.name)
    if made and unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")
    try:
        paths.make_private(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be made: {error.strerror}") from None
    with locked_folder(path, seconds=0.0) as held:
        if held is False:
            raise BenchError(f"{path}: another process is running it")
        folder = read(path)
        try:
            yield folder
        finally:
            folder.close()
            if made:
                with contextlib.suppress(OSError):
                    path.rmdir()

"""The folder of a run, which is all of its state."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from moa_cli.bench.data.json_lines import Lines, read_lines, read_table
from moa_cli.bench.run.results import Result, result_from_line, result_line
from moa_cli.bench.run.state import StateFolder, opened
from moa_cli.core.conversation import Failure
from moa_cli.core.errors import BenchError

__all__ = ["RunFolder", "open_run", "read_results", "read_settings"]

_SETTINGS, _ITEMS = "run.json", "items.jsonl"


class RunFolder(StateFolder):
    """An open run; nobody else has it open.

    results: by arm and item, failed ones included. See `StateFolder`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SETTINGS, "use the same, or name another folder with -o")
        self.results = {(one.arm, one.item): one for one in read_results(path)}
        self._items = Lines(path / _ITEMS)

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why that arm failed at that item. Raises KeyError if it has not ended."""
        return self.results[name].error

    def add(self, result: Result) -> None:
        """An item has ended, or failed for good. Raises OSError."""
        self._items.add(result_line(result))
        self.results[result.arm, result.item] = result

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """All have ended: write them in this order, of arm and item. Raises OSError."""
        self._items.replace(result_line(self.results[one]) for one in order)

    def close(self) -> None:
        """Nothing more is written."""
        super().close()
        self._items.close()


def open_run(path: Path) -> AbstractContextManager[RunFolder]:
    """The run in that folder; see `opened`."""
    return opened(path, RunFolder)


def read_settings(path: Path) -> dict[str, Any]:
    """What run.json in a run's folder says. Raises BenchError if it is not there, or damaged."""
    if not (path / _SETTINGS).exists():
        raise BenchError(f"{path}: is not the folder of a run: there is no {_SETTINGS}")
    return read_table(path / _SETTINGS)


def read_results(path: Path) -> list[Result]:
    """The results in a run's folder, the latest of each arm and item. Raises BenchError."""
    latest = {(one.arm, one.item): one for one in read_lines(path / _ITEMS, result_from_line)}
    return list(latest.values())

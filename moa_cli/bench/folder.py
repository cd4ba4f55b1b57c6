"""The folder of a run, which is all of its state."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moa_cli import paths
from moa_cli.bench.journal import Journal
from moa_cli.bench.lines import Lines, read_lines, read_table
from moa_cli.bench.results import Result, result_from_line, result_line
from moa_cli.clients.base import ModelInfo
from moa_cli.errors import BenchError
from moa_cli.json_text import dumps
from moa_cli.money import Price

__all__ = ["RunFolder", "open_run", "read_results", "read_settings"]

_SETTINGS, _CALLS, _ITEMS = "run.json", "calls.jsonl", "items.jsonl"
# Told, but no reason to refuse to go on.
_FREE = ("facts", "source", "versions")
_MOST_DIFFERENCES = 3


class RunFolder:
    """An open run; nobody else has it open.

    settings: what run.json says, {} for a new run. journal: of its calls. results: by arm and
    item, failed ones included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = read_settings(path) if (path / _SETTINGS).exists() else {}
        self.journal = Journal(path / _CALLS)
        self.results = {(one.arm, one.item): one for one in read_results(path)}
        self._items = Lines(path / _ITEMS)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise BenchError if this is the folder of a run with other settings."""
        if not self.settings:
            if len(self.journal) or self.results:
                raise BenchError(
                    f"{self.path}: holds calls, but no {_SETTINGS}", hint="-o names another folder"
                )
            return
        # As they come back from a file: lists for tuples, and so on.
        wanted = json.loads(dumps(settings))
        found = list(_differences(self.settings, wanted))
        if not found:
            return
        more = len(found) - _MOST_DIFFERENCES
        told = "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise BenchError(
            f"{self.path}: is a run with other settings: {told}",
            hint="use the same, or name another folder with -o",
        )

    def facts(self, now: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        """What was known of the models when the run began, else what is known now.

        A run keeps to it: a context that becomes known would change prompts, a price sums.
        """
        kept = self.settings.get("facts", {})
        return {name: _info(kept[name], one) if name in kept else one for name, one in now.items()}

    def begin(self, settings: Mapping[str, Any], facts: Mapping[str, ModelInfo]) -> None:
        """Write run.json. Raises OSError."""
        table = {**settings, "facts": {name: _fact(one) for name, one in facts.items()}}
        if self.settings:
            table["versions"] = self.settings.get("versions", table["versions"])
        self.settings = table
        with paths.replacing(self.path / _SETTINGS) as file:
            file.write(dumps(table, indent=2).encode() + b"\n")

    def add(self, result: Result) -> None:
        """An item has ended, or failed for good. Raises OSError."""
        self._items.add(result_line(result))
        self.results[result.arm, result.item] = result

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """All have ended: write them in this order, of arm and item. Raises OSError."""
        self._items.replace(result_line(self.results[one]) for one in order)

    def close(self) -> None:
        """Nothing more is written."""
        self.journal.close()
        self._items.close()


@contextlib.contextmanager
def open_run(path: Path) -> Iterator[RunFolder]:
    """The run in that folder, which is made if need be, and removed again if nothing came into it.

    Raises BenchError if another process has it open, or a file in it is damaged.
    """
    made = not path.exists()
    try:
        paths.make_private(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be made: {error.strerror}") from None
    with _alone(path):
        folder = RunFolder(path)
        try:
            yield folder
        finally:
            folder.close()
            if made:
                with contextlib.suppress(OSError):
                    path.rmdir()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Raises BenchError if another process is here."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems know no locks.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BenchError(f"{path}: another process is running it") from None
        yield
    finally:
        os.close(handle)


def read_settings(path: Path) -> dict[str, Any]:
    """What run.json in a run's folder says. Raises BenchError if it is not there, or damaged."""
    if not (path / _SETTINGS).exists():
        raise BenchError(f"{path}: is not the folder of a run: there is no {_SETTINGS}")
    return read_table(path / _SETTINGS)


def read_results(path: Path) -> list[Result]:
    """The results in a run's folder, the latest of each arm and item. Raises BenchError."""
    latest = {(one.arm, one.item): one for one in read_lines(path / _ITEMS, result_from_line)}
    return list(latest.values())


def _fact(info: ModelInfo) -> dict[str, Any]:
    return {"context_length": info.context_length, "price": info.price and asdict(info.price)}


def _info(kept: Mapping[str, Any], now: ModelInfo) -> ModelInfo:
    """Raises BenchError for what `_fact` did not make."""
    try:
        # A price that was unknown may be told later.
        price = Price(**kept["price"]) if kept["price"] else now.price
        return ModelInfo(id=now.id, context_length=kept["context_length"], price=price)
    except (TypeError, KeyError) as error:
        raise BenchError(f"{_SETTINGS}: is damaged: {error}") from None


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """What differs, each as `path was old, is new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if path or key not in _FREE:
                inner = f"{path}.{key}" if path else str(key)
                yield from _differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True), 1):
            yield from _differences(one, other, f"{path}[{place}]")
    elif old != new:
        yield f"`{path}` was {_shown(old)}, is {_shown(new)}"


def _shown(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"

"""The state of some work; in a folder, the work can be stopped and go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.run.journal import Journal
from moa_cli.core import paths
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.file_lock import locked_folder
from moa_cli.core.file_names import why_unfit
from moa_cli.core.money import Price, check_price
from moa_cli.core.text import dumps

__all__ = ["State", "StateFolder", "opened"]

# Told, but no reason to refuse to go on.
_FREE = ("anchors", "asked", "date", "discrete", "facts", "source", "versions")
_MOST_DIFFERENCES = 3
_CALLS = "calls.jsonl"


class State:
    """The state of some work: how it is set, and its calls; in memory, so that nothing of it is
    left when the process ends.

    settings: {} for new work. journal: of the calls.
    """

    def __init__(self, settings: dict[str, Any] | None = None, calls: Path | None = None) -> None:
        self.settings = settings or {}
        self.journal = Journal(calls)
        self.journal.take_up()

    def facts(self, now: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        """What was known of the models when the work began, else what is known now.

        It keeps to that: a context that becomes known would change prompts, a price sums.
        """
        kept = self.settings.get("facts", {})
        return {name: _info(kept[name], one) if name in kept else one for name, one in now.items()}

    def begin(self, settings: Mapping[str, Any], facts: Mapping[str, ModelInfo]) -> None:
        """Write the settings. Raises OSError."""
        known = {name: _fact(one) for name, one in facts.items()}
        self._write({**settings, "facts": known} | self._began_with())

    def note(self, changes: Mapping[str, Any]) -> None:
        """Change what the settings say of these names, but not by which version the work began.

        Raises OSError.
        """
        self._write({**self.settings, **changes} | self._began_with())

    def _began_with(self) -> dict[str, Any]:
        return {name: self.settings[name] for name in ("versions",) if name in self.settings}

    def _write(self, table: dict[str, Any]) -> None:
        self.settings = table

    def close(self) -> None:
        """Nothing more is written."""
        self.journal.close()


class StateFolder(State):
    """An open folder; nobody else has it open.

    file: the name of its settings. hint: what helps where they differ. See `State`.
    """

    def __init__(self, path: Path, file: str, hint: str) -> None:
        super().__init__(read_table(path / file) if (path / file).exists() else {}, path / _CALLS)
        self.path = path
        self._file = file
        self._hint = hint

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise BenchError if this is the folder of work with other settings."""
        if not self.settings:
            if len(self.journal):
                raise BenchError(f"{self.path}: holds calls, but no {self._file}", hint=self._hint)
            return
        # As they come back from a file: lists for tuples, and so on.
        wanted = json.loads(dumps(settings))
        found = list(_differences(self.settings, wanted))
        if not found:
            return
        more = len(found) - _MOST_DIFFERENCES
        told = "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise BenchError(f"{self.path}: is a run with other settings: {told}", hint=self._hint)

    def _write(self, table: dict[str, Any]) -> None:
        super()._write(table)
        with paths.replacing(self.path / self._file) as file:
            file.write(dumps(table, indent=2).encode() + b"\n")

    def forget_calls(self) -> None:
        """Nothing will need them any more. Raises OSError."""
        self.journal.close()
        (self.path / _CALLS).unlink(missing_ok=True)


class _Closable(Protocol):
    def close(self) -> None:
        """Nothing more is written."""


_Folder = TypeVar("_Folder", bound=_Closable)


@contextlib.contextmanager
def opened(path: Path, read: Callable[[Path], _Folder]) -> Iterator[_Folder]:
    """What `read` makes of the folder, which is made if need be, and removed again if nothing
    came into it.

    Raises BenchError if another process has it open, or a file in it is damaged, UsageError for a
    name that a new folder cannot have on every system.
    """
    made = not path.exists()
    unfit = why_unfit(path.name)
    if made and unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")
    try:
        paths.make_private(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be made: {error.strerror}") from None
    with _alone(path):
        folder = read(path)
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
    with locked_folder(path, seconds=0.0) as held:
        if held is False:
            raise BenchError(f"{path}: another process is running it")
        yield


def _fact(info: ModelInfo) -> dict[str, Any]:
    return {"context_length": info.context_length, "price": info.price and asdict(info.price)}


def _info(kept: Mapping[str, Any], now: ModelInfo) -> ModelInfo:
    """Raises BenchError for what `_fact` did not make."""
    try:
        # A price that was unknown may be told later.
        price = Price(**kept["price"]) if kept["price"] else now.price
        if price is not None:
            check_price(price)
        return ModelInfo(id=now.id, context_length=kept["context_length"], price=price)
    except (TypeError, KeyError, ValueError) as error:
        raise BenchError(f"what was known of {now.id} is damaged: {error}") from None


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

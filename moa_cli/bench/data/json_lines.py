"""Files of JSON lines to which lines are appended, and which stay readable after a kill."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar

from moa_cli.core import paths
from moa_cli.core.conversation import RARE
from moa_cli.core.errors import BenchError
from moa_cli.core.text import dumps
from moa_cli.core.values import load_value

_T = TypeVar("_T")


def plain(value: Any, renamed: Mapping[str, str] = MappingProxyType({})) -> Any:
    """A dataclass as JSON values. This takes half the time of `dataclasses.asdict`, which copies
    every value. Fields that answers rarely have are left out if they are empty, as in
    `core.conversation`. renamed: the names of fields in JSON, if they differ."""
    if is_dataclass(value):
        fields = vars(value).items()
        return {
            renamed.get(name, name): plain(inner, renamed)
            for name, inner in fields
            if inner or name not in RARE
        }
    return [plain(inner, renamed) for inner in value] if isinstance(value, tuple) else value


def to_line(value: Any) -> str:
    """A dataclass as a line of JSON, without its line end."""
    return dumps(plain(value))


class Lines:
    """A file to which lines are appended, readable by its owner only. The first line creates it.

    When `add` returns, the line is handed to the operating system. An incomplete last line, left by
    a kill or a full disk, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        # How many bytes the complete lines have.
        self._size = 0

    def _open(self) -> BinaryIO:
        if self._file is None:
            paths.refuse_database(self.path)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "r+b", buffering=0)
        return self._file

    def add(self, line: str) -> int:
        """Append a line. Returns the byte at which it begins. Raises OSError."""
        if self._file is None:
            self._size = _whole(self._open().read())
        return self._append(line)

    def _append(self, line: str) -> int:
        file, start, data = self._open(), self._size, line.encode() + b"\n"
        with paths.naming(self.path):
            if file.seek(0, os.SEEK_END) != start:
                file.truncate(start)
                file.seek(start)
            view = memoryview(data)
            while view:
                # An unbuffered file may write only a part of the data.
                view = view[file.write(view) :]
        self._size += len(data)
        return start

    def replace(self, lines: Iterable[str]) -> None:
        """Replace the whole content by these lines, in one step. Raises OSError."""
        self.close()
        with paths.replacing(self.path) as file:
            for line in lines:
                file.write(line.encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _whole(data: bytes) -> int:
    """The length of the complete lines, without an incomplete last one."""
    return data.rfind(b"\n") + 1


def read_lines(path: Path, load: Callable[[str], _T]) -> list[_T]:
    """The value that `load` makes of each line; empty if there is no such file. An incomplete last
    line is left out.

    load: raises ValueError for a wrong line. Raises BenchError, naming file and line, in that case
    or if the file cannot be read.
    """
    try:
        # Some editors on Windows add a byte order mark.
        data = paths.read_bytes(path).removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(data[: _whole(data)].split(b"\n")[:-1], 1):
        try:
            found.append(load(line.decode()))
        except (ValueError, RecursionError) as error:
            raise BenchError(
                f"{path}:{number}: is damaged: {error}", hint="remove the line to continue"
            ) from None
    return found


def read_records(path: Path, kind: type[_T]) -> list[_T]:
    """The dataclass that `to_line` wrote in each line; see `read_lines`."""
    return read_lines(path, lambda line: load_value(kind, json.loads(line)))


def read_table(path: Path) -> dict[str, Any]:
    """The JSON object in that file. Raises BenchError, naming it, if it is damaged."""
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: is damaged: {error}") from None
    if not isinstance(table, dict):
        raise BenchError(f"{path}: is damaged: it is not a JSON object")
    return table

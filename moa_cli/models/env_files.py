"""Keys from `.env` files: the one in the config folder, then the one in the working directory.

A working directory may be somebody else's project, so its file supplies a key only if the user's
own file has none. Only keys are read from these files, so that no `.env` file can send a key to
another address.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.text import text_of

_NAME = ".env"


@dataclass(frozen=True)
class FoundKey:
    """A key that was found, and its file. foreign: whether it is the file in the working directory.
    differs: whether the file in the working directory has another key, which is not used."""

    value: str = field(repr=False)
    file: Path
    foreign: bool = False
    differs: bool = False


@dataclass(frozen=True)
class _EnvFile:
    """The content of a file. values: by name. broken: the lines that cannot be parsed, by number.
    trouble: why the file cannot be read, or None."""

    path: Path
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    broken: Mapping[int, str] = field(default_factory=dict, repr=False)
    trouble: str | None = None


def env_paths() -> tuple[Path, Path]:
    """The paths of the user's own file, and of the one in the working directory."""
    here = Path(_NAME)
    # The working directory may have been removed. Then there is no such file.
    with suppress(FileNotFoundError):
        here = here.absolute()
    return paths.config_dir() / _NAME, here


class EnvFiles:
    """The `.env` files of this process. Each is read when it is first needed."""

    @cached_property
    def _own(self) -> _EnvFile:
        return _read(env_paths()[0])

    @cached_property
    def _here(self) -> _EnvFile:
        here = _read(env_paths()[1])
        # If the working directory is the config folder, there is only one file, and it is the
        # user's own.
        return _EnvFile(here.path) if _is_same(here.path, self._own.path) else here

    def find(self, variable: str) -> FoundKey | None:
        """The key in that variable, and its file; None if no file has it."""
        own = (self.own(variable) or "").strip()
        here = self._here.values.get(variable, "").strip()
        if own:
            return FoundKey(own, self._own.path, differs=bool(here) and here != own)
        return FoundKey(here, self._here.path, foreign=True) if here else None

    def own(self, variable: str) -> str | None:
        """What the user's own file sets the variable to, perhaps to nothing; None if it does not
        name it, or cannot be read."""
        return self._own.values.get(variable)

    def check_own(self) -> None:
        """Raise UsageError if the user's own file cannot be read."""
        if self._own.trouble is not None:
            raise UsageError(self._own.trouble)

    def trouble(self, variable: str) -> str | None:
        """A problem in one of the files that may be the reason why the key is missing, or None."""
        for file in (self._own, self._here):
            if file.trouble is not None:
                return file.trouble
            line = next((n for n, text in file.broken.items() if variable in text), None)
            if line is not None:
                return f"{file.path}: line {line} is not NAME=VALUE"
        return None


def _read(path: Path) -> _EnvFile:
    try:
        data = paths.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        # Some people call the folder of a virtual environment `.env`.
        return _EnvFile(path)
    except OSError as error:
        return _EnvFile(path, trouble=f"{path}: cannot be read: {error.strerror}")
    try:
        text = text_of(data, str(path))
    except UsageError as error:
        if b"\0" in data:
            return _EnvFile(path, trouble=error.message)
        # Only keys are read from the file, and keys are ASCII. So a comment in Latin-1 does no
        # harm.
        text = data.decode("utf-8", "replace")
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> _EnvFile:
    # `dotenv_values` would report broken lines by a logger that is not configured here.
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    broken: dict[int, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        key, value = binding.key, binding.value
        if key is not None and value is not None and key.isidentifier():
            values[key] = value or values.get(key, "")
        elif binding.error or value:
            broken[binding.original.line] = binding.original.string
    return _EnvFile(path, values, broken)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False

"""The file of prompts from `moa chat`, which Up and Ctrl-R offer in later chats.

It has the format of prompt-toolkit: a line `# TIME`, then the lines of the prompt, each after a
`+`. A process that changes the file holds a lock on its folder, so that several chats and a
deletion do not overwrite each other's changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import StoreError

# Only this many bytes at the end of the file are read. Older prompts are removed when the file is
# rewritten the next time.
_MOST_BYTES = 8 << 20
# A prompt of more bytes is not written to the file, and can be brought back only in its own chat.
_LONGEST_BYTES = 1 << 20
_LOCK_SECONDS = 2.0
_HEAD = b"\n# "


@dataclass(frozen=True)
class Entry:
    """A prompt in the file.

    at: when it was sent, in seconds since 1970; 0.0 if that is unknown. raw: its bytes in the file.
    """

    text: str
    at: float
    raw: bytes


class PromptFile:
    """The file of prompts. Its methods raise StoreError.

    most: how many prompts it keeps; the oldest are removed first. path: None for the file in the
    state folder.
    """

    def __init__(self, most: int, path: Path | None = None) -> None:
        self._path = path or paths.history_file()
        self._most = most
        # As with shells, a file that is a link to /dev/null keeps no prompts.
        self._nowhere = os.path.realpath(self._path) == os.path.realpath(os.devnull)

    def read(self) -> list[Entry]:
        """All prompts, the oldest first; empty without a file."""
        if self._nowhere:
            return []
        with self._errors():
            try:
                # Read under the lock, because a process that replaces the file also overwrites the
                # old one.
                with self._locked(), _opened(self._path, os.O_RDONLY) as handle:
                    return _entries(_end_of(handle))[-self._most :]
            except FileNotFoundError:
                return []

    def state(self) -> object:
        """A value that changes when the file changes."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def add(self, text: str) -> bool:
        """Add a prompt; return False if the file does not keep it."""
        entry = _entry(text)
        if self._nowhere or len(entry.raw) > _LONGEST_BYTES:
            return False
        with self._errors():
            paths.make_private(self._path.parent)
            with self._locked():
                self._put(entry)
        return True

    def _put(self, entry: Entry) -> None:
        with _opened(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as handle:
            status = os.fstat(handle)
            if stat.S_IMODE(status.st_mode) & 0o077:
                # An older file may be readable by everybody, as prompt-toolkit creates it.
                with suppress(OSError):
                    self._path.chmod(0o600)
            data = _end_of(handle)
            whole = status.st_size + len(entry.raw) <= _MOST_BYTES
            if whole and data.count(_HEAD) < self._most:
                _append(handle, entry.raw, status.st_size)
                return
        self._rewrite([*_entries(data), entry])

    def remove(self, unwanted: Callable[[Entry], bool]) -> int:
        """Remove prompts without leaving a trace of them in the file. Returns how many."""
        if self._nowhere:
            return 0
        with self._errors():
            if not self._path.parent.is_dir():
                return 0
            with self._locked():
                self._wipe_leftovers()
                try:
                    with _opened(self._path, os.O_RDONLY) as handle:
                        data, size = _end_of(handle), os.fstat(handle).st_size
                except FileNotFoundError:
                    return 0
                found = _entries(data)
                kept = [entry for entry in found if not unwanted(entry)]
                # The part of the file that was not read may hold unwanted prompts too.
                if len(kept) < len(found) or len(data) < size or not kept:
                    self._rewrite(kept)
        return len(found) - len(kept)

    def _rewrite(self, entries: Sequence[Entry]) -> None:
        """Replace the whole file by these entries in one step, and overwrite the old content."""
        # The target of a symbolic link is replaced, so that the link stays.
        real = Path(os.path.realpath(self._path))
        self._wipe_leftovers()
        kept, size = list(entries[-self._most :]), 0
        for place in range(len(kept) - 1, -1, -1):
            size += len(kept[place].raw)
            if size > _MOST_BYTES * 3 // 4:
                kept = kept[place + 1 :]
                break
        if not kept:
            paths.wipe(real)
            return
        with _overwritten(real), paths.replacing(real) as file:
            file.writelines(entry.raw for entry in kept)

    def _wipe_leftovers(self) -> None:
        """Wipe the temporary files that killed processes left during a rewrite. The lock ensures
        that no rewrite is running now."""
        folder = self._path.parent
        if Path(os.path.realpath(self._path)).parent != Path(os.path.realpath(folder)):
            # The folder that a link leads to may hold other files with such names.
            return
        # The names of the temporary files of `paths.replacing`.
        for leftover in folder.glob(f".{self._path.stem[:40]}-????????"):
            with suppress(OSError):
                paths.wipe(leftover)

    def _locked(self) -> AbstractContextManager[None]:
        return paths.alone(self._path.parent, seconds=_LOCK_SECONDS)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise StoreError(f"{self._path}: another process is changing it") from None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from None


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a regular file, and yield its descriptor. It never waits for a FIFO. Raises OSError."""
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "is not a file")
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _overwritten(path: Path) -> Iterator[None]:
    """Overwrite the content of a file if the block replaces it by another file."""
    if os.name == "nt":
        # Windows cannot replace an open file.
        yield
        return
    with _opened(path, os.O_RDWR) as handle:
        yield
        status = os.fstat(handle)
        if status.st_nlink == 0:
            with suppress(OSError):
                paths.blank(handle, status.st_size)


def _end_of(handle: int) -> bytes:
    """The last `_MOST_BYTES` of the file, without a prompt that is cut at the beginning."""
    size = os.fstat(handle).st_size
    start = max(0, size - _MOST_BYTES)
    os.lseek(handle, start, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as file:
        data = file.read(_MOST_BYTES)
    return data[max(0, data.find(_HEAD)) :] if start else data


def _append(handle: int, raw: bytes, size: int) -> None:
    """Append all of `raw`, or nothing. size: the size of the file before."""
    try:
        while raw:
            raw = raw[os.write(handle, raw) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _entry(text: str) -> Entry:
    now = datetime.now().astimezone()
    # "replace", because a paste may contain half of a surrogate pair.
    lines = text.encode("utf-8", "replace").split(b"\n")
    return Entry(text, now.timestamp(), _raw(b"# " + str(now).encode(), lines))


def _raw(head: bytes, lines: Sequence[bytes]) -> bytes:
    return b"\n" + head + b"\n" + b"".join(b"+" + line + b"\n" for line in lines)


def _entries(data: bytes) -> list[Entry]:
    found: list[Entry] = []
    lines: list[bytes] = []
    head, at = b"# ", 0.0
    for line in [*data.split(b"\n"), b""]:
        if line.startswith(b"+"):
            lines.append(line[1:])
            continue
        if lines:
            text = b"\n".join(lines).decode("utf-8", "replace")
            found.append(Entry(text, at, _raw(head, lines)))
            lines = []
        if line.startswith(b"# "):
            head, at = line, _time(line[2:], at)
    return found


def _time(text: bytes, before: float) -> float:
    """The time in a head line; if there is no valid time, the time of the prompt before."""
    try:
        return datetime.fromisoformat(text.decode("ascii").strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return before

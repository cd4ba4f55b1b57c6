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

# Only this much of the end of the file is read. Older prompts go when it is next rewritten.
_MOST_BYTES = 8 << 20
# A longer prompt is kept only in its own chat.
_LONGEST_BYTES = 1 << 20
_LOCK_SECONDS = 2.0
_HEAD = b"\n# "


@dataclass(frozen=True)
class Entry:
    """A prompt in the file.

    at: when it was sent, in seconds since 1970; 0.0 if that is unknown. raw: its bytes there.
    """

    text: str
    at: float
    raw: bytes


class PromptFile:
    """The file of prompts. Its methods raise StoreError.

    most: how many prompts it keeps; the oldest are removed first. path: else in the state folder.
    """

    def __init__(self, most: int, path: Path | None = None) -> None:
        self._path = path or paths.history_file()
        self._most = most
        # As with shells, a link to /dev/null keeps nothing.
        self._nowhere = os.path.realpath(self._path) == os.path.realpath(os.devnull)

    def read(self) -> list[Entry]:
        """All prompts, the oldest first; empty without a file."""
        if self._nowhere:
            return []
        with self._errors():
            try:
                # Under the lock, because a process that replaces the file also overwrites the old
                # one.
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
                # prompt-toolkit would create a file that everybody can read.
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
        """Replace the whole content by these, in one step, and overwrite the old content."""
        # Keeps a link in place.
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
        """Wipe what a killed process left of a rewrite. The lock rules out any other rewrite."""
        folder = self._path.parent
        if Path(os.path.realpath(self._path)).parent != Path(os.path.realpath(folder)):
            # The folder that a link leads to may hold other files with such names.
            return
        # `paths.replacing` gives them such names.
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
    """Open a regular file, and yield its descriptor. Raises OSError; never waits for a FIFO."""
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
    """Overwrite the content of a file if the block puts another file in its place."""
    if os.name == "nt":
        # Windows does not replace an open file.
        yield
        return
    with _opened(path, os.O_RDWR) as handle:
        yield
        status = os.fstat(handle)
        if status.st_nlink == 0:
            with suppress(OSError):
                paths.blank(handle, status.st_size)


def _end_of(handle: int) -> bytes:
    """The end of the file, beginning with a whole prompt."""
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
    # A paste may hold half of a surrogate pair.
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
    """The time in a head; the time of the prompt before if it holds none."""
    try:
        return datetime.fromisoformat(text.decode("ascii").strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return before

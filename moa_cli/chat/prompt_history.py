"""The file of the prompts that were typed in `moa chat`, for Up and Ctrl-R in later chats.

It has prompt-toolkit's form: a line `# TIME`, then the prompt's lines, each behind a `+`. All
that changes it holds a lock on its folder, so that several chats, and a deletion beside them,
lose nothing of each other's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import StoreError

# No more of the file is looked at, from its end; what is older goes when it is next rewritten.
_MOST_BYTES = 8 << 20
# A longer prompt is kept in its own chat alone.
_LONGEST_BYTES = 1 << 20
_LOCK_SECONDS = 2.0
_HEAD = b"\n# "


@dataclass(frozen=True)
class Entry:
    """A prompt. at: when it was sent, seconds since 1970; 0.0 if the file does not tell.

    raw: as it stands in the file.
    """

    text: str
    at: float
    raw: bytes


class PromptFile:
    """path: None is the state folder's. most: prompts that are kept; the oldest go first."""

    def __init__(self, most: int, path: Path | None = None) -> None:
        self._path = path or paths.history_file()
        self._most = most
        # A way to keep nothing that shells have taught.
        self._nowhere = os.path.realpath(self._path) == os.path.realpath(os.devnull)

    def read(self) -> list[Entry]:
        """All prompts, the oldest first; none if there is no file. Raises StoreError."""
        if self._nowhere:
            return []
        with self._errors():
            try:
                # What another process replaces meanwhile it overwrites, too.
                with paths.alone(self._path.parent, seconds=_LOCK_SECONDS):
                    handle = _opened(self._path, os.O_RDONLY)
                    try:
                        return _entries(_end_of(handle))[-self._most :]
                    finally:
                        os.close(handle)
            except FileNotFoundError:
                return []

    def state(self) -> object:
        """Differs when the file was changed in between."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def add(self, text: str) -> bool:
        """One more prompt, now; False if the file takes none like it. Raises StoreError."""
        entry = _entry(text)
        if self._nowhere or len(entry.raw) > _LONGEST_BYTES:
            return False
        with self._errors():
            paths.make_private(self._path.parent)
            with paths.alone(self._path.parent, seconds=_LOCK_SECONDS):
                self._put(entry)
        return True

    def _put(self, entry: Entry) -> None:
        handle = _opened(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            status = os.fstat(handle)
            if stat.S_IMODE(status.st_mode) & 0o077:
                # Made by something else: prompt-toolkit lets all read it.
                with suppress(OSError):
                    self._path.chmod(0o600)
            data = _end_of(handle)
            whole = status.st_size + len(entry.raw) <= _MOST_BYTES
            if whole and data.count(_HEAD) < self._most:
                _append(handle, entry.raw, status.st_size)
                return
        finally:
            os.close(handle)
        self._rewrite([*_entries(data), entry])

    def remove(self, unwanted: Callable[[Entry], bool]) -> int:
        """Take prompts out so that nothing of them is left in the file; how many those were.

        Raises StoreError.
        """
        if self._nowhere:
            return 0
        with self._errors():
            if not self._path.parent.is_dir():
                return 0
            with paths.alone(self._path.parent, seconds=_LOCK_SECONDS):
                self._wipe_leftovers()
                try:
                    handle = _opened(self._path, os.O_RDONLY)
                except FileNotFoundError:
                    return 0
                try:
                    data, size = _end_of(handle), os.fstat(handle).st_size
                finally:
                    os.close(handle)
                found = _entries(data)
                kept = [entry for entry in found if not unwanted(entry)]
                # What was not looked at may hold what is to go.
                if len(kept) < len(found) or len(data) < size or not kept:
                    self._rewrite(kept)
        return len(found) - len(kept)

    def _rewrite(self, entries: Sequence[Entry]) -> None:
        """Make these the whole content, in one step, and overwrite what stood there."""
        # A link stays a link.
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
        """What a killed process left of a rewriting: under the lock, nobody else is at one."""
        folder = self._path.parent
        if Path(os.path.realpath(self._path)).parent != Path(os.path.realpath(folder)):
            # Where a link leads, files of such names may be anybody's.
            return
        # As `paths.replacing` names them.
        for leftover in folder.glob(f".{self._path.stem[:40]}-????????"):
            with suppress(OSError):
                paths.wipe(leftover)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise StoreError(f"{self._path}: another process is changing it") from None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from None


def _opened(path: Path, flags: int) -> int:
    """A descriptor of a file. Raises OSError, also for what is no file; waits for no FIFO."""
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "is not a file")
    return handle


@contextmanager
def _overwritten(path: Path) -> Iterator[None]:
    """Overwrite what the file holds, if the block puts another in its place."""
    if os.name == "nt":
        # A file that is open cannot be replaced there.
        yield
        return
    handle = _opened(path, os.O_RDWR)
    try:
        yield
        status = os.fstat(handle)
        if status.st_nlink == 0:
            with suppress(OSError):
                paths.blank(handle, status.st_size)
    finally:
        os.close(handle)


def _end_of(handle: int) -> bytes:
    """The end of the file, from the beginning of a prompt."""
    size = os.fstat(handle).st_size
    start = max(0, size - _MOST_BYTES)
    os.lseek(handle, start, os.SEEK_SET)
    with os.fdopen(os.dup(handle), "rb") as file:
        data = file.read(_MOST_BYTES)
    return data[max(0, data.find(_HEAD)) :] if start else data


def _append(handle: int, raw: bytes, size: int) -> None:
    """Add all of it, or nothing. size: what the file holds."""
    try:
        while raw:
            raw = raw[os.write(handle, raw) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _entry(text: str) -> Entry:
    now = datetime.now().astimezone()
    # A paste may hold half a surrogate pair.
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
    """The time that a head tells; that of the prompt before if it tells none."""
    try:
        return datetime.fromisoformat(text.decode("ascii").strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        return before

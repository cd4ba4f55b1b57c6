"""Leases: they tell which of the processes that write into a store still live.

A process that writes holds a lock on a file of its own in the folder `running`, beside the
database. The kernel drops that lock when the process ends, however it ends. So whoever can take the
lock knows that the process has ended. Process ids cannot tell this: in containers many processes
have the same id, and on Windows asking for a process may end it.

Beside the lock is the journal of the process (see `store.calls`): the calls that it has begun.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.file_lock import try_lock

_FOLDER = "running"
_LOCK, _JOURNAL = ".lock", ".jsonl"
# On a file system without locks, a lease is valid for so long after its last line.
_DATED_SECONDS = 3600.0


@dataclass(eq=False)
class AppendedLines:
    """A file that lines are appended to. handle: opened with O_APPEND."""

    handle: int
    _torn: bool = False

    def write(self, line: str) -> None:
        """Append a line. Raises OSError."""
        # A full disk may have cut the last line; it must not spoil this one too.
        data = (b"\n" if self._torn else b"") + line.encode() + b"\n"
        self._torn = True
        if os.write(self.handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False


@dataclass(eq=False)
class Lease:
    """The lease of this process for the store in one folder.

    Attributes:
        token: The name of its files.
        dated: Whether the file system has no locks, so that the date of the file replaces one.
    """

    token: str
    _folder: Path
    _lock: int
    dated: bool = False
    _journal: AppendedLines | None = None

    @property
    def journal(self) -> Path:
        """The file of its journal."""
        return self._folder / f"{self.token}{_JOURNAL}"

    def write(self, line: str) -> None:
        """Append a line to the journal; it outlives this process. Raises OSError."""
        if self._journal is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._journal = AppendedLines(os.open(self.journal, flags, 0o600))
        self._journal.write(line)
        if self.dated:
            os.utime(self._folder / f"{self.token}{_LOCK}")

    def rewrite(self, lines: Iterator[str]) -> None:
        """Replace the whole journal by these lines, in one step. Raises OSError."""
        self._close_journal()
        with paths.replacing(self.journal) as file:
            for line in lines:
                file.write(line.encode() + b"\n")

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal.handle)
            self._journal = None

    def is_mine(self, database: Path) -> bool:
        """Whether this process holds it, and not a parent that this process was forked from."""
        return _LEASES.get(database.parent / _FOLDER) is self

    def close(self, *, settled: bool) -> None:
        """End the lease.

        settled: whether all of its journal is in the database. If not, its files stay for the next
        process that opens the store.
        """
        _LEASES.pop(self._folder, None)
        self._close_journal()
        if settled:
            _remove(self._folder, self.token, self._lock)
        else:
            os.close(self._lock)

    def forget(self) -> None:
        """Leave the lease to the parent that this process was forked from."""
        self._close_journal()
        os.close(self._lock)


@dataclass(frozen=True, eq=False)
class DeadLease:
    """The lease of an ended process. Its lock is held here, so no other process handles it."""

    token: str
    _folder: Path
    _lock: int

    def lines(self) -> list[str]:
        """The lines of its journal. Raises OSError."""
        try:
            data = (self._folder / f"{self.token}{_JOURNAL}").read_bytes()
        except FileNotFoundError:
            return []
        return data.decode("utf-8", "replace").splitlines()

    def remove(self) -> None:
        """Remove its files: all that they hold is in the database."""
        _remove(self._folder, self.token, self._lock)

    def leave(self) -> None:
        """Keep its files for another process."""
        os.close(self._lock)


# The leases of this process, by the folder of the store.
_LEASES: dict[Path, Lease] = {}


def _in_child() -> None:
    # A forked process shares the lock, which would then outlive the parent.
    for lease in _LEASES.values():
        with contextlib.suppress(OSError):
            lease.forget()
    _LEASES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def lease_for(database: Path) -> Lease:
    """The lease of this process for a database file, taken if it has none yet. Raises OSError."""
    folder = database.parent / _FOLDER
    lease = _LEASES.get(folder)
    if lease is None:
        lease = _LEASES[folder] = _take(folder)
    return lease


def _take(folder: Path) -> Lease:
    paths.make_private(folder)
    while True:
        token = secrets.token_hex(8)
        path = folder / f"{token}{_LOCK}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        taken = try_lock(handle)
        # Another process may have found it unlocked just now, and removed it.
        if taken is None or (taken and is_at(path, handle)):
            return Lease(token, folder, handle, dated=taken is None)
        os.close(handle)


def has_lease(database: Path, token: str) -> bool:
    """Whether the lease's process lives, or what it left is not settled yet."""
    folder = database.parent / _FOLDER
    return _is_token(token) and any(
        (folder / f"{token}{kind}").exists() for kind in (_LOCK, _JOURNAL)
    )


def dead_leases(database: Path) -> Iterator[DeadLease]:
    """The leases of ended processes. The caller removes or leaves each one."""
    folder = database.parent / _FOLDER
    own = _LEASES.get(folder)
    try:
        names = [file.name for file in folder.iterdir()]
    except OSError:
        return
    for token in sorted({name.partition(".")[0] for name in names}):
        if not _is_token(token) or (own is not None and own.token == token):
            continue
        # If somebody removed the lock by hand, the process counts as ended.
        handle = _take_up(folder / f"{token}{_LOCK}", create=f"{token}{_JOURNAL}" in names)
        if handle is not None:
            yield DeadLease(token, folder, handle)


def _is_token(name: str) -> bool:
    return len(name) == 16 and all(letter in "0123456789abcdef" for letter in name)


def _take_up(path: Path, *, create: bool) -> int | None:
    """Lock the file of a process that has ended, and return its handle.

    Returns None if the process lives or that cannot be told.
    """
    try:
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        return None
    try:
        taken = try_lock(handle)
        if taken is None:
            taken = time.time() - os.fstat(handle).st_mtime > _DATED_SECONDS
        if taken and is_at(path, handle):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _remove(folder: Path, token: str, lock: int) -> None:
    """Remove the files of a lease whose lock is held here, the lock last."""
    with contextlib.suppress(OSError):
        # A process that was killed in `rewrite` leaves a half-written file.
        for aside in folder.glob(f".{token}-*"):
            aside.unlink(missing_ok=True)
        (folder / f"{token}{_JOURNAL}").unlink(missing_ok=True)
        if sys.platform == "win32":
            # Windows removes no open file.
            os.close(lock)
            (folder / f"{token}{_LOCK}").unlink(missing_ok=True)
            return
        (folder / f"{token}{_LOCK}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.close(lock)

"""Leases: they show which of the processes that write into a store are still alive.

A process that writes holds a lock on its own file in the folder `running`, beside the database. The
kernel drops this lock when the process ends, in any way. So a process that can take the lock knows
that the other one has ended. Process ids cannot show this: in containers, many processes have the
same id, and on Windows, a check of a process id may end the process.

Beside the lock file is the journal of the process, with the calls that it has begun (see
`store.calls`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.files.lock import try_lock

_FOLDER = "running"
_LOCK, _JOURNAL = ".lock", ".jsonl"
_TOKEN = re.compile("[0-9a-f]{16}")
# On a file system without locks, a lease is valid for this many seconds after its last line.
_DATED_SECONDS = 3600.0


@dataclass(eq=False)
class AppendedLines:
    """A file that lines are appended to. handle: opened with O_APPEND."""

    handle: int
    _torn: bool = False

    def write(self, line: str) -> None:
        """Append a line. Raises OSError."""
        # A full disk may have cut the last line. Then this line begins after a line end, so that it
        # can be read.
        data = (b"\n" if self._torn else b"") + line.encode() + b"\n"
        self._torn = True
        if os.write(self.handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False


@dataclass(eq=False)
class Lease:
    """The lease of this process, or of an ended one, for the store in one folder.

    This process holds its lock, so no other process settles it. token: the name of its files.
    dated: whether the file system has no locks, so that the date of the file is used in place of a
    lock.
    """

    token: str
    _folder: Path
    _lock: int
    dated: bool = False
    _journal: AppendedLines | None = None

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self.token}{kind}"

    def write(self, line: str) -> None:
        """Append a line to the journal, which stays when this process is killed. Raises
        OSError."""
        if self._journal is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._journal = AppendedLines(os.open(self._file(_JOURNAL), flags, 0o600))
        self._journal.write(line)
        if self.dated:
            os.utime(self._file(_LOCK))

    def rewrite(self, lines: Iterable[str]) -> None:
        """Replace the whole journal by these lines, in one step. Raises OSError."""
        self._close_journal()
        with paths.replacing(self._file(_JOURNAL)) as file:
            for line in lines:
                file.write(line.encode() + b"\n")

    def lines(self) -> list[str]:
        """The lines of its journal. Raises OSError."""
        try:
            data = self._file(_JOURNAL).read_bytes()
        except FileNotFoundError:
            return []
        return data.decode("utf-8", "replace").splitlines()

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal.handle)
            self._journal = None

    @property
    def is_mine(self) -> bool:
        """Whether it is the lease of this process, and not of a parent that forked it."""
        return _LEASES.get(self._folder) is self

    def close(self, *, settled: bool) -> None:
        """End the lease. settled: whether all of its journal is in the database; then its files are
        removed. Otherwise they stay for the next process that opens the store.
        """
        if self.is_mine:
            del _LEASES[self._folder]
        self._close_journal()
        if settled:
            self._remove()
        else:
            os.close(self._lock)

    def _remove(self) -> None:
        """Remove its files, the lock last."""
        with contextlib.suppress(OSError):
            # A process that was killed in `rewrite` has left an incomplete file.
            for aside in self._folder.glob(f".{self.token}-*"):
                aside.unlink(missing_ok=True)
            self._file(_JOURNAL).unlink(missing_ok=True)
            if sys.platform == "win32":
                # Windows cannot remove an open file.
                os.close(self._lock)
                self._file(_LOCK).unlink(missing_ok=True)
                return
            self._file(_LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


# The leases of this process, by the folder of the store.
_LEASES: dict[Path, Lease] = {}


def _in_child() -> None:
    # A forked process shares the lock, so the lock would stay when the parent ends. Therefore the
    # child closes it.
    for lease in list(_LEASES.values()):
        with contextlib.suppress(OSError):
            lease.close(settled=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def lease_for(database: Path) -> Lease:
    """The lease of this process for a database file, taken if it has none yet. Raises OSError."""
    folder = database.parent / _FOLDER
    while folder not in _LEASES:
        paths.make_private(folder)
        token = secrets.token_hex(8)
        path = folder / f"{token}{_LOCK}"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        taken = try_lock(handle)
        # Another process may have found the file before it was locked, and removed it. Then a new
        # one is made.
        if taken is None or (taken and _is_at(path, handle)):
            _LEASES[folder] = Lease(token, folder, handle, dated=taken is None)
        else:
            os.close(handle)
    return _LEASES[folder]


def has_lease(database: Path, token: str) -> bool:
    """Whether the process of the lease is alive, or has ended but is not settled yet."""
    folder = database.parent / _FOLDER
    return _TOKEN.fullmatch(str(token)) is not None and any(
        (folder / f"{token}{kind}").exists() for kind in (_LOCK, _JOURNAL)
    )


def dead_leases(database: Path) -> Iterator[Lease]:
    """The leases of ended processes. The caller closes each one."""
    folder = database.parent / _FOLDER
    own = _LEASES.get(folder)
    try:
        names = [file.name for file in folder.iterdir()]
    except OSError:
        return
    for token in sorted({name.partition(".")[0] for name in names}):
        if not _TOKEN.fullmatch(token) or (own is not None and own.token == token):
            continue
        # If somebody removed the lock by hand, the process counts as ended.
        create = f"{token}{_JOURNAL}" in names
        handle = take_up(folder / f"{token}{_LOCK}", create=create, dated_seconds=_DATED_SECONDS)
        if handle is not None:
            yield Lease(token, folder, handle)


def take_up(path: Path, *, create: bool = False, dated_seconds: float | None = None) -> int | None:
    """Lock the file of a process that has ended, and return its handle.

    Returns None if the process is alive, or if this cannot be found out. create: whether to create
    the file if it is missing. dated_seconds: on a file system without locks, the age from which the
    file counts as left behind; None for any age.
    """
    try:
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        taken = try_lock(handle)
        if taken is None:
            age = time.time() - os.fstat(handle).st_mtime
            taken = dated_seconds is None or age > dated_seconds
        if taken and _is_at(path, handle):
            return handle
    os.close(handle)
    return None


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False

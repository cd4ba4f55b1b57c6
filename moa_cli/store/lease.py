"""Which processes that write into a store live still: told by locks that the kernel drops.

A process that writes holds a lock on a file of its own in the folder `running`, beside the
database, for as long as it lives. Whoever can take that lock knows that the process has ended,
however it ended. Process ids tell nothing of the kind: in a container each process may have the
same one, and on Windows a question about one may end it.

Beside the lock lies the journal of that process (see `store.calls`): what it had begun to pay for.
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
# Where the file system knows no locks, a lease holds for so long after its last line.
_DATED_SECONDS = 3600.0


@dataclass(eq=False)
class Lease:
    """This process's place among those that write into the store of one folder.

    dated: whether the file system knows no locks, so that the file's date stands for one.
    """

    token: str
    _folder: Path
    _lock: int
    dated: bool = False
    _journal: int | None = None
    _torn: bool = False

    @property
    def journal(self) -> Path:
        """Where its journal is."""
        return self._folder / f"{self.token}{_JOURNAL}"

    def write(self, line: str) -> None:
        """Add one line to the journal; it outlives this process. Raises OSError."""
        if self._journal is None:
            binary = getattr(os, "O_BINARY", 0)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary
            self._journal = os.open(self.journal, flags, 0o600)
        data = (b"\n" if self._torn else b"") + line.encode() + b"\n"
        # A line that was cut by a full disk must not spoil the next one, too.
        self._torn = os.write(self._journal, data) < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.dated:
            os.utime(self._folder / f"{self.token}{_LOCK}")

    def rewrite(self, lines: Iterator[str]) -> None:
        """Make these the whole journal, in one step. Raises OSError."""
        self._close_journal()
        self._torn = False
        with paths.replacing(self.journal) as file:
            for line in lines:
                file.write(line.encode() + b"\n")

    def _close_journal(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def is_mine(self, database: Path) -> bool:
        """Whether this process holds it still, and not another that this is a copy of."""
        return _LEASES.get(database.parent / _FOLDER) is self

    def close(self, *, settled: bool) -> None:
        """End it. settled: whether all of its journal is in the database; else the files stay
        for the next process that opens the store."""
        _LEASES.pop(self._folder, None)
        self._close_journal()
        if settled:
            _remove(self._folder, self.token, self._lock)
        else:
            os.close(self._lock)

    def forget(self) -> None:
        """Leave it to the process that this one is a copy of."""
        self._close_journal()
        os.close(self._lock)


@dataclass(frozen=True, eq=False)
class DeadLease:
    """The lease of a process that has ended; nobody else takes it up at the same time."""

    token: str
    _folder: Path
    _lock: int

    def lines(self) -> list[str]:
        """Its journal. Raises OSError if it cannot be read."""
        try:
            data = (self._folder / f"{self.token}{_JOURNAL}").read_bytes()
        except FileNotFoundError:
            return []
        return data.decode("utf-8", "replace").splitlines()

    def remove(self) -> None:
        """All that it tells is in the database."""
        _remove(self._folder, self.token, self._lock)

    def leave(self) -> None:
        """It stays for another time."""
        os.close(self._lock)


# By the folder of the store.
_LEASES: dict[Path, Lease] = {}


def _in_child() -> None:
    # The lock belongs to parent and copy alike, and would outlive the parent.
    for lease in _LEASES.values():
        with contextlib.suppress(OSError):
            lease.forget()
    _LEASES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def lease_for(database: Path) -> Lease:
    """This process's lease for that database file, taken if it has none. Raises OSError."""
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
        # Another process may have taken it up, and removed it, before it was locked.
        if taken is None or (taken and _is_at(path, handle)):
            return Lease(token, folder, handle, dated=taken is None)
        os.close(handle)


def has_lease(database: Path, token: str) -> bool:
    """Whether there is still something of that lease: its process lives, or nobody has taken up
    yet what it left."""
    folder = database.parent / _FOLDER
    return _is_token(token) and any(
        (folder / f"{token}{kind}").exists() for kind in (_LOCK, _JOURNAL)
    )


def dead_leases(database: Path) -> Iterator[DeadLease]:
    """The leases of processes that have ended. Remove or leave each one."""
    folder = database.parent / _FOLDER
    own = _LEASES.get(folder)
    try:
        names = [file.name for file in folder.iterdir()]
    except OSError:
        return
    for token in sorted({name.partition(".")[0] for name in names}):
        if not _is_token(token) or (own is not None and own.token == token):
            continue
        # A journal whose lock was removed by hand is one of a process that has ended.
        handle = _take_up(folder / f"{token}{_LOCK}", create=f"{token}{_JOURNAL}" in names)
        if handle is not None:
            yield DeadLease(token, folder, handle)


def _is_token(name: str) -> bool:
    return len(name) == 16 and all(letter in "0123456789abcdef" for letter in name)


def _take_up(path: Path, *, create: bool) -> int | None:
    """A handle of a lock whose process has ended, locked; None if the process lives, or nothing
    can be told."""
    try:
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        return None
    try:
        taken = try_lock(handle)
        if taken is None:
            taken = time.time() - os.fstat(handle).st_mtime > _DATED_SECONDS
        if taken and _is_at(path, handle):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove(folder: Path, token: str, lock: int) -> None:
    """Take away the files of a lease whose lock is held here: the lock last."""
    with contextlib.suppress(OSError):
        # Whatever was written aside when the process was killed is no part of it.
        for aside in folder.glob(f".{token}-*"):
            aside.unlink(missing_ok=True)
        (folder / f"{token}{_JOURNAL}").unlink(missing_ok=True)
        if sys.platform == "win32":
            # Nothing that is open can be removed there.
            os.close(lock)
            (folder / f"{token}{_LOCK}").unlink(missing_ok=True)
            return
        (folder / f"{token}{_LOCK}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.close(lock)

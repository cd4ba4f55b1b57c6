"""What one worker of a run has compiled is there for the others.

To compile the package, the libraries and the tests, whose assertions pytest rewrites, takes a
worker twice as long as all that comes of them before its first test. Where Python is told to keep
no bytecode, as in containers, each worker would do it anew, and so would the process that forks.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path

__all__ = ["Turn", "kept", "shared"]

_NAME = "first-worker.lock"


def shared() -> tempfile.TemporaryDirectory[str] | None:
    """Let processes that this one starts keep bytecode in a folder, which lasts as long as it does.

    It is None where Python keeps bytecode anyway.
    """
    if not sys.dont_write_bytecode:
        return None
    folder = tempfile.TemporaryDirectory(prefix="moa-tests-bytecode-")
    (Path(folder.name) / _NAME).touch()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = folder.name
    return folder


def kept() -> tuple[str, ...]:
    """The options with which another Python keeps its bytecode where this one does."""
    return ("-X", f"pycache_prefix={sys.pycache_prefix}") if sys.pycache_prefix else ()


class Turn:
    """A worker's time to compile: the first one's alone, then that of all others at once.

    Side by side they would compile the same at the same time.
    """

    def __init__(self, folder: str | None) -> None:
        """Wait for it. folder: that of the bytecode, which only workers that share one wait for."""
        self._file = None
        path = Path(folder or "", _NAME)
        if folder is None or not path.exists():
            return
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def end(self) -> None:
        """All is compiled."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()
            self._file = None

"""Processes of `moa` that report whoever but SQLite opens, moves or removes the database."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import Moa

__all__ = ["Watch"]

# Runs when an interpreter starts. SQLite's own opening is done in C, which raises no such event.
_HOOK = """
import os, sys

NAMES = ("conversations.db", "conversations.db-wal", "conversations.db-shm")
log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def hook(event, arguments):
    if event not in ("open", "os.rename", "os.remove", "os.truncate", "os.chmod"):
        return
    touched = [given for given in arguments[:2] if isinstance(given, (str, bytes, os.PathLike))]
    named = [os.path.basename(os.path.realpath(os.fsdecode(path))) for path in touched]
    if not any(name in NAMES for name in named):
        return
    if event == "open" and arguments[2] is not None and arguments[2] & os.O_EXCL:
        return
    os.write(log, f"{event} {arguments} by {sys.argv}\\n".encode())

sys.addaudithook(hook)
"""


class Watch:
    """Has each process that the user starts from now on report into a file."""

    def __init__(self, moa: Moa, folder: Path) -> None:
        hooks = folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(_HOOK, "utf-8")
        self._log = folder / "touched"
        before = moa.environment["PYTHONPATH"]
        moa.environment |= {"PYTHONPATH": f"{hooks}:{before}", "WATCH_LOG": str(self._log)}

    def touched(self) -> list[str]:
        """What was reported."""
        return self._log.read_text("utf-8").splitlines()

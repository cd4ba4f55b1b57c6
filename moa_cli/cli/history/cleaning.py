"""Starts a background process that finishes wiping deleted text from the history's file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_cli.core import paths
from moa_cli.core.errors import StoreError

if TYPE_CHECKING:
    from moa_cli.store.store import Store
    from moa_cli.store.upkeep import PendingUpkeep


def cleaning_lock() -> Path:
    """The file that a cleaning process holds locked."""
    database = paths.database_file()
    return database.with_name(f"{database.name}.clean.lock")


def go_on_cleaning(store: Store) -> None:
    """Start a background process if an earlier one has left work, for example because it was
    killed."""
    from moa_cli.core.files.lock import locked

    try:
        left = store.leftover()
    except StoreError:
        # A damaged list of what is left must not end a command, least of all the one that recovers
        # the history.
        return
    if not (left.conversations or left.merge or left.pack or left.traces):
        return
    try:
        with locked(cleaning_lock(), seconds=0.0) as nobody_cleans:
            pass
    except OSError:
        return
    if nobody_cleans is not False:
        _start()


def finish_later(left: PendingUpkeep) -> str | None:
    """Start a background process for the rest of the wiping, if one can do it. Returns a notice for
    the user, or None."""
    if not left.words:
        return None
    if left.trouble is not None:
        return (
            f"deleted text is still in the file ({left.trouble}); to wipe it: `moa history clean`"
        )
    if left.conversations or left.merge:
        _start()
        return "deleted text is being wiped from the file; to wait for that: `moa history clean`"
    if left.traces:
        _start()
        return (
            "unused parts of the file may hold traces of deleted text until the file is"
            " rewritten, when no process has used the history for a while; to rewrite it now:"
            " `moa history clean`"
        )
    return (
        "deleted text stays in the write-ahead log until other moa processes end; to empty"
        " the log: `moa history clean`"
    )


def _start() -> None:
    """Start a process that cleans in the background, and continues when this one ends."""
    import subprocess

    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.DETACHED_PROCESS}
    # `-P` keeps the working directory off the import path: a `json.py` there must not be run.
    subprocess.Popen(
        [sys.executable, "-P", "-m", "moa_cli", "history", "clean", "--background"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )

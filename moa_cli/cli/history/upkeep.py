"""`moa history check`, `backup`, `recover` and `clean`: work on the history's file itself."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from moa_cli.cli.history.cleaning import cleaning_lock
from moa_cli.cli.options import ForceFile
from moa_cli.cli.output import say
from moa_cli.cli.saving import open_store
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.files.new_file import check_free, check_name
from moa_cli.core.text import byte_count, plural
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from moa_cli.store.salvage import SalvageProgress
    from moa_cli.store.store import Store

_POLL_SECONDS = 0.5
_LONGEST_SECONDS = 3600.0
# In the background, a file is rewritten when no process has written for the first number of
# seconds. After the second number of seconds the attempt ends, and a later process tries again.
_QUIET_SECONDS, _LONGEST_WAIT_SECONDS = 60.0, 900.0


def check() -> None:
    """Read the whole history, and check it for damage."""
    from moa_cli.store.database import damaged_files
    from moa_cli.store.recovery import check as checked

    with closing(_open_whole()) as store:
        found = checked(store)
    if found.faults:
        for fault in found.faults:
            say(fault)
        raise _damaged()
    if not found.sound:
        raise StoreError(
            f"{plural(found.unreadable, 'value')} of the history cannot be read",
            hint="to export the rest: `moa history export --all`",
        )
    conversations = plural(found.conversations, "conversation")
    turns = plural(found.turns, "turn")
    size = f"{byte_count(found.size)} ({byte_count(found.free)} free)"
    typer.echo(folded(f"sound: {conversations}, {turns}, {size}", sys.stdout))
    if found.left.words:
        typer.echo("deleted text is not wiped yet; to finish: `moa history clean`")
    if found.left.pack:
        typer.echo("older proposals are not compressed yet; to finish: `moa history clean`")
    for aside in damaged_files(paths.database_file()):
        typer.echo(f"put aside as damaged: {aside}")


def _open_whole() -> Store:
    """The store. Raises StoreError if it is damaged. In that case a new, empty store has taken its
    place, which must not be reported as sound, or be copied over an older backup."""
    store = open_store(to_read=True)
    if store.damaged is not None:
        store.close()
        raise _damaged()
    return store


def _damaged() -> StoreError:
    return StoreError("the history is damaged", hint="to recover most of it: `moa history recover`")


def backup(
    file: Annotated[str, Argument(metavar="FILE", help="Where to write the copy.")],
    force: ForceFile = False,
) -> None:
    """Copy the history and the spending record into one file, even while other processes write."""
    from moa_cli.store.recovery import back_up

    if file == "-":
        raise UsageError("a copy cannot go to standard output", hint="name a file")
    target = paths.resolved(paths.expand(file))
    check_name(target)
    check_free(target, force=force)
    with closing(_open_whole()) as store:
        try:
            size = back_up(store, target)
        except OSError as error:
            raise StoreError(f"{target}: cannot be written: {error.strerror}") from None
    say(f"copied {byte_count(size)} to {target}; `moa history recover FILE` restores it")


def recover(
    file: Annotated[
        str | None,
        Argument(
            metavar="FILE",
            help="A copy or a damaged file; by default, the damaged file that was put aside last.",
        ),
    ] = None,
) -> None:
    """Recover what can be read from a damaged history, or from a copy."""
    from moa_cli.store.database import damaged_files, put_aside
    from moa_cli.store.recovery import check as checked
    from moa_cli.store.recovery import recover as recovered

    store = open_store()
    others: Sequence[Path] = ()
    try:
        if file is not None:
            source = paths.expand(file)
        else:
            if not checked(store).sound:
                store.close()
                say(f"the history is damaged and was put aside: {put_aside(paths.database_file())}")
                store = open_store()
            aside = damaged_files(paths.database_file())
            if not aside:
                say("nothing to recover: the history is sound, and no damaged file was put aside")
                return
            source, *others = aside
        try:
            done = recovered(store, source, _teller())
        except OSError as error:
            raise StoreError(f"{source}: cannot be read: {error.strerror}") from None
    finally:
        store.close()
    added, progress = done.added, done.progress
    conversations = plural(len(added.new) + len(added.renamed), "conversation")
    text = f"{source}: recovered {conversations}, {plural(added.turns, 'turn')}"
    if added.same:
        text += f"; {plural(len(added.same), 'conversation')} existed already"
    say(text)
    if progress.skipped or done.unreadable:
        pages = f"{progress.skipped} of {plural(progress.pages, 'page')} could not be read in full"
        say(f"lost: {pages}, {plural(done.unreadable, 'value')} could not be read")
    say(f"{source} stays as it is; delete it when you do not need it any more")
    if others:
        # Older files are read only if the user names them, because conversations that were deleted
        # since would come back.
        older = plural(len(others), "older damaged file")
        say(f"{older} beside it: {others[0]}; `moa history recover FILE` reads one")


def _teller() -> Callable[[SalvageProgress], None]:
    """A function that prints at a terminal, once a second, how far the reading has come."""
    told = time.monotonic()

    def tell(progress: SalvageProgress) -> None:
        nonlocal told
        now = time.monotonic()
        if progress.pages and now - told > 1 and sys.stderr.isatty():
            told = now
            say(f"read {100 * progress.done // progress.pages} %")

    return tell


def clean(
    compact: Annotated[
        bool,
        Option("--compact", help="Also rewrite the file, so that all free space is returned."),
    ] = False,
    background: Annotated[bool, Option("--background", hidden=True)] = False,
) -> None:
    """Finish wiping deleted text from the file. This also happens in the background."""
    from moa_cli.core.files.lock import locked

    patience = 0.0 if background else _QUIET_SECONDS
    with (
        closing(open_store(cleaning=True)) as store,
        locked(cleaning_lock(), seconds=patience) as alone,
    ):
        if background and alone is False:
            return
        left = store.upkeep(seconds=_LONGEST_SECONDS)
        if compact or (left.traces and (not background or _is_quiet(store))):
            store.rewrite()
            left = store.leftover()
    if background:
        return
    if left.traces:
        say("done, except for traces in unused parts of the file: another process is writing")
    elif left.log:
        say(
            "done, except for the log, which other moa processes are reading: it is emptied when"
            " they end"
        )
    else:
        say("done: no deleted text is left in the file")


def _is_quiet(store: Store) -> bool:
    """Wait until no process has written for a while. Returns whether that happened."""
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    last, since = store.changes(), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        if (now := store.changes()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= _QUIET_SECONDS:
            return True
    return False

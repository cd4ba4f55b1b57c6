"""Opens the store for a command, and finds the conversation to continue."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typer import Exit

from moa_cli.cli import wiring
from moa_cli.cli.exit_codes import TERMINATED
from moa_cli.cli.history.cleaning import go_on_cleaning
from moa_cli.cli.options import typed_or
from moa_cli.cli.output import say
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.chat.keeping import Past
    from moa_cli.core.conversation import Conversation, Turn
    from moa_cli.store.accounts import Records
    from moa_cli.store.store import Store


_TITLE_CELLS = 40


def open_books(*, save: bool | None) -> Records:
    """Open the records of conversations and spending. save: see `saves`.

    Raises StoreError if the budget of the day cannot be kept.
    """
    from moa_cli.store import accounts

    return accounts.open_records(wiring.config(), save=saves(save), open_store=open_store, warn=say)


def saves(save: bool | None) -> bool:
    """Whether conversations are saved. save: the typed option; None leaves it to the settings.

    If they are not, core files are switched off for this process and its children, because these
    could contain the text. In any case, drafts that a killed chat left in files are wiped.
    """
    kept = typed_or(save, wiring.config().save)
    if not kept:
        with suppress(ImportError, OSError, ValueError):
            import resource

            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if paths.is_folder(paths.drafts_dir()):
        from moa_cli.chat.drafts import wipe_leftovers

        wipe_leftovers()
    return kept


def open_store(*, to_read: bool = False, cleaning: bool = False) -> Store:
    """Open the store. Prints a notice if a damaged file was put aside. Raises StoreError.

    to_read: whether it is only read, so that a read-only folder is enough. cleaning: whether this
    process itself wipes deleted text, so that no other one is started for it.
    """
    from moa_cli.store.store import Store

    store = Store.open_to_read(tell=say) if to_read else Store.open(tell=say)
    if store.damaged is not None:
        notice = (
            f"the file of conversations was damaged and put aside: {store.damaged};"
            " to recover what can be read: `moa history recover`"
        )
        if wiring.config().budget.day is not None:
            notice += "; what was spent today was in it, so budget.day starts again from 0"
        say(notice)
    if store.notice is not None:
        say(store.notice)
    if not cleaning:
        go_on_cleaning(store)
    return store


def tell_unreadable(store: Store) -> None:
    """Print a notice if damaged values were left out when the store was read."""
    if store.unreadable:
        values = plural(store.unreadable, "damaged value")
        say(f"{values} in the history left out; see `moa history check`")


def resume(identity: str | None) -> Past:
    """The conversation with that id; None is the latest one. Raises StoreError if there is no such
    conversation."""
    from moa_cli.chat.keeping import read_past

    with closing(open_store(to_read=True)) as store:
        identity = identity or store.latest()
        if identity is None:
            raise StoreError("there is no conversation to continue")
        return read_past(store, identity)


def cut_off(store: Store | None, past: Past | None) -> list[str]:
    """A notice for a new chat if the last turn of the latest conversation was cut off, for example
    by a crash. past: the conversation that is continued; it shows its last turn itself, so there is
    no notice."""
    if store is None or past is not None:
        return []
    with suppress(StoreError):
        identity = store.latest()
        if identity is not None and store.last_status(identity) == "interrupted":
            title = one_line(store.title(identity), _TITLE_CELLS)
            return [
                f"the last conversation was cut off: {title}; /resume {identity} goes on with it"
            ]
    return []


def not_sent(past: Past) -> list[str]:
    """A notice if the last turn of the continued conversation has no reply, because such a turn is
    not sent to the models."""
    from moa_cli.engine.merging import answered_before, kept_text, last_turn

    turns = past.conversation.turns
    if turns and turns[-1].status == "open" and turns[-1].reply is None:
        return ["another moa process is still answering its last turn, so that turn is not sent"]
    last = last_turn(turns)
    if last is None or last.reply is not None or answered_before(turns, last):
        return []
    kept = kept_text(last, "`moa ask --remerge`")
    told = "its last turn has no reply, and is not sent"
    return [f"{told}; {kept}" if kept else told]


@dataclass(frozen=True)
class LeftTurn:
    """A turn with proposals that can be merged. past: its conversation, with the mixture of this
    turn. asked: the conversation before it, with its prompt as the open turn."""

    past: Past
    asked: Conversation
    turn: Turn


def left_turn(identity: str | None) -> LeftTurn:
    """The last turn of that conversation (None is the latest one), if its proposals can be merged.

    Raises StoreError if there is no such conversation, UsageError if there are no proposals.
    """
    from moa_cli.core.conversation import Conversation
    from moa_cli.engine.merging import answered_before, last_turn, mergeable

    past = resume(identity)
    turns = past.conversation.turns
    if turns and turns[-1].status == "open" and turns[-1].reply is None:
        raise UsageError(
            "another moa process is still answering the last turn",
            hint="wait until it has finished",
        )
    turn = last_turn(turns)
    if turn is None or turn.stored_as is None or not mergeable(turn.proposals):
        raise UsageError(
            f"the last turn of {past.identity} has no proposals to write a reply from",
            hint="`moa history list` lists conversations; --cid ID names one",
        )
    before = Conversation(turns[: turns.index(answered_before(turns, turn) or turn)])
    with closing(open_store(to_read=True)) as store:
        settings = store.kept_turn(turn.stored_as).settings
    past = replace(past, profile=turn.profile, settings=settings)
    return LeftTurn(past, before.ask(turn.user, turn.parts), turn)


def choose(*, accessible: bool) -> str | None:
    """The id of the conversation that the user chooses at the terminal; None if they leave.

    accessible: whether nothing on the screen may be redrawn. Raises UsageError if no list can be
    shown.
    """
    import asyncio

    from moa_cli.chat.picker import can_pick, pick
    from moa_cli.terminal.tty import cancel_on_termination

    if not can_pick() or accessible:
        why = "needs a list that changes on the screen" if accessible else "needs a terminal"
        raise UsageError(
            f"choosing a conversation {why}",
            hint="`moa history list` names them; use --cid ID, or -c for the last one",
        )

    async def chosen() -> str | None:
        cancel_on_termination()
        return await pick(open_store)

    try:
        return asyncio.run(chosen())
    except asyncio.CancelledError:
        raise Exit(TERMINATED) from None

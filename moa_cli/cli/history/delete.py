"""`moa history delete`: deletes conversations, undone turns, and the prompts of both in the prompt
history."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from moa_cli.cli import wiring
from moa_cli.cli.history.cleaning import finish_later
from moa_cli.cli.options import Yes, time_ago
from moa_cli.cli.output import MOST_NAMED, check_can_confirm, confirm, say
from moa_cli.cli.saving import open_store
from moa_cli.core import paths
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.chat.prompt_history import Entry, PromptFile
    from moa_cli.store.reading import WithdrawnTurn
    from moa_cli.store.store import Store

# A text file that was attached to a prompt with `/file`, as it is in the stored text.
_ATTACHED = re.compile(r"\n\n(?:(?P<name>[^\n]+):\n)?`{3,}\n")
_MOST_ATTACHED = 50


@dataclass(frozen=True)
class _Chosen:
    """What to delete. unwanted: whether a prompt of the prompt history is to be deleted."""

    conversations: Sequence[str]
    turns: Sequence[WithdrawnTurn]
    unwanted: Callable[[Entry], bool]

    def told(self, prompts: int) -> str:
        """What to delete, in words; "" for nothing. prompts: how many prompts are deleted."""
        parts = [
            (len(self.conversations), "conversation", ""),
            (len(self.turns), "undone turn", ""),
            (prompts, "prompt", " from the prompt history"),
        ]
        return ", ".join(f"{plural(count, noun)}{where}" for count, noun, where in parts if count)


@dataclass(frozen=True)
class _Typed:
    """The typed arguments and options that select what to delete. every: whether everything is
    selected. words: search words, or "". before: seconds since 1970."""

    identities: Sequence[str]
    every: bool
    words: str
    before: float | None

    @property
    def nothing(self) -> bool:
        return not (self.identities or self.every or self.words or self.before is not None)


def delete(
    conversations: Annotated[list[str] | None, Argument(metavar="ID")] = None,
    all_: Annotated[bool, Option("--all", help="All conversations.")] = False,
    search: Annotated[
        str | None,
        Option(metavar="WORDS", help="All conversations in which `search -w` finds the words."),
    ] = None,
    older_than: Annotated[
        str | None,
        Option(metavar="SPAN", help="All whose last turn is older than SPAN, such as 30d."),
    ] = None,
    undone: Annotated[
        bool, Option("--undone", help="Only turns that were undone or replaced (/undo, /retry).")
    ] = False,
    prompts: Annotated[
        bool, Option("--prompts", help="Only the prompts that `moa chat` offers again.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Delete conversations permanently, with their prompts in the prompt history."""
    from moa_cli.chat.drafts import wipe_leftovers
    from moa_cli.chat.prompt_history import PromptFile
    from moa_cli.config.schema import Config
    from moa_cli.store import recovery

    before = None if older_than is None else time_ago(older_than)
    typed = _Typed(conversations or (), all_, search or "", before)
    _check(typed, undone=undone, prompts=prompts)
    wipe_leftovers()
    recovery.wipe_leftovers()
    file = PromptFile(wiring.config().prompt_history or Config.prompt_history)
    if prompts:
        _carry_out(None, _Chosen((), (), _unwanted(typed, set())), file, yes=yes)
        return
    with closing(open_store()) as store:
        chosen = _undone(store, typed) if undone else _chosen(store, typed)
        _carry_out(store, chosen, file, yes=yes)
        if all_ and (count := store.comparisons.count_texts()):
            # Choices are not conversations, but they may contain the same texts.
            say(
                f"prompts and answers of {plural(count, 'choice')} are kept;"
                " `moa compare delete --texts --all` deletes them"
            )


def _check(typed: _Typed, *, undone: bool, prompts: bool) -> None:
    if undone and prompts:
        raise UsageError("--undone and --prompts cannot be used together")
    if prompts and typed.identities:
        raise UsageError(
            "--prompts takes no ID", hint="`moa history delete ID` deletes its prompts, too"
        )
    filtered = bool(typed.words) or typed.before is not None
    if bool(typed.identities) + typed.every + filtered > 1:
        raise UsageError(
            "select what to delete in one way only",
            hint="pass ids, or --all, or --search and --older-than",
        )
    if typed.nothing and not undone and not prompts:
        raise UsageError(
            "select what to delete",
            hint="pass ids, --all, --search WORDS, or --older-than 30d",
        )


def _chosen(store: Store, typed: _Typed) -> _Chosen:
    turns: Sequence[WithdrawnTurn] = ()
    if typed.identities:
        found = [store.find(prefix) for prefix in typed.identities]
    elif typed.every:
        found = [row.id for row in store.conversations(limit=sys.maxsize)]
    else:
        old = store.older_than(typed.before) if typed.before is not None else None
        found = old or []
        if typed.words:
            # Texts that contain only another form or a part of a word are kept, because users would
            # not expect to lose them.
            hits = store.search(typed.words, limit=sys.maxsize, whole=True)
            found = [hit.conversation for hit in hits if old is None or hit.conversation in old]
            # A search does not find turns that were undone, but these are to be deleted, too.
            turns = _matching(store.undone(words=typed.words), typed)
    found = list(dict.fromkeys(found))
    turns = [turn for turn in turns if turn.conversation not in found]
    texts = set() if typed.every else store.typed(found)
    texts |= {turn.prompt for turn in turns if not turn.asked_again}
    return _Chosen(found, turns, _unwanted(typed, texts))


def _undone(store: Store, typed: _Typed) -> _Chosen:
    identities = [store.find(prefix) for prefix in typed.identities]
    turns = _matching(store.undone(identities or None, words=typed.words), typed)
    texts = _spellings(turn.prompt for turn in turns if not turn.asked_again)
    return _Chosen((), turns, lambda entry: _is_one_of(entry.text, texts))


def _matching(turns: Sequence[WithdrawnTurn], typed: _Typed) -> Sequence[WithdrawnTurn]:
    return [turn for turn in turns if typed.before is None or turn.started < typed.before]


def _unwanted(typed: _Typed, texts: set[str]) -> Callable[[Entry], bool]:
    """A function that decides whether a prompt of the prompt history is deleted. texts: the
    messages of deleted turns."""
    if typed.every or typed.nothing:
        return lambda entry: True
    from moa_cli.store.query import MatchKind, Query
    from moa_cli.store.stored_values import as_unicode

    spellings = _spellings(texts)
    before, filtered = typed.before, not typed.identities
    query = Query.of(as_unicode(typed.words)) if typed.words else None

    def unwanted(entry: Entry) -> bool:
        if _is_one_of(entry.text, spellings):
            return True
        return (
            filtered
            and (before is None or entry.at < before)
            # The prompt matches as a turn would in `search --whole`.
            and (query is None or query.examine(entry.text).kind is MatchKind.WHOLE)
        )

    return unwanted


def _spellings(texts: Iterable[str]) -> set[str]:
    """The forms in which these texts may be in the prompt history: as they are, without attached
    files, and only the files' names."""
    found = set()
    for text in texts:
        found.add(text.strip())
        for count, file in enumerate(_ATTACHED.finditer(text)):
            if count == _MOST_ATTACHED:
                break
            found.add(text[: file.start()].strip())
            found.add(file["name"] or "")
    return found - {""}


def _is_one_of(line: str, texts: set[str]) -> bool:
    """Whether a typed line is one of the texts, or a command with one of them as its argument."""
    line = line.strip()
    if line.startswith("//"):
        line = line[1:]
    elif line.startswith("/"):
        argument = line.partition(" ")[2].strip()
        value = argument.partition(" ")[2].strip()
        return not texts.isdisjoint({argument, value, str(paths.expand(argument))})
    return line in texts


def _carry_out(store: Store | None, chosen: _Chosen, file: PromptFile, *, yes: bool) -> None:
    """Ask, delete, and print what was deleted. Raises StoreError if a part could not be deleted."""
    trouble = None
    prompts = 0
    try:
        prompts = sum(map(chosen.unwanted, file.read()))
    except StoreError as error:
        trouble = error.message
    told = chosen.told(prompts)
    if not told:
        if trouble is not None:
            raise StoreError(f"the prompt history cannot be used: {trouble}")
        # If the limit of the prompt history was lowered, this removes the prompts beyond it.
        file.remove(chosen.unwanted)
        say("nothing to delete")
        if store is not None:
            _tell_of_copies()
        return
    if not yes:
        _confirm(store, chosen, f"Delete {told} permanently?")
    try:
        # This comes first: once the conversations are gone, nothing tells which prompts were
        # theirs.
        prompts = file.remove(chosen.unwanted)
    except StoreError as error:
        prompts, trouble = 0, error.message
    later = None
    if store is not None and (chosen.conversations or chosen.turns):
        try:
            left = store.delete(chosen.conversations, [turn.id for turn in chosen.turns])
        except StoreError as error:
            done = f"deleted {plural(prompts, 'prompt')} from the prompt history, but no"
            raise StoreError(
                f"{done if prompts else 'deleted no'} conversation: {error.message}",
                hint=error.hint,
            ) from None
        later = finish_later(left)
    told = chosen.told(prompts)
    if trouble is not None:
        done = f"deleted {told}, but " if told else ""
        raise StoreError(
            f"{done}no prompt was deleted from the prompt history: {trouble}",
            hint="remove that file yourself",
        )
    say(f"deleted {told}")
    if later is not None:
        say(later)
    if chosen.conversations or chosen.turns:
        _tell_of_copies()


def _confirm(store: Store | None, chosen: _Chosen, question: str) -> None:
    """List what is to be deleted, up to a limit, and ask. Raises as `confirm` does."""
    check_can_confirm()
    rows = store.summaries(chosen.conversations[:MOST_NAMED]) if store is not None else []
    named = [f"{row.id} · {plural(row.turns, 'turn')} · {row.title}" for row in rows]
    undone = chosen.turns[: MOST_NAMED - len(named)]
    named += [f"{turn.conversation} · undone · {turn.prompt}" for turn in undone]
    more = len(chosen.conversations) + len(chosen.turns) - len(named)
    confirm(question, named, more=more)


def _tell_of_copies() -> None:
    from moa_cli.store.database import damaged_files

    aside = damaged_files(paths.database_file())
    if aside:
        say(f"the damaged file that was put aside may still hold deleted text: {aside[0]}")
    # Files of processes that have ended were merged when the store was opened, so these belong to
    # running processes.
    pending = sorted((paths.data_dir() / "pending").glob("*.jsonl"))
    if pending:
        say(f"turns that wait to be written may still hold deleted text: {pending[0].parent}")

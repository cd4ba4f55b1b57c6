"""Saves the conversation of a chat, loads others, and notices changes by other processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_cli.core.conversation import Conversation, KeptTurn, Turn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.core.ledger import Ledger
    from moa_cli.core.stream import Sink
    from moa_cli.profile import Profile
    from moa_cli.store.reading import TurnState
    from moa_cli.store.recorder import Recorder
    from moa_cli.store.spending import Spending
    from moa_cli.store.store import Store


@dataclass(frozen=True)
class Past:
    """A conversation that is continued.

    profile: the name of the profile of its latest turn. settings: that mixture as TOML.
    """

    identity: str
    title: str
    conversation: Conversation
    profile: str
    settings: str


def read_past(store: Store, prefix: str) -> Past:
    """The conversation whose id begins with `prefix`. Raises StoreError if there is none."""
    identity = store.find(prefix)
    title, conversation = store.title(identity), store.load(identity)
    return Past(identity, title, conversation, *store.mixture(identity))


@dataclass(frozen=True)
class Changes:
    """The changes of other processes to a conversation, as numbers of turns.

    added: new turns. taken_back: turns that were taken back. changed: turns that got a reply or
    another status.
    """

    added: tuple[int, ...] = ()
    taken_back: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.taken_back or self.changed)

    def __str__(self) -> str:
        done = {
            f"added {plural(len(self.added), 'turn')} to": self.added,
            f"taken back {plural(len(self.taken_back), 'turn')} of": self.taken_back,
            f"changed {plural(len(self.changed), 'turn')} of": self.changed,
        }
        told = " and ".join(words for words, turns in done.items() if turns)
        return f"another moa has {told} this conversation"


class SavedConversation:
    """A conversation, and the store in which it is saved. Its methods raise StoreError.

    store: None if the conversation is not saved. id: its id in the store; None before its first
    turn. conversation: the earlier turns, if a conversation is continued. SQLite is imported only
    if something is saved.
    """

    def __init__(
        self,
        store: Store | None = None,
        identity: str | None = None,
        conversation: Conversation | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.store = store
        self._spending = spending
        self.conversation = conversation or Conversation()
        self._recorder: Recorder | None = None
        self._take(identity, self.conversation.turns)

    def _take(self, identity: str | None, turns: Iterable[Turn] = ()) -> None:
        """Change to the conversation with that id and these turns."""
        self.id = identity
        # The states of the turns that this process knows, by their numbers in the file `_file`.
        self._file = self.store.identity if self.store else None
        self._states: dict[int, TurnState] = {
            turn.stored_as: (turn.status, turn.reply is not None)
            for turn in turns
            if turn.stored_as is not None
        }
        # The recorders of own turns whose numbers are not known yet, for example because the store
        # is locked.
        self._own: list[Recorder] = []

    def recorders(
        self,
        profile: Profile,
        warn: Callable[[str], None],
        *,
        merging: Turn | None = None,
        reporting: bool = False,
        asks_again: bool = False,
    ) -> list[Sink]:
        """The sinks that write the next turn; none if it is not saved.

        merging: the turn whose proposals the reply is written from. reporting: whether only a
        report on that turn is made. asks_again: whether the reply is to replace an earlier one.
        """
        if self.store is None:
            return []
        from moa_cli.profile import dump
        from moa_cli.store.recorder import Recorder

        latest = max(self._states, default=None)
        self._recorder = Recorder(
            self.store, self.id, dump(profile), warn, latest, merging, reporting, asks_again
        )
        return [self._recorder]

    def ledger(self, warn: Callable[[str], None]) -> Ledger | None:
        """The ledger that records the costs of all turns; None if they are not stored."""
        if self._spending is None:
            return None
        from moa_cli.store.spending import CallRecorder

        return CallRecorder(
            self._spending, warn, lambda: self._recorder.turn if self._recorder else None
        )

    def stored_as(self) -> int | None:
        """Note the conversation and the number of the turn that has just ended. Returns the
        number; None if the turn is not stored yet."""
        if self._recorder is None:
            return None
        if self.id != self._recorder.conversation:
            # The first turn of a new conversation.
            self._take(self._recorder.conversation)
        self._own.append(self._recorder)
        return self._recorder.turn

    def withdraw(self, turn: Turn) -> None:
        """Note that a turn was taken back or replaced."""
        if self.store is not None and turn.stored_as is not None:
            self.store.withdraw(turn.stored_as, self.id)
            self._states.pop(turn.stored_as, None)
            self._own = [known for known in self._own if known.turn != turn.stored_as]

    def changes(self, *, accept: bool = False) -> Changes:
        """The changes of other processes to this conversation.

        accept: whether the changes count as known from now on, so that they are returned only once.
        """
        if self.store is None or self.id is None:
            return Changes()
        try:
            states = self.store.turn_states(self.id)
            if not states and not self.store.has(self.id):
                # The conversation was deleted. The recorder of the next turn tells the user.
                return Changes()
        except StoreError:
            return Changes()
        for recorder in list(self._own):
            number = recorder.turn
            if number is not None:
                self._own.remove(recorder)
                self._states[number] = states.get(number, self._states.get(number, ("", False)))
        if self.store.identity != self._file:
            # Another file has replaced the old one, and its turns have other numbers.
            self._states, self._file = states, self.store.identity
        known = self._states
        found = Changes(
            tuple(number for number in states if number not in known),
            tuple(number for number in known if number not in states),
            tuple(number for number, state in states.items() if known.get(number, state) != state),
        )
        if accept:
            self._states = states
        return found

    def begin_anew(self) -> None:
        """Let the next turn begin a new conversation."""
        self._take(None)

    def rewrite(self, *turns: Turn) -> None:
        """Store again turns of this conversation that have changed since they ended."""
        if self.store is not None and self.id is not None:
            for turn in turns:
                self.store.rewrite_turn(self.id, turn)

    def go_on(self, prefix: str) -> Past:
        """Change to the conversation whose id begins with `prefix`, and return it."""
        from moa_cli.store.store import Store

        with ExitStack() as opened:
            store = self.store or opened.enter_context(closing(Store.open()))
            past = read_past(store, prefix)
        self._take(past.identity, past.conversation.turns)
        return past

    def way_back(self) -> str | None:
        """The command that continues this conversation later; None if it is not saved."""
        store, identity = self.store, self.id
        if store is None or identity is None:
            return None
        with suppress(StoreError):
            # If steps wait in a separate file, the next command will add them to the history.
            if not store.backlog and not store.has(identity):
                return None
        return f"moa chat --cid {identity}"

    def fork(self, before: int | None = None) -> Conversation:
        """Change to a copy of the conversation, and return it. The copy has only the turns that
        this chat knows, and none that other processes have added since.

        before: the number of a turn; the copy ends before it. Raises UsageError if nothing is saved
        yet.
        """
        store, identity = self._place()
        known = sorted(self._states)
        copy = store.fork(identity, [n for n in known if before is None or n < before])
        conversation = store.load(copy)
        self._take(copy, conversation.turns)
        return conversation

    def begin_saving(self, conversation: Conversation, profile: Profile) -> Conversation:
        """Save the conversation so far, and all turns from now on. Returns the conversation as it
        is stored.

        profile: the present mixture, which is stored with the turns so far.
        """
        from moa_cli.profile import dump
        from moa_cli.store.store import Store

        store, identity = Store.open(), None
        try:
            if conversation.turns:
                with store.connection(writing=True):
                    now = time.time()
                    identity = store.begin_conversation(conversation.turns[0].user, profile.name)
                    for turn in conversation.turns:
                        store.keep_turn(identity, KeptTurn(turn, now, dump(profile)))
                conversation = store.load(identity)
        except BaseException:
            store.close()
            raise
        self.store = store
        self._take(identity, conversation.turns)
        return conversation

    def close(self) -> None:
        if self.store is not None:
            self.store.close()

    def rename(self, title: str) -> None:
        """Give the conversation another title. Raises UsageError if nothing is saved yet."""
        store, identity = self._place()
        store.rename(identity, title)

    def tag(self, tags: Sequence[str], *, remove: bool = False) -> tuple[str, ...]:
        """Add or remove tags (see `checked_tag`). Returns all tags of the conversation after that.
        Raises UsageError if nothing is saved yet."""
        store, identity = self._place()
        if remove:
            store.untag(identity, tags)
        else:
            store.tag(identity, tags)
        return store.tags(identity)

    def check_saved(self) -> None:
        """Raise UsageError if the conversation is not in the history."""
        self._place()

    def _place(self) -> tuple[Store, str]:
        if self.store is None or self.id is None:
            raise UsageError("this conversation is not saved, or has no turn yet")
        if self.store.has(self.id):
            return self.store, self.id
        if self.store.backlog:
            raise UsageError(
                "this conversation is not saved yet",
                hint="it waits in a file of its own, and the next turn tries again",
            )
        raise UsageError(
            "another process has deleted this conversation",
            hint="the next turn begins a new one; /export writes what this chat knows",
        )

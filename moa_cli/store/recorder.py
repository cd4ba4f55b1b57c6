"""A sink that writes a turn down as it goes."""

from __future__ import annotations

from collections.abc import Callable

from moa_cli.errors import StoreError
from moa_cli.events import (
    AggregatorFailed,
    AggregatorFinished,
    Event,
    ProposerFailed,
    ProposerFinished,
    ReferencesTrimmed,
    Retrying,
    TurnStarted,
    to_dict,
)
from moa_cli.store.store import Store
from moa_cli.stream import TurnFold

__all__ = ["Recorder"]


class Recorder:
    """Writes one turn into a store: the prompt before the first call, each proposal when it
    ends, the reply, and what it took.

    conversation: the id of the one to go on with, or None for a new one. After the turn has
    started, `conversation` and `turn` are its ids. settings: the resolved profile as TOML.
    warn: called once, with a sentence, if nothing more can be written; the turn goes on.
    """

    def __init__(
        self, store: Store, conversation: str | None, settings: str, warn: Callable[[str], None]
    ) -> None:
        self.conversation = conversation
        self._store: Store | None = store
        self._settings = settings
        self._warn = warn
        self.turn: int | None = None
        self._fold = TurnFold()

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._fold.handle(event)
        self._try(lambda store: self._write(store, event))

    def _write(self, store: Store, event: Event) -> None:
        if isinstance(event, TurnStarted):
            if self.conversation is None:
                self.conversation = store.begin_conversation(event.prompt, event.profile)
            self.turn = store.begin_turn(
                self.conversation, event.prompt, event.profile, self._settings
            )
        elif self.turn is None:
            return
        elif isinstance(event, ProposerFinished | ProposerFailed):
            store.add_proposal(self.turn, event.proposal)
        elif isinstance(event, Retrying | ReferencesTrimmed | AggregatorFailed):
            store.add_note(self.turn, to_dict(event))
        elif isinstance(event, AggregatorFinished):
            # Before the turn's own end: between the two the process may be killed.
            store.end_turn(self.turn, self._fold.turn())

    def close(self) -> None:
        """Write what came of the turn."""
        self._fold.close()
        self._try(self._end)

    def _end(self, store: Store) -> None:
        if self.turn is None:
            return
        turn = self._fold.turn()
        if turn.status == "interrupted":
            # Those that had ended are written again as they are.
            for one in (one for layer in turn.proposals for one in layer):
                store.add_proposal(self.turn, one)
        store.end_turn(self.turn, turn)

    def _try(self, write: Callable[[Store], None]) -> None:
        if self._store is None:
            return
        try:
            write(self._store)
        except StoreError as error:
            self._store = None
            self._warn(f"this turn is not saved: {error.message}")

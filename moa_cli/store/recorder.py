"""The sink that writes a turn into the store while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from moa_cli.core.errors import NoConversation, StoreError, StoreLocked
from moa_cli.core.events import (
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
from moa_cli.core.stream import TurnFold
from moa_cli.core.text import plural
from moa_cli.store.backlog import Backlog, PendingTurn
from moa_cli.store.store import Store, new_id

_TOLD_AFTER_SECONDS = 0.8


class Recorder:
    """A sink that writes one turn into a store.

    It writes the prompt before the first call, each proposal when it ends, and then the reply and
    what the turn took. If the store cannot be written, the turn goes on.

    Args:
        store: The store.
        conversation: The id of the conversation to continue; None for a new one. The attribute
            `conversation` holds the id once the turn has begun.
        settings: The resolved profile as TOML.
        warn: Called with a sentence if something cannot be written.
        known: The number of the latest turn that the models are shown; None if other processes'
            turns do not matter.
    """

    def __init__(
        self,
        store: Store,
        conversation: str | None,
        settings: str,
        warn: Callable[[str], None],
        known: int | None = None,
    ) -> None:
        self.conversation = conversation
        self._store = store
        self._backlog: Backlog | None = store.backlog
        self._settings = settings
        self._warn = warn
        self._known = known
        self._told = False
        self._locked_since: float | None = None
        self._turn: PendingTurn | None = None
        self._fold: TurnFold

    @property
    def turn(self) -> int | None:
        """The number of the turn in the store; None while it is not there."""
        return None if self._turn is None else self._turn.number

    def follow(self, fold: TurnFold) -> None:
        """See `TurnSink.follow`."""
        self._fold = fold

    def handle(self, event: Event) -> None:
        """Take the next event."""
        turn = self._turn
        if isinstance(event, TurnStarted):
            self._begin(event)
        elif turn is None:
            return
        elif isinstance(event, ProposerFinished | ProposerFailed):
            proposal = event.proposal
            self._try(lambda backlog: backlog.proposal(turn, proposal))
        elif isinstance(event, Retrying | ReferencesTrimmed | AggregatorFailed):
            values = to_dict(event)
            self._try(lambda backlog: backlog.note(turn, values))
        elif isinstance(event, AggregatorFinished):
            # The process may be killed between this event and the end of the turn.
            self._try(lambda backlog: backlog.end(turn, self._fold.turn()))

    def _begin(self, event: TurnStarted) -> None:
        new = self.conversation is None
        self._turn = PendingTurn(self.conversation or new_id(), new, self._known)
        self._try(partial(self._write_begin, self._turn, event))
        self.conversation = self._turn.conversation
        if self._turn.others:
            turns = plural(self._turn.others, "turn")
            self._warn(
                f"another moa has added {turns} to this conversation, which the models do not see;"
                f" `/resume {self.conversation}` reads them"
            )

    def _write_begin(self, turn: PendingTurn, event: TurnStarted, backlog: Backlog) -> None:
        try:
            backlog.begin(turn, event.prompt, event.profile, self._settings)
        except NoConversation:
            turn.conversation, turn.new, turn.known = new_id(), True, None
            self._warn(
                "another process has deleted the conversation: this turn begins a new one,"
                f" {turn.conversation}"
            )
            backlog.begin(turn, event.prompt, event.profile, self._settings)

    def close(self) -> None:
        """Write the result of the turn."""
        if self._turn is None or self._backlog is None:
            return
        known, turn = self._turn, self._fold.turn()
        if turn.status == "interrupted":
            # This adds proposals that were cut off; it rewrites complete ones as they are.
            for layer in turn.proposals:
                for proposal in layer:
                    self._try(partial(Backlog.proposal, turn=known, proposal=proposal))
        self._try(lambda backlog: backlog.end(known, turn))
        if self._locked_since and self._backlog and not self._backlog.flush():
            self._warn(
                "another process is writing to the history: this turn waits in a file of"
                " its own, and the next moa adds it to the history"
            )

    def _try(self, write: Callable[[Backlog], None]) -> None:
        if self._backlog is None:
            return
        try:
            write(self._backlog)
        except StoreLocked:
            now = time.monotonic()
            self._locked_since = self._locked_since or now
            # No warning is due if several processes only write a little each.
            if not self._told and now - self._locked_since > _TOLD_AFTER_SECONDS:
                self._told = True
                self._warn(
                    "another process is writing to the history; this turn is written when it can be"
                )
        except (StoreError, OSError) as error:
            told = error.message if isinstance(error, StoreError) else str(error.strerror or error)
            if isinstance(error, OSError) or not self._backlog:
                self._backlog = None
                self._warn(f"this turn is not saved: {told}")
            elif not self._told:
                self._told = True
                self._warn(f"this turn is not saved yet: {told}; it waits in a file of its own")

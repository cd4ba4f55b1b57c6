"""A sink that writes a turn down as it goes."""

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
from moa_cli.store.backlog import Backlog, TurnOnItsWay
from moa_cli.store.store import Store, new_id

_TOLD_AFTER_SECONDS = 0.8


class Recorder:
    """A sink that writes one turn into a store: the prompt before the first call, each proposal
    when it ends, the reply, and what it took.

    conversation: the id of the one to go on with, or None for a new one. After the turn has
    started, `conversation` and `turn` are its ids; `turn` is None while the store is locked.
    settings: the resolved profile as TOML. known: the number of the latest turn of the
    conversation that the models are shown, None if that does not matter.
    warn: called with a sentence where something is not as expected; the turn goes on.
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
        self._turn: TurnOnItsWay | None = None
        self._fold: TurnFold

    @property
    def turn(self) -> int | None:
        """The number of the turn, None if it is not in the store, or not yet."""
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
            # Before the turn's own end: between the two the process may be killed.
            self._try(lambda backlog: backlog.end(turn, self._fold.turn()))

    def _begin(self, event: TurnStarted) -> None:
        new = self.conversation is None
        self._turn = TurnOnItsWay(self.conversation or new_id(), new, self._known)
        self._try(partial(self._write_begin, self._turn, event))
        self.conversation = self._turn.conversation
        if self._turn.others:
            turns = plural(self._turn.others, "turn")
            self._warn(
                f"another moa has added {turns} to this conversation, which the models do not see;"
                f" `/resume {self.conversation}` reads them"
            )

    def _write_begin(self, turn: TurnOnItsWay, event: TurnStarted, backlog: Backlog) -> None:
        try:
            backlog.begin(turn, event.prompt, event.profile, self._settings)
        except NoConversation:
            turn.conversation, turn.new, turn.known = new_id(), True, None
            self._warn(
                "the conversation was deleted elsewhere: it goes on here as a new one,"
                f" {turn.conversation}, which begins with this turn"
            )
            backlog.begin(turn, event.prompt, event.profile, self._settings)

    def close(self) -> None:
        """Write what came of the turn."""
        if self._turn is None or self._backlog is None:
            return
        known, turn = self._turn, self._fold.turn()
        if turn.status == "interrupted":
            # Those that had ended are written again as they are.
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
            # Many processes that write a little each are no trouble.
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

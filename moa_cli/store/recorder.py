"""The sink that writes a turn into the store while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.errors import NoConversation, StoreError, StoreLocked
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorFinished,
    Event,
    Hedged,
    HistoryTrimmed,
    ProposerFailed,
    ProposerFinished,
    ReferencesTrimmed,
    Retrying,
    TurnStarted,
    to_dict,
)
from moa_cli.core.stream import TurnFold
from moa_cli.core.text import plural
from moa_cli.engine.merging import behind, merged, reported
from moa_cli.store.backlog import PendingTurn
from moa_cli.store.store import Store, new_id
from moa_cli.store.stored_values import without_defaults

_TOLD_AFTER_SECONDS = 0.8
# Events that are not part of a proposal, and are stored as notes.
_NOTED = (Retrying, Hedged, ReferencesTrimmed, HistoryTrimmed, AggregatorFailed)


@dataclass(eq=False)
class Recorder:
    """A sink that writes one turn into a store.

    It writes the prompt before the first call, each proposal when it ends, and then the reply and
    the usage. If the store cannot be written, the turn goes on.

    conversation: the id of the conversation to continue; None for a new one. When a new one has
    begun, this becomes its id. settings: the resolved profile as TOML. warn: called with a sentence
    if something cannot be written. known: the number of the latest turn that the models are sent;
    None if turns of other processes do not matter. merging: an earlier turn, from whose proposals
    the reply is written. If it has no reply, the new reply becomes its reply. Otherwise it does not
    change, and the new turn gets a copy of its proposals. reporting: whether only a report on
    `merging` is made. The report is written into that turn; if the turn was deleted, it is not
    written. asks_again: whether the reply is to replace that of an earlier turn, which then is
    taken back.
    """

    _store: Store
    conversation: str | None
    _settings: str
    _warn: Callable[[str], None]
    _known: int | None = None
    _merging: Turn | None = None
    _reporting: bool = False
    _asks_again: bool = False
    _told: bool = False
    _given_up: bool = False
    _locked_since: float | None = None
    _turn: PendingTurn | None = None
    _fold: TurnFold = field(init=False)

    @property
    def turn(self) -> int | None:
        """The number of the turn in the store; None while it is not there."""
        return None if self._turn is None else self._turn.number

    def follow(self, fold: TurnFold) -> None:
        self._fold = fold

    def handle(self, event: Event) -> None:
        if isinstance(event, TurnStarted):
            self._begin(event)
        elif isinstance(event, ProposerFinished | ProposerFailed):
            # If an earlier turn is merged, reviews are written at the end, see `_end`.
            if self._merging is None:
                self._put("proposal", without_defaults(event.proposal))
        elif isinstance(event, _NOTED):
            self._put("note", to_dict(event))
        elif isinstance(event, AggregatorFinished):
            # Written now, because the process may be killed before the end of the turn.
            self._end(self._fold.turn())

    def _begin(self, event: TurnStarted) -> None:
        if self._merging is not None and self._is_there(self._merging):
            assert self.conversation is not None
            number, here = self._merging.stored_as, self._store.identity
            self._turn = PendingTurn(self.conversation, number=number, file=here)
            return
        if self._reporting:
            return
        new = self.conversation is None
        self._turn = PendingTurn(self.conversation or new_id(), new, self._known)
        said = {"prompt": event.prompt, "profile": event.profile, "settings": self._settings}
        parts = {"parts": without_defaults(event.parts)} if event.parts else {}
        again = {"asks_again": True} if self._asks_again or self._merging is not None else {}
        self._put("begin", {**said, **parts, **again, "at": time.time()})
        self.conversation = self._turn.conversation
        if self._turn.others:
            turns = plural(self._turn.others, "turn")
            self._warn(
                f"another moa has added {turns} to this conversation, which the models do not see;"
                f" `/resume {self.conversation}` reads them"
            )

    def _is_there(self, turn: Turn) -> bool:
        """Whether the new reply, or the report, can be written into the row of an earlier turn. It
        must not have been deleted, and for a reply it must not have one."""
        replied = turn.reply is not None and not self._reporting
        if replied or turn.stored_as is None or self.conversation is None:
            return False
        with contextlib.suppress(StoreError):
            return self._store.has_turn(self.conversation, turn.stored_as)
        return False

    def _end(self, turn: Turn) -> None:
        before = self._merging
        in_place = before is not None and self._turn is not None and before.stored_as == self.turn
        if before is not None:
            join = reported if self._reporting else merged if in_place else behind
            turn = join(before, turn)
        # The parts of the prompt were written when the turn began.
        self._put("end", without_defaults(replace(turn, proposals=(), reviews=(), parts=())))
        if before is not None:
            # Written after the end of the turn, because the calls of a turn without an end are
            # counted by its proposals.
            copied = not in_place and bool(turn.reply)
            for layer in (*before.proposals, before.reviews) if copied else ():
                self._put_all(layer)
            self._put_all(turn.reviews)

    def _put_all(self, proposals: Iterable[Proposal]) -> None:
        for proposal in proposals:
            self._put("proposal", without_defaults(proposal))

    def close(self) -> None:
        """Write the result of the turn."""
        if self._turn is None or self._given_up:
            return
        turn = self._fold.turn()
        if turn.status == "interrupted":
            # This adds proposals that were cut off, and rewrites complete ones unchanged.
            for layer in (*turn.proposals, turn.reviews if self._merging is None else ()):
                self._put_all(layer)
        self._end(turn)
        backlog = self._store.backlog
        if self._locked_since and not self._given_up and backlog and not backlog.flush():
            self._warn(
                "another process is writing to the history: this turn waits in a file of"
                " its own, and the next moa adds it to the history"
            )

    def _put(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write a step of the turn; tell the user if it cannot be written now."""
        turn, backlog = self._turn, self._store.backlog
        if turn is None or self._given_up:
            return
        try:
            try:
                backlog.put(turn, kind, values)
            except NoConversation:
                if kind != "begin":
                    raise
                turn.conversation, turn.new, turn.known = new_id(), True, None
                self._warn(
                    "another process has deleted the conversation: this turn begins a new one,"
                    f" {turn.conversation}"
                )
                backlog.put(turn, kind, values)
        except StoreLocked:
            now = time.monotonic()
            self._locked_since = self._locked_since or now
            # No warning at first: several processes may each write only a little.
            if not self._told and now - self._locked_since > _TOLD_AFTER_SECONDS:
                self._told = True
                self._warn(
                    "another process is writing to the history; this turn is written when it can be"
                )
        except (StoreError, OSError) as error:
            told = error.message if isinstance(error, StoreError) else str(error.strerror or error)
            if isinstance(error, OSError) or not backlog:
                self._given_up = True
                self._warn(f"this turn is not saved: {told}")
            elif not self._told:
                self._told = True
                self._warn(f"this turn is not saved yet: {told}; it waits in a file of its own")

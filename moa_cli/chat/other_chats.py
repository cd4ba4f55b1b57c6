"""Notices what other processes do to the conversation that a chat holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moa_cli.core.conversation import Turn
from moa_cli.core.errors import StoreError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.store.reading import TurnState
    from moa_cli.store.recorder import Recorder
    from moa_cli.store.store import Store


@dataclass(frozen=True)
class Changes:
    """What other processes did to a conversation: the numbers of the turns that they have added,
    taken back, and answered or ended."""

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


class KnownTurns:
    """The turns of a stored conversation as this process knows them."""

    def __init__(self, store: Store, turns: Iterable[Turn] = ()) -> None:
        self._store = store
        self._file = store.identity
        self._states: dict[int, TurnState] = {
            turn.stored_as: (turn.status, turn.reply is not None)
            for turn in turns
            if turn.stored_as is not None
        }
        # Of own turns whose numbers are not known yet, as while the store is locked.
        self._own: list[Recorder] = []

    @property
    def numbers(self) -> list[int]:
        """The numbers of these turns in the store, in order."""
        return sorted(self._states)

    def add_own(self, recorder: Recorder) -> None:
        """Note that this process has written a turn, or is about to when the store can be."""
        self._own.append(recorder)

    def drop(self, number: int) -> None:
        """Note that this process has taken back a turn."""
        self._states.pop(number, None)

    def changes(self, identity: str, *, accept: bool = False) -> Changes:
        """What other processes did to the conversation of that id.

        accept: whether they are known from now on, so that they are told once only.
        """
        try:
            states = self._store.turn_states(identity)
            if not states and not self._store.has(identity):
                # Whoever writes the next turn tells that it was deleted.
                return Changes()
        except StoreError:
            return Changes()
        for recorder in list(self._own):
            number = recorder.turn
            if number is not None:
                self._own.remove(recorder)
                self._states[number] = states.get(number, self._states.get(number, ("", False)))
        if self._store.identity != self._file:
            # Another file has taken the place of the old one; its turns have other numbers.
            self._states, self._file = states, self._store.identity
        known = self._states
        found = Changes(
            tuple(number for number in states if number not in known),
            tuple(number for number in known if number not in states),
            tuple(number for number, state in states.items() if known.get(number, state) != state),
        )
        if accept:
            self._states = states
        return found

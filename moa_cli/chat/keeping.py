"""Keeping a conversation while it is held."""

from __future__ import annotations

from collections.abc import Callable

from moa_cli.conversation import Conversation, Turn
from moa_cli.profile import Profile, dump
from moa_cli.store import Recorder, Store

__all__ = ["Kept"]


class Kept:
    """Where a conversation is kept, and under which id; with no store it is not kept.

    conversation: what was said before, where an old one goes on.
    """

    def __init__(
        self,
        store: Store | None = None,
        identity: str | None = None,
        conversation: Conversation | None = None,
    ) -> None:
        self.store = store
        self.id = identity
        self.conversation = conversation or Conversation()
        self._recorder: Recorder | None = None

    def recorder(self, profile: Profile, warn: Callable[[str], None]) -> list[Recorder]:
        """The sink that writes the next turn down, if it is to be kept."""
        if self.store is None:
            return []
        self._recorder = Recorder(self.store, self.id, dump(profile), warn)
        return [self._recorder]

    def stored_as(self) -> int | None:
        """The number of the turn that has just ended, which belongs to a conversation now."""
        if self._recorder is None:
            return None
        self.id = self._recorder.conversation
        return self._recorder.turn

    def withdraw(self, turn: Turn | None) -> None:
        """The turn was taken back, or replaced. Raises StoreError."""
        if self.store is not None and turn is not None and turn.stored_as is not None:
            self.store.withdraw(turn.stored_as)

    def forget(self) -> None:
        """The next turn begins a new conversation."""
        self.id = None

    def close(self) -> None:
        """Give the store back."""
        if self.store is not None:
            self.store.close()

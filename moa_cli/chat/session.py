"""One conversation being held; there is no terminal in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from moa_cli.clients.base import Clients
from moa_cli.conversation import Conversation, Proposal, Turn
from moa_cli.engine import Control, Limits, run_turn
from moa_cli.errors import UsageError
from moa_cli.events import Event
from moa_cli.profile import Overrides, Profile
from moa_cli.profile.layering import override

__all__ = ["Session"]


class Session:
    """The conversation, and the mixture that answers in it.

    last: the latest turn, also one that failed; None at first.
    """

    def __init__(self, profile: Profile, clients: Clients, limits: Limits) -> None:
        self.profile = profile
        self.conversation = Conversation()
        self.last: Turn | None = None
        self._taken_back: Turn | None = None
        self._clients = clients
        self._limits = limits

    def ask(self, prompt: str, control: Control | None = None) -> AsyncGenerator[Event, None]:
        """The events of the turn that answers `prompt`; hand the turn to `keep` afterwards."""
        return run_turn(
            self.profile,
            self.conversation.ask(prompt),
            self._clients,
            control=control,
            limits=self._limits,
        )

    def keep(self, turn: Turn) -> bool:
        """Add a turn that has ended; returns whether it holds a reply and so is remembered.

        One that should have replaced another (`take_back`), and has no reply, changes nothing.
        """
        replaced, self._taken_back = self._taken_back, None
        self.last = turn
        if not turn.reply:
            if replaced is not None:
                self.keep(replaced)
            return False
        turns = (*self.conversation.turns, turn)
        self.conversation = replace(self.conversation, turns=turns)
        return True

    def change(self, overrides: Overrides, where: str) -> None:
        """Lay settings over the profile. where: the command that did it.

        Raises ProfileError, and changes nothing, if the result would be no valid profile.
        """
        self.profile = override(self.profile, overrides, where)

    def clear(self) -> None:
        """Forget all turns."""
        self.conversation = Conversation()
        self.last = None

    def undo(self) -> Turn:
        """Forget the last turn, and return it. Raises UsageError if there is none."""
        turns = self.conversation.turns
        if not turns:
            raise UsageError("there is no turn to undo")
        self.conversation = replace(self.conversation, turns=turns[:-1])
        self.last = turns[-2] if len(turns) > 1 else None
        return turns[-1]

    def take_back(self) -> str:
        """Take the last turn out, and return its prompt, to be asked again.

        Raises UsageError if nothing was asked yet.
        """
        if self.last is None:
            raise UsageError("there is nothing to ask again")
        prompt = self.last.user
        if self.conversation.turns and self.conversation.turns[-1] is self.last:
            self._taken_back = self.undo()
        return prompt

    def proposals(self) -> list[Proposal]:
        """All proposals of the last turn, layer by layer; numbered from 1 on screen."""
        return [one for layer in self.last.proposals for one in layer] if self.last else []

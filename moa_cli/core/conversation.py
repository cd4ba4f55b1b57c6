"""What was said, as frozen values.

A conversation's history is user messages and final replies only, never references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any, Literal

__all__ = [
    "Charge",
    "Conversation",
    "Failure",
    "KeptConversation",
    "KeptTurn",
    "Message",
    "Proposal",
    "Role",
    "Turn",
    "TurnStatus",
    "Usage",
    "check_usage",
]

Role = Literal["system", "user", "assistant"]
TurnStatus = Literal["open", "finished", "interrupted", "failed"]
# No sum of tokens, calls or USD is beyond this; a conversation of years is far below.
_MOST = 10**12


@dataclass(frozen=True)
class Message:
    """One message as a chat-completions endpoint takes it."""

    role: Role
    content: str


@dataclass(frozen=True)
class Usage:
    """What calls took. Tokens are as their endpoints counted them, but for estimates.

    estimated_calls: calls whose endpoint told no count (it cannot, where a call was cut off);
    estimated_prompt_tokens, estimated_completion_tokens: the part of the sums that is theirs.
    cost: USD, of the calls whose price is known. unpriced_calls: the others.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    calls: int = 0
    estimated_calls: int = 0
    estimated_prompt_tokens: int = 0
    estimated_completion_tokens: int = 0
    cost: float = 0.0
    unpriced_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        # All fields are numbers, in the same order.
        return Usage(*map(add, vars(self).values(), vars(other).values()))

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def check_usage(usage: Usage) -> None:
    """Raise ValueError, naming the field, if `usage` holds what is no count or no amount: NaN,
    infinity, a negative or absurd number, a truth value."""
    for name, value in vars(usage).items():
        kinds = (int, float) if name == "cost" else (int,)
        # NaN is neither.
        if type(value) not in kinds or not 0 <= value <= _MOST:
            raise ValueError(f"{name} is no {'amount' if name == 'cost' else 'count'}: {value!r}")


@dataclass(frozen=True)
class Charge:
    """What one call took, its failed attempts included: an entry of a turn's ledger.

    layer: counted from 1; rounds + 1 for the aggregator. model: as the profile names it.
    answered_by: the model id that the endpoint said it used, or None.
    """

    layer: int
    model: str
    usage: Usage
    answered_by: str | None = None


@dataclass(frozen=True)
class Failure:
    """An error as a value.

    kind: the class name in `moa_cli.core.errors`, or "Abandoned" for a call given up on purpose.
    """

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Proposal:
    """What one proposer answered, or failed to answer, in one layer.

    layer: counted from 1. index: the proposer's place in its layer, from 0.
    proposer: the name shown on screen. model: as the profile names it.
    answered_by: the model id that the endpoint said it used, or None.
    text: the whole answer without reasoning; empty where it failed before the first token.
    seconds: from the start of the call to its end; first_token likewise, None if none came.
    error: why there is no usable answer, or None.
    """

    layer: int
    index: int
    proposer: str
    model: str
    text: str
    reasoning: str = ""
    answered_by: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    first_token: float | None = None
    finish_reason: str | None = None
    error: Failure | None = None


@dataclass(frozen=True)
class Turn:
    """One user message and all that it caused, up to the reply.

    reply: what the aggregator wrote (partial if the status says so), None before it wrote.
    proposals: by layer, in profile order, failed ones included.
    model: the aggregator that answered, as the profile names it; answered_by as for proposals.
    lost: a sentence for each proposer or aggregator that was lost on the way ("degraded").
    usage: summed over all calls; ledger: the same call by call, in the order in which they
    ended. seconds: wall time of the turn.
    stored_as: its number in the store, if it is kept there.
    """

    user: str
    reply: str | None = None
    status: TurnStatus = "open"
    profile: str = ""
    proposals: tuple[tuple[Proposal, ...], ...] = ()
    model: str | None = None
    answered_by: str | None = None
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    ledger: tuple[Charge, ...] = ()
    seconds: float = 0.0
    lost: tuple[str, ...] = ()
    error: Failure | None = None
    causes: tuple[Failure, ...] = ()
    stored_as: int | None = None

    @property
    def degraded(self) -> bool:
        """Whether something was lost on the way to the reply."""
        return bool(self.lost)

    @property
    def capped(self) -> bool:
        """Whether it ended at a cap on cost or tokens."""
        return self.error is not None and self.error.kind == "BudgetReached"

    def with_proposals(self, proposals: tuple[tuple[Proposal, ...], ...]) -> Turn:
        """This turn with these proposals in place of its own."""
        return replace(self, proposals=proposals)


@dataclass(frozen=True)
class Conversation:
    """The turns so far; the last one may be open (asked, not answered yet).

    before: messages that precede the first turn (a system message, a history held elsewhere).
    """

    turns: tuple[Turn, ...] = ()
    before: tuple[Message, ...] = ()

    def ask(self, prompt: str) -> Conversation:
        """This conversation with `prompt` as its open turn."""
        return replace(self, turns=(*self.closed_turns(), Turn(user=prompt)))

    def answer(self, reply: str) -> Conversation:
        """This conversation with its open turn answered by `reply`."""
        *before, last = self.turns
        return replace(self, turns=(*before, replace(last, reply=reply, status="finished")))

    def closed_turns(self) -> tuple[Turn, ...]:
        """The turns that hold a reply."""
        return tuple(turn for turn in self.turns if turn.reply is not None)

    def messages(self) -> tuple[Message, ...]:
        """What an endpoint is sent: user messages and final replies, in order."""
        said = list(self.before)
        for turn in self.turns:
            said.append(Message("user", turn.user))
            if turn.reply is not None:
                said.append(Message("assistant", turn.reply))
        return tuple(said)


@dataclass(frozen=True)
class KeptTurn:
    """A turn as it is kept.

    started: seconds since 1970. settings: the resolved profile as TOML.
    notes: what happened that no proposal tells of (a retry, a lost aggregator), as events are
    written in JSON.
    """

    turn: Turn
    started: float
    settings: str = ""
    notes: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class KeptConversation:
    """A conversation as it is kept. created, updated: seconds since 1970.

    turns: may be read from the store one at a time, as they are looped over.
    """

    id: str
    title: str
    profile: str
    created: float
    updated: float
    turns: Sequence[KeptTurn]
    tags: tuple[str, ...] = ()

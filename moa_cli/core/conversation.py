"""What was said, as frozen values.

A conversation's history is user messages and final replies only, never references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any, Literal

from moa_cli.core.frozen import quickly_made
from moa_cli.core.once_each import once_each
from moa_cli.core.strategy import Decision, Purpose, Report
from moa_cli.core.tools import ToolCall

Role = Literal["system", "user", "assistant", "tool"]
TurnStatus = Literal["open", "finished", "interrupted", "failed"]
# What stands above a summary where a conversation is shown.
SUMMARY = "summary, sent to the models in place of all turns up to here"
# How models are sent a summary of what was said before.
_SUMMARY_HEAD = "A summary of our conversation so far:"
_SUMMARY_READ = "I have read the summary. Let us go on from there."
# Sums of tokens, calls and USD stay far below this, even over years.
_MOST = 10**12


@dataclass(frozen=True)
class Part:
    """A part of a message: text, an image, or a file.

    Attributes:
        kind: `text`, `image` or `file`.
        text: The text; of a file, what was extracted from it.
        url: Where the image or file is: a web address, or a `data:` URI that holds it. Empty for
            text, and for a file of which only the text is kept.
        name: The name of the file, if it has one.
        detail: How closely an image is looked at: `low`, `high` or `auto`; empty if unset.
    """

    kind: Literal["text", "image", "file"]
    text: str = ""
    url: str = ""
    name: str = ""
    detail: str = ""

    @property
    def as_text(self) -> str:
        """What a model reads in its place that takes only text."""
        if self.kind == "text":
            return self.text
        told = f"[{self.kind}: {self.name}]" if self.name else f"[{self.kind}]"
        return f"{told}\n{self.text}" if self.text else told


def text_of_parts(parts: Iterable[Part]) -> str:
    """What a model reads in place of these parts that takes only text."""
    return "\n".join(part.as_text for part in parts)


@quickly_made
@dataclass(frozen=True)
class Message:
    """One message as a chat-completions endpoint takes it.

    Attributes:
        role: Who says it: `system`, `user` or `assistant`; or `tool` for the result of a tool.
        content: The text. Of a message with parts, what a model reads that takes only text.
        parts: All parts in order, if there are others than text.
        tool_calls: The calls of tools that an assistant's message makes.
        tool_call_id: The call that a tool's message is the result of.
        name: The name of who speaks, for endpoints that take one.
    """

    role: Role
    content: str
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    @classmethod
    def of_parts(cls, role: Role, parts: Sequence[Part], name: str = "") -> Message:
        """A message of these parts.

        Args:
            role: Who says it.
            parts: Its parts in order.
            name: The name of who speaks.

        Returns:
            The message; without parts if all are text.
        """
        kept = tuple(parts) if any(part.kind != "text" for part in parts) else ()
        return cls(role, text_of_parts(parts), kept, name=name)


@quickly_made
@dataclass(frozen=True)
class Usage:
    """What calls took. Tokens are as their endpoints counted them, or estimated.

    Attributes:
        prompt_tokens: Tokens of the prompts.
        completion_tokens: Tokens of the answers, reasoning included.
        reasoning_tokens: The part of the answers' tokens that is reasoning.
        cached_tokens: The part of the prompts' tokens that the provider had in its cache.
        calls: The number of calls.
        estimated_calls: Calls whose endpoint told no count, for example because the call was cut
            off. Their tokens are estimated.
        estimated_prompt_tokens: The part of `prompt_tokens` that is estimated.
        estimated_completion_tokens: The part of `completion_tokens` that is estimated.
        cost: USD of the calls whose price is known.
        unpriced_calls: Calls whose price is not known.
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
        # All fields are numbers. A call is summed up several times, and to set the fields of a
        # frozen dataclass one by one takes twice as long. Most sums begin with nothing.
        mine = vars(self)
        if not any(mine.values()):
            return other
        made = object.__new__(Usage)
        vars(made).update(zip(mine, map(add, mine.values(), vars(other).values()), strict=True))
        return made

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def check_usage(usage: Usage) -> None:
    """Raise ValueError, which names the field, if a number of `usage` is NaN, infinite, negative,
    absurdly large, or none."""
    for name, value in vars(usage).items():
        kinds = (int, float) if name == "cost" else (int,)
        # A comparison with NaN is false.
        if type(value) not in kinds or not 0 <= value <= _MOST:
            raise ValueError(f"{name} is no {'amount' if name == 'cost' else 'count'}: {value!r}")


@quickly_made
@dataclass(frozen=True)
class Charge:
    """What one call took, its failed attempts included: an entry of a turn's ledger.

    Attributes:
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        model: The model name in the profile.
        usage: What the call took.
        answered_by: The model id that the endpoint said it used, or None if it said none.
    """

    layer: int
    model: str
    usage: Usage
    answered_by: str | None = None


@dataclass(frozen=True)
class Failure:
    """An error as a value.

    Attributes:
        kind: The name of the error's class; or `Straggler` for a call that was too slow when the
            quorum stood, `Abandoned` for one that was given up on purpose, `NotAsked` for one
            that was not made because its model was silent before, or `Interrupted` for one that
            ended with its turn.
        message: One sentence that names what was wrong.
        hint: What you can do about it, or None.
    """

    kind: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Citation:
    """A source that an endpoint names for an answer. It is as untrusted as the answer itself.

    Attributes:
        url: Its address, as the endpoint gives it.
        title: Its title; empty if the endpoint gives none.
    """

    url: str
    title: str = ""


@quickly_made
@dataclass(frozen=True)
class Proposal:
    """What one proposer answered, or failed to answer, in one layer.

    Attributes:
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        proposer: The proposer's name on screen.
        model: The model name in the profile.
        text: The whole answer without reasoning. Empty if it failed before the first token.
        reasoning: The model's reasoning, if the endpoint gives it.
        answered_by: The model id that the endpoint said it used, or None if it said none.
        usage: What the call took, its failed attempts included.
        seconds: From the start of the call to its end.
        first_token: Seconds from the start of the call to its first token, or None if none came.
        finish_reason: Why the answer ends, in the endpoint's words, such as `stop` or `length`.
        error: Why there is no usable answer, or None if there is one.
        citations: The sources that the endpoint names. In JSON this field is left out where there
            are none.
        unfinished: Whether the text is only the beginning of an answer that was not waited for,
            and was used as it was. In JSON this field is left out where it is false.
        purpose: What it was asked for: empty for a proposal; a review says which one it is, such as
            `rank`. In JSON this field is left out where it is empty.
        about: Of a review: a mark of the question and of the proposals that were put to its model,
            by which it is known whether it can serve again. In JSON this field is left out where it
            is empty.
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
    citations: tuple[Citation, ...] = ()
    unfinished: bool = False
    purpose: Purpose = ""
    about: str = ""


RARE = frozenset(
    {
        "citations",
        "unfinished",
        "withdrawn",
        "left_out",
        "parts",
        "tool_calls",
        "speaker",
        "number_logprobs",
        "token_logprobs",
        "reused",
        "purpose",
        "about",
        "copied",
        "reviews",
        "decision",
        "report",
        "summary_so_far",
        "from_cache",
    }
)


def without_empty(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `dict_factory` of `dataclasses.asdict` for what holds fields that nearly always say
    nothing, such as citations: then they are left out."""
    return {name: value for name, value in fields if value or name not in RARE}


@quickly_made
@dataclass(frozen=True)
class Turn:
    """One user message and all that it caused, up to the reply.

    Attributes:
        user: The user's message. In JSON this field is named `prompt`.
        reply: What the aggregator wrote, or None if it wrote nothing. Partial if the status is
            `interrupted` or `failed`.
        status: `open`, `finished`, `interrupted` or `failed`.
        profile: The name of the profile.
        proposals: The proposals of each layer, in the order of the profile. Failed ones are among
            them.
        model: The aggregator that answered, by its model name in the profile.
        answered_by: The model id that the aggregator's endpoint said it used, or None.
        reasoning: The aggregator's reasoning, if its endpoint gives it.
        finish_reason: Why the reply ends, in the endpoint's words, such as `stop` or `length`.
        usage: What all calls of the turn took.
        ledger: The same call by call, in the order in which the calls ended.
        seconds: Wall time of the turn.
        lost: A sentence for each proposer or aggregator that was lost on the way. If there is one,
            the turn is degraded.
        error: Why the turn failed, or None.
        causes: If the turn failed: what went wrong with each model that was asked.
        stored_as: The turn's number in the store, if it is kept there.
        citations: The sources that the aggregator's endpoint names for the reply; not those of the
            proposals. In JSON this field is left out where there are none.
        parts: All parts of the user's message in order, if there are others than text. In JSON
            this field is left out where there are none.
        speaker: The name of the user, for endpoints that take one. In JSON this field is left out
            where there is none.
        tool_calls: The calls of tools that the reply makes, for whoever asked to make. In JSON
            this field is left out where there are none.
        token_logprobs: The log-probabilities of the tokens of the reply, where asked for: for each
            the JSON object that the endpoint tells, as text. In JSON this field is left out where
            there are none.
        reused: Whether the reply was written from proposals that were made for an earlier request
            on the same message. In JSON this field is left out where it is false.
        reviews: What models said about the proposals, such as rankings, in the order in which they
            came; failed ones are among them. In JSON this field is left out where there are none.
        decision: How the strategy came to the reply. In JSON this field is left out where the
            strategy has nothing to tell.
        report: Where the proposals agree and where not. In JSON this field is left out where there
            is none.
        summary_so_far: What models are sent in place of this turn and of all before it: a summary
            of the conversation up to here. In JSON this field is left out where it is empty.
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
    citations: tuple[Citation, ...] = ()
    parts: tuple[Part, ...] = ()
    speaker: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    token_logprobs: tuple[str, ...] = ()
    reused: bool = False
    reviews: tuple[Proposal, ...] = ()
    decision: Decision | None = None
    report: Report | None = None
    summary_so_far: str = ""

    @property
    def depth(self) -> int:
        """The number of its last layer, of proposals or of reviews; 0 without any."""
        return max([len(self.proposals), *(review.layer for review in self.reviews)])

    @property
    def reply_usage(self) -> Usage:
        """What the calls took that wrote the reply, without proposals and reviews."""
        reviewed = {review.layer for review in self.reviews}
        written = (
            charge.usage
            for charge in self.ledger
            if charge.layer > len(self.proposals) and charge.layer not in reviewed
        )
        return sum(written, Usage())

    @property
    def degraded(self) -> bool:
        """Whether something was lost on the way to the reply."""
        return bool(self.lost)

    @property
    def capped(self) -> bool:
        """Whether it ended at a cap on cost or tokens."""
        return self.error is not None and self.error.kind == "BudgetReached"

    def with_proposals(self, proposals: tuple[tuple[Proposal, ...], ...]) -> Turn:
        """Replace the proposals.

        Args:
            proposals: The proposals of each layer.

        Returns:
            A copy of this turn with these proposals in place of its own.
        """
        return replace(self, proposals=proposals)


@quickly_made
@dataclass(frozen=True)
class Conversation:
    """The turns so far. The last one may be open: asked, and not answered yet.

    Attributes:
        turns: The turns, the oldest first.
        before: Messages that precede the first turn, such as a system message or a history that
            is kept elsewhere.
        after: Messages that follow the prompt of the open turn: calls of tools and their results,
            or the beginning of the reply.
    """

    turns: tuple[Turn, ...] = ()
    before: tuple[Message, ...] = ()
    after: tuple[Message, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message], prompt: int | None = None) -> Conversation:
        """A conversation that is kept elsewhere.

        Args:
            messages: All of its messages, in order.
            prompt: The place of the message that is answered; by default the last one of the user,
                or, if there is none, the last system message, or else the last result of a tool.

        Returns:
            The conversation; that message is its open turn.

        Raises:
            ValueError: There is no message that could be answered.
        """
        if prompt is None:
            # A result comes last: without it, endpoints refuse the call that it belongs to.
            places = (
                [place for place, message in enumerate(messages) if message.role == role]
                for role in ("user", "system", "tool")
            )
            prompt = next((found[-1] for found in places if found), None)
            if prompt is None:
                raise ValueError("there is no message to answer")
        asked = messages[prompt]
        turn = Turn(user=asked.content, parts=asked.parts, speaker=asked.name)
        return cls((turn,), tuple(messages[:prompt]), tuple(messages[prompt + 1 :]))

    def ask(self, prompt: str, parts: Sequence[Part] = ()) -> Conversation:
        """Ask something.

        Args:
            prompt: The user's message, as text.
            parts: All its parts in order, if there are others than text.

        Returns:
            A copy of this conversation with `prompt` as its open turn. A turn that was open
            before is gone.
        """
        turn = Turn(user=prompt, parts=tuple(parts))
        return replace(self, turns=(*self.closed_turns(), turn), after=())

    def answer(self, reply: str) -> Conversation:
        """Answer the open turn.

        Args:
            reply: The assistant's message.

        Returns:
            A copy of this conversation in which the last turn is answered by `reply`.
        """
        *before, last = self.turns
        return replace(self, turns=(*before, replace(last, reply=reply, status="finished")))

    @property
    def first_sent(self) -> int:
        """The place of the first turn that models are sent: the one behind the latest summary."""
        places = range(len(self.turns), 0, -1)
        return next((place for place in places if self.turns[place - 1].summary_so_far), 0)

    @property
    def summary(self) -> str:
        """What models are sent in place of the turns before `first_sent`; empty if nothing is."""
        first = self.first_sent
        return self.turns[first - 1].summary_so_far if first else ""

    @property
    def earlier(self) -> tuple[Turn, ...]:
        """The turns that models are sent beside the open one, the oldest first."""
        is_open = bool(self.turns) and self.turns[-1].reply is None
        return self.turns[self.first_sent : len(self.turns) - int(is_open)]

    def closed_turns(self) -> tuple[Turn, ...]:
        """The turns that hold a reply.

        Returns:
            Those turns, the oldest first.
        """
        return tuple(turn for turn in self.turns if turn.reply is not None)

    def messages(self) -> tuple[Message, ...]:
        """What an endpoint is sent, without any references.

        Returns:
            `before`, then the user messages and the final replies in order, then `after`. If there
            is a summary, it stands in place of all before it but for a system message.
        """
        return _messages_of(self)


@once_each
def messages_of_turn(turn: Turn) -> tuple[Message, ...]:
    """The user's message, and the reply if there is one. They are the same objects each time, so
    that what is computed of them is computed once in a conversation."""
    prompt = Message("user", turn.user, turn.parts, name=turn.speaker)
    if turn.reply is None:
        return (prompt,)
    return prompt, Message("assistant", turn.reply, tool_calls=turn.tool_calls)


@once_each
def _summary_of_turn(turn: Turn) -> tuple[Message, ...]:
    """What stands in place of all turns up to this one."""
    summary = f"{_SUMMARY_HEAD}\n\n{turn.summary_so_far}"
    # Some endpoints demand that roles alternate.
    return Message("user", summary), Message("assistant", _SUMMARY_READ)


@once_each
def _messages_of(conversation: Conversation) -> tuple[Message, ...]:
    first = conversation.first_sent
    said = list(conversation.before)
    if first:
        said = [message for message in said[:1] if message.role == "system"]
        said += _summary_of_turn(conversation.turns[first - 1])
    for turn in conversation.turns[first:]:
        said += messages_of_turn(turn)
    return (*said, *conversation.after)


@dataclass(frozen=True)
class KeptTurn:
    """A turn as it is stored.

    started: when it began, in seconds since 1970. settings: the resolved profile as TOML. notes:
    events that no proposal holds, such as a retry or a lost aggregator, as in JSON.
    """

    turn: Turn
    started: float
    settings: str = ""
    notes: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class KeptConversation:
    """A conversation as it is stored.

    profile: the name of that of its latest turn. created, updated: seconds since 1970. turns: they
    may be read from the store one at a time, when they are accessed.
    """

    id: str
    title: str
    profile: str
    created: float
    updated: float
    turns: Sequence[KeptTurn]
    tags: tuple[str, ...] = ()

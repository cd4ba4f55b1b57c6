"""Conversations, turns and messages, as frozen values.

The history of a conversation consists of user messages and final replies. It has no references.
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
# The heading of a summary where a conversation is shown.
SUMMARY = "summary, sent to the models in place of all turns up to here"
# Models are sent a summary as a user message with this head, and this answer to it.
_SUMMARY_HEAD = "A summary of our conversation so far:"
_SUMMARY_READ = "I have read the summary. Let us go on from there."
# The highest valid count of tokens, calls or USD. Real sums stay far below, even over years.
_MOST = 10**12


@dataclass(frozen=True)
class Part:
    """A part of a message: text, an image, or a file.

    Attributes:
        kind: `text`, `image` or `file`.
        text: The text, or the text that was extracted from a file.
        url: The address of the image or file: a web address, or a `data:` URI with its bytes. Empty
            for text, and for a file of which only the text is kept.
        name: The name of the file, if it has one.
        detail: How closely the model looks at an image: `low`, `high` or `auto`; empty if unset.
    """

    kind: Literal["text", "image", "file"]
    text: str = ""
    url: str = ""
    name: str = ""
    detail: str = ""

    @property
    def as_text(self) -> str:
        """The part as text, for a model that takes only text."""
        if self.kind == "text":
            return self.text
        told = f"[{self.kind}: {self.name}]" if self.name else f"[{self.kind}]"
        return f"{told}\n{self.text}" if self.text else told


def text_of_parts(parts: Iterable[Part]) -> str:
    """The parts as one text, for a model that takes only text."""
    return "\n".join(part.as_text for part in parts)


@quickly_made
@dataclass(frozen=True)
class Message:
    """One message as a chat-completions endpoint takes it.

    Attributes:
        role: The speaker: `system`, `user` or `assistant`; or `tool` for the result of a tool.
        content: The text. For a message with parts, the text for a model that takes only text.
        parts: All parts in order, if not all of them are text; otherwise empty.
        tool_calls: The tool calls of an assistant's message.
        tool_call_id: The id of the tool call whose result a tool's message is.
        name: The name of the speaker, for endpoints that take one.
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
            role: The speaker.
            parts: Its parts in order.
            name: The name of the speaker.

        Returns:
            The message; without parts if all are text.
        """
        kept = tuple(parts) if any(part.kind != "text" for part in parts) else ()
        return cls(role, text_of_parts(parts), kept, name=name)


@quickly_made
@dataclass(frozen=True)
class Usage:
    """The usage of one or more calls. Tokens are as their endpoints counted them, or estimated.

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
        # Optimised, because the usage of each call is added several times: setting the fields of a
        # frozen dataclass one by one takes twice as long. All fields are numbers. Most sums begin
        # with an empty usage.
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
    """Raise ValueError, which names the field, if a value of `usage` is not a number, is NaN,
    infinite or negative, or is absurdly large."""
    for name, value in vars(usage).items():
        kinds = (int, float) if name == "cost" else (int,)
        # Comparisons with NaN are false, so NaN is refused, too.
        if type(value) not in kinds or not 0 <= value <= _MOST:
            raise ValueError(f"{name} is no {'amount' if name == 'cost' else 'count'}: {value!r}")


@quickly_made
@dataclass(frozen=True)
class Charge:
    """An entry of a turn's ledger: the usage of one call, with its failed attempts.

    Attributes:
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        model: The model name in the profile.
        usage: The usage of the call.
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
        kind: The name of the error's class; or `Straggler` for a call that was still running when
            the patience after the quorum was over, `Abandoned` for one that was given up on
            purpose, `NotAsked` for one that was not made because its model was silent before, or
            `Interrupted` for one that was cut off with its turn.
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
    """The answer of one proposer in one layer, or its failure to answer. Reviews have this form,
    too.

    Attributes:
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        proposer: The proposer's name on screen.
        model: The model name in the profile.
        text: The whole answer without reasoning. Empty if it failed before the first token.
        reasoning: The model's reasoning, if the endpoint gives it.
        answered_by: The model id that the endpoint said it used, or None if it said none.
        usage: The usage of the call, with its failed attempts.
        seconds: From the start of the call to its end.
        first_token: Seconds from the start of the call to its first token, or None if none came.
        finish_reason: Why the answer ends, in the endpoint's words, such as `stop` or `length`.
        error: Why there is no usable answer, or None if there is one.
        citations: The sources that the endpoint names. In JSON this field is left out if it is
            empty.
        unfinished: Whether the text is only the beginning of an answer: the turn did not wait for
            its end, but used it. In JSON this field is left out if it is false.
        purpose: What the model was asked for. Empty for a proposal; the kind of the review, such as
            `rank`, for a review. In JSON this field is left out if it is empty.
        about: For a review, a key of the question and of the proposals that it is about. It shows
            whether the review can be used again. In JSON this field is left out if it is empty.
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
        "asks_again",
        "from_cache",
    }
)


def without_empty(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A `dict_factory` for `dataclasses.asdict`. It leaves out empty fields that nearly always are
    empty, such as citations."""
    return {name: value for name, value in fields if value or name not in RARE}


@quickly_made
@dataclass(frozen=True)
class Turn:
    """One user message and all that it caused, up to the reply.

    Attributes:
        user: The user's message. In JSON this field is named `prompt`.
        reply: The reply of the aggregator, or None if there is none. Partial if the status is
            `interrupted` or `failed`.
        status: `open`, `finished`, `interrupted` or `failed`.
        profile: The name of the profile.
        proposals: The proposals of each layer, in the order of the profile, with failed ones.
        model: The aggregator that answered, by its model name in the profile.
        answered_by: The model id that the aggregator's endpoint said it used, or None.
        reasoning: The aggregator's reasoning, if its endpoint gives it.
        finish_reason: Why the reply ends, in the endpoint's words, such as `stop` or `length`.
        usage: The usage of all calls of the turn.
        ledger: The usage of each call, in the order in which the calls ended.
        seconds: Wall time of the turn.
        lost: A sentence for each loss in the turn, such as a proposer or aggregator that gave no
            answer. If there is one, the turn is degraded.
        error: Why the turn failed, or None.
        causes: If the turn failed, the error of each model that was asked and failed.
        stored_as: The turn's number in the store, if it is kept there.
        citations: The sources of the reply: those that the aggregator's endpoint names, and sources
            of proposals whose addresses appear in the reply. In JSON this field is left out if it
            is empty.
        parts: All parts of the user's message in order, if not all of them are text; otherwise
            empty. In JSON this field is left out if it is empty.
        speaker: The name of the user, for endpoints that take one. In JSON this field is left out
            if it is empty.
        tool_calls: The tool calls of the reply. The client has to make them. In JSON this field is
            left out if it is empty.
        token_logprobs: The log-probabilities of the tokens of the reply, if the request asks for
            them. Each is the JSON object of the endpoint, as text. In JSON this field is left out
            if it is empty.
        reused: Whether the reply was written from proposals that were made for an earlier request
            on the same message. In JSON this field is left out if it is false.
        reviews: What models said about the proposals, such as rankings, in the order in which they
            came, with failed ones. In JSON this field is left out if it is empty.
        decision: How the strategy came to the reply. In JSON this field is left out if there is no
            decision.
        report: Where the proposals agree, and where not. In JSON this field is left out if there is
            no report.
        summary_so_far: A summary of the conversation up to this turn. Models are sent it in place
            of this turn and of all turns before it. In JSON this field is left out if it is empty.
        asks_again: Whether this turn, which has no reply, was to replace the reply to the same
            message in the turn before. In JSON this field is left out if it is false.
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
    asks_again: bool = False

    @property
    def depth(self) -> int:
        """The number of its last layer, of proposals or of reviews; 0 without any."""
        return max([len(self.proposals), *(review.layer for review in self.reviews)])

    @property
    def reply_usage(self) -> Usage:
        """The usage of the calls for the reply, without proposals and reviews."""
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
        """Whether the turn ended at a cap on cost or tokens."""
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
    """The turns so far. The last one may be open, which means not answered yet.

    Attributes:
        turns: The turns, the oldest first.
        before: Messages before the first turn, such as a system message, or a history that another
            program keeps.
        after: Messages after the prompt of the open turn: tool calls and their results, or the
            beginning of the reply.
    """

    turns: tuple[Turn, ...] = ()
    before: tuple[Message, ...] = ()
    after: tuple[Message, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message], prompt: int | None = None) -> Conversation:
        """The conversation for messages that another program keeps.

        Args:
            messages: All of its messages, in order.
            prompt: The place of the message to answer. The default is the last message of the user;
                without one, the last system message; without that, the last result of a tool.

        Returns:
            The conversation, with that message as its open turn.

        Raises:
            ValueError: There is no message that could be answered.
        """
        if prompt is None:
            # A tool result is the last choice, because it has to stay with its call: endpoints
            # refuse a call without its result.
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
        """Add a user message.

        Args:
            prompt: The user's message, as text.
            parts: All its parts in order, if not all of them are text.

        Returns:
            A copy of this conversation with `prompt` as its open turn. A turn that was open before
            is left out.
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
        """The place of the first turn that models are sent: the one after the latest summary."""
        places = range(len(self.turns), 0, -1)
        return next((place for place in places if self.turns[place - 1].summary_so_far), 0)

    @property
    def summary(self) -> str:
        """The summary that models are sent in place of the turns before `first_sent`; empty if
        there is none."""
        first = self.first_sent
        return self.turns[first - 1].summary_so_far if first else ""

    @property
    def earlier(self) -> tuple[Turn, ...]:
        """The turns that models are sent, without the open one, the oldest first."""
        is_open = bool(self.turns) and self.turns[-1].reply is None
        return self.turns[self.first_sent : len(self.turns) - int(is_open)]

    def closed_turns(self) -> tuple[Turn, ...]:
        """The turns that hold a reply.

        Returns:
            Those turns, the oldest first.
        """
        return tuple(turn for turn in self.turns if turn.reply is not None)

    def messages(self) -> tuple[Message, ...]:
        """The messages for an endpoint, without any references.

        Returns:
            `before`, then the user messages and the final replies in order, then `after`. A summary
            replaces all messages before it, except a system message.
        """
        return _messages_of(self)


@once_each
def messages_of_turn(turn: Turn) -> tuple[Message, ...]:
    """The user's message, and the reply if there is one. Each call returns the same objects, so
    that values computed from them (see `once_each`) are computed only once."""
    prompt = Message("user", turn.user, turn.parts, name=turn.speaker)
    if turn.reply is None:
        return (prompt,)
    return prompt, Message("assistant", turn.reply, tool_calls=turn.tool_calls)


@once_each
def _summary_of_turn(turn: Turn) -> tuple[Message, ...]:
    """The messages that replace all turns up to this one."""
    summary = f"{_SUMMARY_HEAD}\n\n{turn.summary_so_far}"
    # An assistant's message follows, because some endpoints demand that roles alternate.
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
    the JSON values of events that are not part of a proposal, such as a retry or a lost aggregator.
    """

    turn: Turn
    started: float
    settings: str = ""
    notes: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class KeptConversation:
    """A conversation as it is stored.

    profile: the name of the profile of its latest turn. created, updated: in seconds since 1970.
    turns: may be read from the store one by one, when they are accessed.
    """

    id: str
    title: str
    profile: str
    created: float
    updated: float
    turns: Sequence[KeptTurn]
    tags: tuple[str, ...] = ()

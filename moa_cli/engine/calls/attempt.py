"""One request of a call: the answer so far, and its usage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from moa_cli.core.conversation import Citation, Message, Usage
from moa_cli.core.endpoints import CallPlace, Delta, Request
from moa_cli.core.errors import AnswerRefused, BadResponse, ClientError, ContentFiltered
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price, priced
from moa_cli.core.outcomes import REFUSED, ending_of
from moa_cli.core.tokens import RunningCount, estimated_usage, usage_of
from moa_cli.core.tools import ToolCall, ToolCallBuilder
from moa_cli.engine.opening import PartedAnswer
from moa_cli.profile import ModelSettings, Proposer

# If at least this many tokens came after the last count that an endpoint told, that count does not
# cover the whole answer.
_MANY_MORE = 8
# At or below this temperature, the reference implementation of the paper sends 0.
_ZERO_TEMPERATURE = 1e-4
# Reasons why an answer of a model has no text.
_STILL_THINKING = "it used all its tokens for thinking"
_CUT_BEFORE = "it used all its tokens before its answer began"
_ONLY_THOUGHT = "it gave reasoning, but no answer"
_EMPTY = "it gave an empty answer"
# These reasons, each with the finish reason of such an answer.
WORDLESS = {
    _STILL_THINKING: "length",
    _CUT_BEFORE: "length",
    _ONLY_THOUGHT: "stop",
    _EMPTY: "stop",
}


def request_of(
    settings: ModelSettings,
    messages: tuple[Message, ...],
    model: str,
    place: CallPlace | None = None,
) -> Request:
    """The request to an endpoint. model: the id of the model at this endpoint."""
    temperature = settings.temperature
    if temperature is not None and temperature <= _ZERO_TEMPERATURE:
        temperature = 0
    extra = settings.extra
    if settings.reasoning_effort is not None and "reasoning_effort" not in extra:
        extra = {**extra, "reasoning_effort": settings.reasoning_effort}
    return Request(
        model=model,
        messages=messages,
        temperature=temperature,
        max_tokens=settings.max_tokens,
        top_p=settings.top_p,
        seed=settings.seed,
        extra=extra,
        web=isinstance(settings, Proposer) and bool(settings.web),
        place=place,
    )


class Attempt:
    """A request that is sent once, and its answer.

    foreseen: the entry for the ledger before the request is sent. price: of the model; None if it
    is not known yet. number: of the entry in the ledger; None without a ledger. sent, first_token:
    times by `time.monotonic`; infinite and None before. begun: whether the endpoint has accepted
    the request. speaking: whether a word has come: of the answer, of reasoning, or of a refusal; or
    a tool call. running: whether the request has not ended. whole: whether the whole answer has
    come. parts: separates the comparison in the answer from the reply; it holds words back until it
    knows which of the two they belong to.
    """

    def __init__(self, foreseen: CallBegun) -> None:
        self.foreseen = foreseen
        self.parts: PartedAnswer | None = None
        self.model = foreseen.model
        self.price = foreseen.price
        self.number: int | None = None
        self.sent = math.inf
        self.begun = self.speaking = self.whole = False
        self.running = True
        self.first_token: float | None = None
        self.finish_reason: str | None = None
        self.answered_by: str | None = None
        self.citations: tuple[Citation, ...] = ()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls = ToolCallBuilder()
        self._hidden_reasoning = False
        # Whether the endpoint has told a finish reason. `cut` sets one, too.
        self._ended = False
        self._told: Usage | None = None
        self._told_at = 0
        self._count = RunningCount()
        # _noted: `parted` counts the words as they come, so `take` must not count them again.
        # _stirred: `parted` has had words since the last call of `take`.
        self._noted = self._stirred = False

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def received(self) -> str:
        """The text, with the words that are held back at its end."""
        return self.text if self.parts is None else self.text + self.parts.held

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def refused(self) -> bool:
        """Whether the model has refused to answer, in the field of the response for refusals."""
        return bool(self._refusal)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools that the model has made so far."""
        return self._tool_calls.calls()

    @property
    def tokens(self) -> int:
        """The tokens of the answer so far: the higher of our count and the endpoint's."""
        counted, told = self._count.tokens, self._told
        return counted if told is None else max(counted, told.completion_tokens)

    @property
    def sure_tokens(self) -> int:
        """A safe lower count of the tokens so far: by the endpoint, or estimated from the
        characters. The number of deltas is not used, because some endpoints send one character at
        a time."""
        told = self._told.completion_tokens if self._told is not None else 0
        return max(self._count.estimate, told)

    def parted(self, delta: Delta) -> Delta:
        """The part of a delta that is passed on, if the answer may begin with a comparison. Words
        that are held back are counted when they come, and the model does not count as silent."""
        assert self.parts is not None
        self._noted = True
        said = delta.text + delta.reasoning
        if said:
            self._stirred = True
            self._count.take(said, delta.merged)
        return self.parts.feed(delta)

    def release(self) -> str:
        """Add the words that are held back to the text, because no more will come. Returns
        them."""
        held = "" if self.parts is None else self.parts.held
        self.parts = None
        self._text.append(held)
        return held

    def take(self, delta: Delta) -> bool:
        """Take the next delta. Returns whether the answer has made progress with it."""
        # This runs for each token. Nearly all deltas hold only a text.
        if delta.text:
            self._text.append(delta.text)
            if not self._noted:
                self._count.take(delta.text, delta.merged)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            if not self._noted:
                self._count.take(delta.reasoning, 0 if delta.text else delta.merged)
        if delta.refusal:
            self._refusal.append(delta.refusal)
            self._count.take(delta.refusal)
        said = bool(delta.text or delta.reasoning or delta.refusal or delta.tool_calls)
        said, self._stirred = said or self._stirred, False
        if said and not self.speaking:
            self.speaking = True
            self.first_token = time.monotonic()
        if delta.usage is not None:
            before = 0 if self._told is None else self._told.completion_tokens
            said = said or delta.usage.completion_tokens > before
            self._told, self._told_at = delta.usage, self._count.tokens
            self._hidden_reasoning = delta.usage.reasoning_tokens > 0
        if delta.finish_reason:
            self.finish_reason = delta.finish_reason
            self._ended = said = True
        if delta.tool_calls:
            self._tool_calls.take(delta.tool_calls)
            for piece in delta.tool_calls:
                self._count.take(piece.name + piece.arguments)
        self.answered_by = delta.model or self.answered_by
        self.citations = delta.citations or self.citations
        return said

    def replace(self, delta: Delta) -> Delta:
        """Take a text in place of all that came before. Returns what is passed on: nothing if a
        text was already shown."""
        told = any(self._text)
        self._text, self._reasoning = [delta.text], [delta.reasoning]
        return Delta(text="" if told else delta.text)

    def cut(self) -> None:
        """End the answer here, as the endpoint should have done at max_tokens."""
        self.finish_reason = "length"

    def usage(self) -> Usage:
        """The usage that the endpoint told, else an estimate. It has a cost only if the endpoint
        told one."""
        told = self._told
        ended = self.whole or self._ended
        open_end = not ended or self._count.tokens - self._told_at >= _MANY_MORE
        if told is not None and open_end and told.completion_tokens < self.tokens:
            # The answer has gone on since the endpoint told this count. The prompt has not.
            told = replace(
                told, completion_tokens=0, reasoning_tokens=0, cost=0.0, unpriced_calls=told.calls
            )
        called = "".join(call.name + call.arguments for call in self.tool_calls)
        answer = self.text + self.reasoning + "".join(self._refusal) + called
        return usage_of(told, self.foreseen.prompt_tokens, answer, self.tokens)

    def committed(self, allowed: int = 0) -> Usage:
        """The most that the request may take in all. allowed: the tokens that its answer may have,
        if they are more than was foreseen."""
        if not self.running:
            usage = self.usage()
            return priced(usage, self.price) if usage.unpriced_calls else usage
        foreseen, told = self.foreseen, self._told or Usage()
        answer = max(allowed, foreseen.completion_tokens, told.completion_tokens)
        prompt = max(foreseen.prompt_tokens, told.prompt_tokens)
        return priced(estimated_usage(prompt, answer), self.price)

    def no_answer(self) -> ClientError:
        """The error that says why the request has given no answer."""
        ending = ending_of(self.finish_reason)
        thought = bool(self._reasoning) or self._hidden_reasoning
        if self._refusal or ending == "refusal":
            words = " ".join("".join(self._refusal).split())
            return AnswerRefused(f"{REFUSED}: {words}" if words else REFUSED)
        if ending == "content_filter":
            return ContentFiltered(
                "the provider's content filter stopped its answer",
                hint="rephrase the prompt, or ask another model",
            )
        if self._tool_calls or ending == "tool_calls":
            return BadResponse("it called a tool instead of answering")
        if ending == "length":
            return BadResponse(
                _STILL_THINKING if thought else _CUT_BEFORE, hint="raise max_tokens for this model"
            )
        return BadResponse(_ONLY_THOUGHT if thought else _EMPTY)


def settled(
    attempts: list[Attempt], price_of: Callable[[str], Price | None]
) -> dict[str, tuple[list[int], Usage]]:
    """The usage of the attempts, by model, with their numbers in the ledger.

    price_of: the price of a model. It is used where the endpoint told no cost.
    """
    found: dict[str, tuple[list[int], Usage]] = {}
    for attempt in attempts:
        usage = attempt.usage()
        if usage.unpriced_calls:
            usage = priced(usage, price_of(attempt.model))
        own = [] if attempt.number is None else [attempt.number]
        if attempt.model in found:
            numbers, before = found[attempt.model]
            own, usage = numbers + own, before + usage
        found[attempt.model] = (own, usage)
    return found


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of several usages. Usually there is only one, which needs no addition."""
    parts = list(usages)
    return parts[0] if len(parts) == 1 else sum(parts, Usage())

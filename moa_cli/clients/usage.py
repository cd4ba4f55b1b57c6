"""Reads usage and cost from the different places where providers report them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from moa_cli.core.conversation import Usage
from moa_cli.core.money import in_usd

# Upper bounds for one call. A larger number is not a count of tokens, and not a cost.
_MOST_TOKENS, _MOST_USD = 2 * 10**7, 10**4
# A call may use more tokens than `moa` sees. A provider's search adds to the prompt, in several
# steps; some endpoints generate reasoning beyond max_tokens and do not show it. These are the
# largest such additions that are believed.
_UNSEEN_PROMPT, _UNSEEN_ANSWER = 10**6, 2 * 10**5
# Upper bounds of a believable cost in USD: a fee per call, and an amount per token. The dearest
# model costs a tenth of that amount per token, the dearest search less than a tenth of that fee.
_MOST_FEE, _MOST_PER_TOKEN = 100.0, 0.01
# xAI's unit of cost, in USD.
_TICKS_PER_USD = 10**10
_MOST_TICKS = _MOST_USD * _TICKS_PER_USD
_COSTS = ("cost", "cost_in_usd_ticks", "total_cost", "estimated_cost")
_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
# The plain counts. A table with no other fields has no details.
_PLAIN = frozenset((*_PROMPT, *_COMPLETION, "total_tokens"))
_CACHED = (
    # DeepSeek; Mistral; Moonshot and Together; Anthropic
    *("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"),
    "cache_read_input_tokens",
)


@dataclass
class Bounds:
    """The most that a call can have used; a larger count is not believed.

    prompt: bytes that were sent; a token has one or more. limit: the most tokens that were
    requested, or None. answer: bytes that were received, None if they are not counted. doubted: the
    reported usage that was not believed; an estimate is booked in its place.
    """

    prompt: int = _MOST_TOKENS
    limit: int | None = None
    answer: int | None = None
    doubted: dict[str, object] = field(default_factory=dict)

    def is_prompt(self, tokens: int) -> bool:
        """Whether the prompt may have had this many tokens."""
        return tokens <= self.prompt + _UNSEEN_PROMPT

    def is_answer(self, tokens: int) -> bool:
        """Whether the answer may have had this many tokens, including reasoning that was not
        shown."""
        unseen = max(_UNSEEN_ANSWER, 4 * (self.limit or 0))
        return tokens <= unseen or self.answer is None or tokens <= unseen + self.answer


def usage_from(payload: dict[str, Any], bounds: Bounds | None = None) -> Usage | None:
    """The usage in a chunk or a completion: beside the choices, in the first choice (Moonshot), or
    in `x_groq`. None if it holds no usage that can be true."""
    told = _table_in(payload)
    if told is None:
        return None
    bounds = bounds or Bounds()
    prompt = _count(told, *_PROMPT)
    if prompt is not None and not bounds.is_prompt(prompt):
        prompt = None
    completion = _count(told, *_COMPLETION)
    if completion is not None and not bounds.is_answer(completion):
        completion = None
    if prompt is None or completion is None:
        for count, names in ((prompt, _PROMPT), (completion, _COMPLETION)):
            if count is None and any(told.get(name) is not None for name in names):
                bounds.doubted = told
    prompt_details: object = None
    cached = reasoning = 0
    # A table of plain counts has no further fields to read.
    if not told.keys() <= _PLAIN:
        prompt_details = told.get("prompt_tokens_details") or told.get("input_tokens_details")
        details = told.get("completion_tokens_details") or told.get("output_tokens_details")
        # Not limited to the prompt's tokens: Mistral reports more cached tokens than that.
        cached = _count(prompt_details, "cached_tokens") or _count(told, *_CACHED) or 0
        reasoning = _count(details, "reasoning_tokens") or _count(told, "reasoning_tokens") or 0
        # Bedrock's count of a prompt leaves out what its cache holds or is given (Portkey).
        beside = sum(_count(told, f"cache_{use}_input_tokens") or 0 for use in ("read", "creation"))
        counted = (prompt or 0) + (completion or 0)
        if beside and _count(told, "total_tokens") == counted + beside and bounds.is_prompt(beside):
            prompt = (prompt or 0) + beside
    hidden = _hidden_output(told, prompt, completion, prompt_details)
    if hidden and bounds.is_answer((completion or 0) + hidden):
        completion = (completion or 0) + hidden
    if prompt is None and completion is None:
        return None
    cost = _believed(_told_cost(payload, told), (prompt or 0) + (completion or 0))
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        # Reasoning is part of the answer, but OpenRouter has reported 11 tokens of 10.
        reasoning_tokens=min(reasoning, completion or 0),
        cached_tokens=cached if bounds.is_prompt(cached) else 0,
        calls=1,
        cost=cost or 0.0,
        unpriced_calls=int(cost is None),
    )


def with_cost(usage: Usage, payload: dict[str, Any]) -> Usage:
    """`usage` with the cost that a chunk reports outside of its usage, if there is one."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    cost = _believed(_amount_in(payload.get("cost")), tokens)
    return usage if cost is None else replace(usage, cost=cost, unpriced_calls=0)


def without_interim_cost(usage: Usage) -> Usage:
    """`usage` as reported before the end of an answer: a cost of 0 means that it is not known yet
    (Perplexity)."""
    return usage if usage.cost else replace(usage, unpriced_calls=usage.calls)


def completed(told: Usage, before: Usage) -> Usage:
    """`told`, with the counts and the cost that it leaves out, from what was reported before it at
    the end of the same answer: some endpoints report in several chunks, or zeros at last."""
    if not told.prompt_tokens:
        prompt, cached = before.prompt_tokens, before.cached_tokens
        told = replace(told, prompt_tokens=prompt, cached_tokens=cached)
    if not told.completion_tokens:
        answer, thought = before.completion_tokens, before.reasoning_tokens
        told = replace(told, completion_tokens=answer, reasoning_tokens=thought)
    if told.unpriced_calls:
        told = replace(told, cost=before.cost, unpriced_calls=before.unpriced_calls)
    return told


def _table_in(payload: dict[str, Any]) -> dict[str, Any] | None:
    places = [payload.get("usage")]
    if places[0] and isinstance(places[0], dict):
        # Nearly all endpoints report it here.
        return places[0]
    choices, groq = payload.get("choices"), payload.get("x_groq")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        places.append(choices[0].get("usage"))
    if isinstance(groq, dict):
        places.append(groq.get("usage"))
    return next((table for table in places if isinstance(table, dict) and table), None)


def _hidden_output(
    told: dict[str, Any], prompt: int | None, completion: int | None, prompt_details: object
) -> int:
    """Tokens in the total that are neither in the prompt nor in the completion: reasoning that is
    billed as output (xAI, Gemini). Audio at Mistral is the exception: there the rest is part of the
    prompt."""
    total = _count(told, "total_tokens")
    if total is None or prompt is None:
        return 0
    rest = total - prompt - (completion or 0)
    return rest if rest > 0 and rest != _count(prompt_details, "audio_tokens") else 0


def _count(table: object, *names: str) -> int | None:
    """The first count under these names that is more than 0, else 0 if one of them is 0, else None.
    Some endpoints write a count as 12.0 or "12"."""
    found: int | None = None
    if not isinstance(table, dict):
        return None
    for name in names:
        value = table.get(name)
        if type(value) is int and 0 < value <= _MOST_TOKENS:
            # The fast path: nearly all counts are plain numbers.
            return found or value
        if value is None:
            continue
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            found = found or value
    return found


def _told_cost(payload: dict[str, Any], told: dict[str, Any]) -> float | None:
    """USD that the endpoint says it charges for the call; None if it does not say.

    With a key of your own at the model's provider (`is_byok`), OpenRouter charges its fee, and that
    provider sends a separate bill. OpenRouter reports the expected amount of that bill
    (`upstream_inference_cost`) but does not charge it, so it is left out here.
    """
    if (told.keys().isdisjoint(_COSTS) and "cost" not in payload) or not in_usd(told):
        return None
    cost = _amount_in(told.get("cost"))
    if cost is None:
        ticks = _number(told.get("cost_in_usd_ticks"))
        # A single division rounds once, so the float is the one nearest to the decimal figure.
        cost = None if ticks is None else _in_range(ticks / _TICKS_PER_USD)
    for value in (told.get("total_cost"), payload.get("cost"), told.get("estimated_cost")):
        cost = _amount_in(value) if cost is None else cost
    return cost


def _believed(cost: float | None, tokens: int) -> float | None:
    """The cost, or None if it is too high for a call of this many tokens."""
    return cost if cost is None or cost <= _MOST_FEE + tokens * _MOST_PER_TOKEN else None


def _amount_in(value: object) -> float | None:
    """An amount: a number, or a table with a sum or its parts (Perplexity, Venice)."""
    if not isinstance(value, dict):
        number = _number(value)
        return None if number is None else _in_range(float(number))
    if not in_usd(value):
        return None
    for name in ("total_cost", "usd", "total_cost_usd"):
        if name in value:
            return _amount_in(value[name])
    parts = [_number(part) for name, part in value.items() if name.endswith("_cost")]
    known = [float(part) for part in parts if part is not None]
    # Rounded, because the `repr` of a float sum shows errors of binary fractions; no bill has more
    # than 12 digits.
    return _in_range(round(math.fsum(known), 12)) if known and len(known) == len(parts) else None


def _number(value: object) -> int | float | None:
    if isinstance(value, str) and len(value) < 32:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A JSON integer may have any number of digits; one that is too large cannot become a float.
    return value if isinstance(value, float) or abs(value) < _MOST_TICKS else None


def _in_range(amount: float) -> float | None:
    # This also rejects NaN, because each comparison with NaN is false.
    return amount if 0 <= amount <= _MOST_USD else None

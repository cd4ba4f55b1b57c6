"""Usage and cost as the providers tell them, wherever they put them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from moa_cli.core.conversation import Usage

# More than this for one call is no count, and no cost.
_MOST_TOKENS, _MOST_USD = 2 * 10**7, 10**4
# Tokens that a call may have taken beyond what is seen of it: what a provider's search adds to the
# prompt, in several steps; and reasoning that is not shown, which some give beyond max_tokens.
_UNSEEN_PROMPT, _UNSEEN_ANSWER = 10**6, 2 * 10**5
# USD for a call, and for each of its tokens, beyond which a cost is none: the dearest model takes a
# tenth of that a token, the dearest search less than a tenth of the fee.
_MOST_FEE, _MOST_PER_TOKEN = 100.0, 0.01
# xAI's unit of cost, in USD.
_TICKS_PER_USD = 10**10
_MOST_TICKS = _MOST_USD * _TICKS_PER_USD
_COSTS = ("cost", "cost_in_usd_ticks", "total_cost", "estimated_cost")
_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
# A table of nothing else has no details.
_PLAIN = frozenset((*_PROMPT, *_COMPLETION, "total_tokens"))
_CACHED = (
    # DeepSeek, Mistral, Moonshot and Together, Anthropic
    *("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"),
    "cache_read_input_tokens",
)


@dataclass
class Bounds:
    """What a call can have taken at most; a count beyond is not believed.

    prompt: bytes that were sent; a token has one or more. limit: tokens that were asked for at
    most, or None. answer: bytes that have come, None if they are not counted.
    doubted: what was told and not believed; what is booked in its place is an estimate.
    """

    prompt: int = _MOST_TOKENS
    limit: int | None = None
    answer: int | None = None
    doubted: dict[str, object] = field(default_factory=dict)

    def is_prompt(self, tokens: int) -> bool:
        """Whether a prompt may have had so many tokens."""
        return tokens <= self.prompt + _UNSEEN_PROMPT

    def is_answer(self, tokens: int) -> bool:
        """Whether an answer may have had so many tokens, with reasoning that was not shown."""
        unseen = max(_UNSEEN_ANSWER, 4 * (self.limit or 0))
        return tokens <= unseen or self.answer is None or tokens <= unseen + self.answer


def usage_from(payload: dict[str, Any], bounds: Bounds | None = None) -> Usage | None:
    """The usage that a chunk or a completion tells: beside the choices, in the first of them
    (Moonshot), or in `x_groq`. None if it tells none that could be true."""
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
    # A table of nothing but counts needs no more looking.
    if not told.keys() <= _PLAIN:
        prompt_details = told.get("prompt_tokens_details") or told.get("input_tokens_details")
        details = told.get("completion_tokens_details") or told.get("output_tokens_details")
        # Mistral tells more of them than the prompt has.
        cached = _count(prompt_details, "cached_tokens") or _count(told, *_CACHED) or 0
        reasoning = _count(details, "reasoning_tokens") or _count(told, "reasoning_tokens") or 0
    hidden = _hidden_output(told, prompt, completion, prompt_details)
    if hidden and bounds.is_answer((completion or 0) + hidden):
        completion = (completion or 0) + hidden
    if prompt is None and completion is None:
        return None
    cost = _believed(_told_cost(payload, told), (prompt or 0) + (completion or 0))
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        # A part of the answer: OpenRouter tells 11 of 10.
        reasoning_tokens=min(reasoning, completion or 0),
        cached_tokens=cached if bounds.is_prompt(cached) else 0,
        calls=1,
        cost=cost or 0.0,
        unpriced_calls=int(cost is None),
    )


def with_cost(usage: Usage, payload: dict[str, Any]) -> Usage:
    """`usage` with the cost that a chunk tells beside it, if it tells one."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    cost = _believed(_amount_in(payload.get("cost")), tokens)
    return usage if cost is None else replace(usage, cost=cost, unpriced_calls=0)


def without_interim_cost(usage: Usage) -> Usage:
    """`usage` as told before the end of an answer: a cost of 0 is none yet (Perplexity)."""
    return usage if usage.cost else replace(usage, unpriced_calls=usage.calls)


def _table_in(payload: dict[str, Any]) -> dict[str, Any] | None:
    places = [payload.get("usage")]
    if places[0] and isinstance(places[0], dict):
        # Where nearly all endpoints tell it.
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
    """Tokens that the total holds beyond prompt and completion: reasoning that is billed as
    output (xAI, Gemini). Mistral's audio is the exception: there the rest is part of the
    prompt."""
    total = _count(told, "total_tokens")
    if total is None or prompt is None:
        return 0
    rest = total - prompt - (completion or 0)
    return rest if rest > 0 and rest != _count(prompt_details, "audio_tokens") else 0


def _count(table: object, *names: str) -> int | None:
    """The first of these counts that is one, or that is more than nothing; some endpoints write
    them as 12.0 or "12"."""
    found: int | None = None
    if not isinstance(table, dict):
        return None
    for name in names:
        value = table.get(name)
        if type(value) is int and 0 < value <= _MOST_TOKENS:
            # As nearly all are.
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

    With a key of your own at the model's provider (`is_byok`), OpenRouter charges its fee, and
    that provider sends a bill of its own: what that will be (`upstream_inference_cost`) is not
    told as charged, and so is not in here.
    """
    if told.keys().isdisjoint(_COSTS) and "cost" not in payload:
        return None
    cost = _amount_in(told.get("cost"))
    if cost is None:
        ticks = _number(told.get("cost_in_usd_ticks"))
        # One division, rounded once: the float is the nearest to the decimal figure.
        cost = None if ticks is None else _in_range(ticks / _TICKS_PER_USD)
    for value in (told.get("total_cost"), payload.get("cost"), told.get("estimated_cost")):
        cost = _amount_in(value) if cost is None else cost
    return cost


def _believed(cost: float | None, tokens: int) -> float | None:
    """The cost of a call of so many tokens, if it can be that."""
    return cost if cost is None or cost <= _MOST_FEE + tokens * _MOST_PER_TOKEN else None


def _amount_in(value: object) -> float | None:
    """An amount: a number, or a table with a sum or its parts (Perplexity, Venice)."""
    if not isinstance(value, dict):
        number = _number(value)
        return None if number is None else _in_range(float(number))
    for name in ("total_cost", "usd", "total_cost_usd"):
        if name in value:
            return _amount_in(value[name])
    parts = [_number(part) for name, part in value.items() if name.endswith("_cost")]
    known = [float(part) for part in parts if part is not None]
    # `repr` of such a sum shows where binary fractions were added; no bill has more digits.
    return _in_range(round(math.fsum(known), 12)) if known and len(known) == len(parts) else None


def _number(value: object) -> int | float | None:
    if isinstance(value, str) and len(value) < 32:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer may have any number of digits; a float of it may not.
    return value if isinstance(value, float) or abs(value) < _MOST_TICKS else None


def _in_range(amount: float) -> float | None:
    # A comparison with NaN is false.
    return amount if 0 <= amount <= _MOST_USD else None

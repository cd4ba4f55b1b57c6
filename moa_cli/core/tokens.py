"""Estimates how many tokens a text has, without the tokenizer of a model.

For 150 real English prompts the estimates are within 15 % of GPT-4's own counts, and for 29 of 30
of these prompts within 10 %. They are the judge prompts of AlpacaEval 2, with recorded counts.

Estimates for other languages are less exact, because tokenizers differ more: a text in Hindi has 66
tokens for GPT-4o, 123 for DeepSeek, 231 for GPT-4 and 253 for Claude 2. For each script, the
estimate lies between the lowest and the highest of these four. For 40 languages, emoji and code, it
is at most 2.5 times too low and 3 times too high for any of the four.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache

from moa_cli.core.conversation import Message, Usage
from moa_cli.core.once_each import once_each
from moa_cli.core.tools import OfferedTools

_PIECE = re.compile(r"([A-Za-z]+)|(\d{1,3})|(\n+)|([^\x00-\x7f]+)|[^\s\w]+|_+")
# A common word of up to this many letters is usually one token.
_WORD_LETTERS = 7
# The pieces of a text in ASCII: as in _PIECE, but a long word becomes several pieces. Line breaks
# are counted separately with _LINES.
_ASCII_PIECE = re.compile(rf"[A-Za-z]{{1,{_WORD_LETTERS}}}|\d{{1,3}}|[^\s\w]+|_+")
_LINES = re.compile(r"\n+")
# The number of pieces is slightly higher than the number of tokens, so it is multiplied by this.
_CALIBRATION = 0.9
# Tokens per letter by script: between the lowest and highest of the four tokenizers above.
_SCRIPTS = {
    "\u0080-\u02ff\u1e00-\u1eff": 0.9,  # Latin beyond ASCII
    "\u0300-\u036f": 1.0,  # accents by themselves
    "\u0370-\u03ff\u1f00-\u1fff": 0.75,  # Greek
    "\u0400-\u052f": 0.55,  # Cyrillic
    "\u0530-\u058f": 0.9,  # Armenian
    "\u0590-\u05ff": 0.75,  # Hebrew
    "\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufeff": 0.7,  # Arabic, Syriac
    "\u0900-\u097f": 0.7,  # Devanagari
    "\u0980-\u0dff": 1.0,  # Bengali to Sinhala
    "\u0e00-\u0e7f": 0.85,  # Thai
    "\u0e80-\u0eff": 2.4,  # Lao
    "\u0f00-\u0fff": 1.85,  # Tibetan
    "\u1000-\u109f": 1.1,  # Burmese
    "\u10a0-\u10ff": 0.9,  # Georgian
    "\u1200-\u139f": 2.7,  # Ethiopic
    "\u1780-\u17ff": 1.4,  # Khmer
    "\u2000-\u206f\ufe00-\ufe0f": 0.8,  # dashes, quotation marks, joiners
    "\u2500-\u25ff": 0.9,  # lines and boxes
    "\u2070-\u24ff\u2600-\u2e7f": 1.5,  # symbols
    "\u1100-\u11ff\uac00-\ud7ff": 0.95,  # Korean
    "\u2e80-\uabff\uf900-\ufaff\uff00-\uffef": 0.9,  # Chinese, Japanese
    "\U0001f000-\U0001faff": 2.0,  # emoji
}
_WEIGHTS = (0.0, *_SCRIPTS.values())
# Tokens per letter of any other script: nearly as many as the letter has bytes.
_RARE = 2.5
# Tokens that a chat template adds to each message, and before the answer.
_PER_MESSAGE, _PER_PROMPT = 4, 3
# Letters per token of JSON, such as a schema. JSON is only measured by its length, because some
# programs send a hundred kilobytes of it with each request.
_LETTERS_OF_JSON = 4
# Tokens of an image. Providers count between 85 (small, or with low detail) and about 1,600.
IMAGE_TOKENS = 800
# The fields of a request that become a part of the prompt.
_PROMPT_FIELDS = ("tools", "response_format")
# A streamed text is counted each time that this many letters have come.
_AT_ONCE = 256
# Counts of longer texts, in letters, are not cached, because a server may receive megabytes.
_SHORT = 10_000


@cache
def _script() -> re.Pattern[str]:
    """The pattern of the scripts. It is compiled on first use, to keep the start of commands
    fast."""
    return re.compile("|".join(f"([{ranges}]+)" for ranges in _SCRIPTS))


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has; 0 only if it is empty."""
    return _remembered(text) if len(text) <= _SHORT else _count(text)


def _count(text: str) -> int:
    if text.isascii():
        # This takes a fifth of the time of the loop below. It matters, because the count is a large
        # part of the work while an answer streams in.
        pieces = len(_ASCII_PIECE.findall(text)) + 0.5 * len(_LINES.findall(text))
        return max(math.ceil(pieces * _CALIBRATION), int(bool(text)))
    count = foreign = 0.0
    for match in _PIECE.finditer(text):
        word, _, lines, beyond = match.groups()
        if word:
            count += math.ceil(len(word) / _WORD_LETTERS)
        elif lines:
            count += 0.5
        elif beyond:
            foreign += _foreign(beyond)
        else:
            count += 1
    return max(math.ceil(count * _CALIBRATION + foreign), int(bool(text)))


# The cache avoids repeated counts: all proposers of a layer get the same prompt, and each turn
# repeats the history of the conversation. It has room for a day's conversation, which may have a
# thousand texts.
_remembered = lru_cache(maxsize=2048)(_count)


def _foreign(text: str) -> float:
    """About how many tokens a text without ASCII characters has."""
    found, known = 0.0, 0
    for match in _script().finditer(text):
        length = match.end() - match.start()
        found += length * _WEIGHTS[match.lastindex or 0]
        known += length
    return found + (len(text) - known) * _RARE


def prompt_tokens(messages: Iterable[Message]) -> int:
    """About how many tokens the prompt of a chat completion has, including its template.

    An image counts as IMAGE_TOKENS, whatever its size.
    """
    return _PER_PROMPT + sum(map(message_tokens, messages))


@once_each
def message_tokens(message: Message) -> int:
    """About how many tokens a message adds to a prompt."""
    tokens = _PER_MESSAGE + estimate_tokens(message.content)
    for call in message.tool_calls:
        tokens += estimate_tokens(call.name + call.arguments)
    return tokens + IMAGE_TOKENS * sum(part.kind == "image" for part in message.parts)


def extra_tokens(extra: Mapping[str, object]) -> int:
    """About how many tokens the fields in `extra` add to the prompt: the tools that a model is
    offered, and the schema of its answer."""
    told = [extra[name] for name in _PROMPT_FIELDS if extra.get(name)] if extra else []
    written = [
        value.json if isinstance(value, OfferedTools) else json.dumps(value) for value in told
    ]
    return sum(len(value) // _LETTERS_OF_JSON for value in written)


def rounded_tokens(tokens: int) -> str:
    """A number of tokens as a short text, such as the context of a model: `8k`, `128k`, `1M`.

    Both powers of two and round decimal numbers give a whole number, because contexts are either.
    """
    for step in (1024, 1000):
        if tokens >= step and tokens % step == 0:
            thousands = tokens // step
            more = thousands >= step and thousands % step == 0
            return f"{thousands // step}M" if more else f"{thousands}k"
    if tokens < 1000:
        return str(tokens)
    return f"{tokens / 1000:.3g}k" if tokens < 999_500 else f"{tokens / 1_000_000:.3g}M"


def estimated_usage(prompt: int, completion: int) -> Usage:
    """The usage of one call with estimated tokens and without a price."""
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        calls=1,
        estimated_calls=1,
        estimated_prompt_tokens=prompt,
        estimated_completion_tokens=completion,
        unpriced_calls=1,
    )


def usage_of(told: Usage | None, prompt: int, answer: str, at_least: int = 0) -> Usage:
    """The usage of a call: the counts that its endpoint told, and estimates for missing ones.

    prompt: the estimated tokens of the prompt. answer: the text and reasoning of the answer.
    at_least: the least number of tokens of the answer, as counted while it came.
    """
    if told is None:
        return estimated_usage(prompt, max(estimate_tokens(answer), at_least))
    # Some endpoints count no prompt or no answer although there was one.
    no_prompt = prompt if not told.prompt_tokens and (answer or told.completion_tokens) else 0
    is_uncounted = answer and not told.completion_tokens
    no_answer = max(estimate_tokens(answer), at_least) if is_uncounted else 0
    if not no_prompt and not no_answer:
        return told
    return replace(
        told,
        prompt_tokens=told.prompt_tokens + no_prompt,
        completion_tokens=told.completion_tokens + no_answer,
        estimated_calls=1,
        estimated_prompt_tokens=no_prompt,
        estimated_completion_tokens=no_answer,
    )


class RunningCount:
    """Estimates the tokens of a text while it is streamed. estimate: of the text up to the last
    count, which happens once for each `_AT_ONCE` letters."""

    def __init__(self) -> None:
        self._pieces = 0
        self.estimate = 0
        self._rest: list[str] = []
        self._letters = 0

    def take(self, piece: str, merged: int = 0) -> None:
        """Take the next piece, which has at least one token. merged: the number of further pieces
        of the stream that were merged into it."""
        self._pieces += 1 + merged
        self._rest.append(piece)
        self._letters += len(piece)
        # Counts only now and then, because this runs for each token.
        if self._letters >= _AT_ONCE:
            self.estimate += _count("".join(self._rest))
            self._rest, self._letters = [], 0

    @property
    def tokens(self) -> int:
        """The number of tokens so far: the higher of the estimate and the number of pieces."""
        return max(self._pieces, self.estimate)

"""The expected rating of a judge, by the log-probabilities of the numbers that it could have said.

A judge that says 8 may have been nearer to 7 or to 9. The mean over its probabilities shows that,
and makes ties between answers rare (Liu et al. 2023, "G-Eval", arXiv:2303.16634).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

# A token of an answer that has a digit, or follows a token that has one. The values are how many
# characters before the end of the answer it begins, and the alternative tokens, each with the
# natural logarithm of its probability.
NumberToken = tuple[int, tuple[tuple[str, float], ...]]
# How many alternatives to each token are asked for. Some endpoints do not accept more.
ALTERNATIVES: Final = 5
# The highest of all ratings; the lowest is 1.
_MOST: Final = 10
_DIGITS: Final = re.compile(r"[\s\[*_\"'(:=]*(\d{1,2})[\]\s*_\"')]*")
_HOLDS_DIGIT: Final = re.compile(r"\d")
_LEAST_NATS: Final = -1e4
# How many last characters of an answer are used to find its end among its tokens.
_TAIL: Final = 60


def number_tokens(tokens: Iterable[str], answer: str) -> tuple[NumberToken, ...]:
    """The tokens of an answer that matter for a number in it.

    tokens: for each token the JSON object from the endpoint, as OpenAI defines it. answer: the text
    of the answer. Places are counted from its end, because some endpoints also send tokens after
    it, such as an end mark.
    """
    found: list[tuple[int, tuple[tuple[str, float], ...]]] = []
    texts: list[str] = []
    place, follows = 0, False
    for line in tokens:
        told = json.loads(line)
        text = told.get("token") if isinstance(told, dict) else None
        if not isinstance(text, str):
            return ()
        holds = _HOLDS_DIGIT.search(text) is not None
        if holds or follows:
            found.append((place, _alternatives(told)))
        texts.append(text)
        place, follows = place + len(text), holds
    tail = answer[-_TAIL:]
    last = "".join(texts).rfind(tail)
    end = place if last < 0 else last + len(tail)
    return tuple((end - begin, alternatives) for begin, alternatives in found if begin < end)


def _alternatives(told: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    rows = told.get("top_logprobs")
    pairs = [
        (row.get("token"), row.get("logprob"))
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    ]
    return tuple(
        (token, float(value))
        for token, value in pairs
        if isinstance(token, str) and isinstance(value, int | float) and _LEAST_NATS <= value < 1
    )


def expected_rating(
    text: str, span: tuple[int, int], numbers: Iterable[NumberToken]
) -> float | None:
    """The mean of all possible ratings, weighted by their probabilities. None if the rating in the
    text is not a whole number, or its probabilities are not known.

    text: the judge's whole answer. span: the place of the rating in it. numbers: see
    `number_tokens`.
    """
    said = text[slice(*span)]
    if not said.isdigit():
        return None
    known = dict(numbers)
    # The token may begin up to three characters before the digits, with a bracket or a space.
    before_end = len(text) - span[0]
    begin = next((before_end + more for more in range(4) if before_end + more in known), None)
    if begin is None:
        return None
    weights: dict[int, float] = {}
    for token, logprob in known[begin]:
        matched = _DIGITS.fullmatch(token)
        if matched is not None and 1 <= int(matched[1]) <= _MOST:
            rating = int(matched[1])
            weights[rating] = weights.get(rating, 0.0) + math.exp(logprob)
    _part_ten(weights, said, known.get(before_end - 1, ()))
    whole = math.fsum(weights.values())
    if int(said) not in weights or not whole:
        return None
    return math.fsum(rating * weight for rating, weight in weights.items()) / whole


def _part_ten(weights: dict[int, float], said: str, following: Iterable[tuple[str, float]]) -> None:
    """Split the probability of a token "1" into those of the ratings 1 and 10, for models whose
    tokens are single digits. following: the alternatives to the next token."""
    if 10 in weights or 1 not in weights:
        return
    if said in ("1", "10"):
        zero = math.fsum(math.exp(logprob) for token, logprob in following if token[:1] == "0")
        if zero:
            weights[10] = weights[1] * min(1.0, zero)
            weights[1] -= weights[10]
    elif int(said) > _MOST // 2:
        # The judge said another digit, so it is not known whether this 1 would have become a 10. A
        # 10 is more likely, so counting it as 1 would be wrong: leave it out.
        del weights[1]

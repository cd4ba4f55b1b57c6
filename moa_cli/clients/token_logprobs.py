"""Reads the log-probabilities of the tokens of an answer, in the shapes that endpoints use.

OpenAI sends one object for each token: `{"content": [{"token", "logprob", "top_logprobs":
[{"token", "logprob"}]}]}`. Together and older servers send parallel lists, as in the old
completions API: `{"tokens": […], "token_logprobs": […], "top_logprobs": [{TOKEN: LOGPROB}]}`. In
Together's streams a chunk may hold a bare number, with the alternatives beside it in `top_logprobs`
of the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from moa_cli.core.nesting import is_deeper

# The lower bound of a believable log-probability. The bounds are wide, because some endpoints write
# -9999 for impossible, or round certainty up to more than 0.
_MOST_NATS = 10**6


def told_tokens(logprobs: object, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a chunk, or of a whole answer, each in OpenAI's shape.

    choice: the choice that holds them. If `logprobs` is a bare number, the text of the choice is
    one token.
    """
    if isinstance(logprobs, dict):
        content = logprobs.get("content")
        if content and isinstance(content, list):
            return [row for row in content if isinstance(row, dict) and not is_deeper(row)]
        return _side_by_side(logprobs)
    if not isinstance(logprobs, int | float) or isinstance(logprobs, bool):
        return []
    table = choice.get("top_logprobs")
    if not logprobs and not table:
        # A 0 without alternatives: more likely none were requested than that the token was certain.
        return []
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return [_token(text, logprobs, table)]


def _side_by_side(logprobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = logprobs.get("top_logprobs")
    columns = (
        logprobs.get("tokens"),
        logprobs.get("token_logprobs"),
        [tables] if isinstance(tables, dict) else tables,
    )
    rows = zip_longest(*(column if isinstance(column, list) else [] for column in columns))
    return [_token(*row) for row in rows]


def _token(text: object, value: object, table: object) -> dict[str, Any]:
    """One token in OpenAI's shape. table: the log-probabilities of the alternatives by token, the
    token itself among them."""
    return {
        "token": text if isinstance(text, str) else "",
        "logprob": value if isinstance(value, int | float) else None,
        "top_logprobs": [
            {"token": token, "logprob": likely}
            for token, likely in (table.items() if isinstance(table, dict) else ())
            if isinstance(likely, int | float)
        ],
    }


def likeliest(token: Mapping[str, Any]) -> tuple[tuple[str, float], ...] | None:
    """The alternatives for a token, each with its log-probability; None if the endpoint sent
    none."""
    told = token.get("top_logprobs")
    found = tuple(
        (row["token"], float(row["logprob"]))
        for row in (told if isinstance(told, list) else [])
        if isinstance(row, dict)
        and isinstance(row.get("token"), str)
        and isinstance(row.get("logprob"), int | float)
        and -_MOST_NATS <= row["logprob"] < 1
    )
    return found or None

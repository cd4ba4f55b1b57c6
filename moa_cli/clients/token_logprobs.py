"""The log-probabilities of the tokens of an answer, in whatever shape an endpoint tells them.

OpenAI has one object a token: `{"content": [{"token", "logprob", "top_logprobs": [{"token",
"logprob"}]}]}`. Together, and older servers, have lists side by side as in completions:
`{"tokens": […], "token_logprobs": […], "top_logprobs": [{TOKEN: LOGPROB}]}`. In Together's streams
a chunk may hold a bare number, with the alternatives beside it in `top_logprobs` of the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from moa_cli.core.nesting import is_deeper

# Bounds of what is a log-probability: some say -9999 for impossible, or round certainty up.
_MOST_NATS = 10**6


def told_tokens(logprobs: object, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a chunk, or of a whole answer, each as OpenAI tells it.

    choice: that they were told in. Where they are a bare number, its text is one token.
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
        # More likely that none were asked for than that the token was certain.
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
    """table: the alternatives by token, itself among them."""
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
    """What could have stood in the place of a token, with its log-probability; None if not told."""
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

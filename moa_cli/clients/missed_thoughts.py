"""Placeholders for the reasoning behind tool calls, which some endpoints require in the
conversation.

A model that reasons before it calls a tool should read this reasoning again with the result. Some
endpoints refuse a conversation without it: DeepSeek and Moonshot require the text, Gemini a
signature. `moa` has neither: the reasoning of a reply is not part of the history, and another model
may have made the calls. So such an endpoint gets a placeholder that it accepts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from moa_cli.clients.error_reading import read_refusal
from moa_cli.clients.refused_fields import SIGNATURE, THOUGHTS
from moa_cli.clients.transport import Refused

# How endpoints say that the field is missing (not that they do not accept it).
_COMPLAINTS: Mapping[str, str] = {
    THOUGHTS: r"missing\W{1,3}reasoning_content|reasoning_content\W{0,3} (is |field )?"
    r"(missing|required)|reasoning_content\b.{0,60}must be (passed|sent|provided|included)",
    SIGNATURE: r"(missing|without|requires?) (an? )?\W?thought_?signature",
}
# A space, because some endpoints treat an empty text as missing.
_NO_TEXT = " "
# The value that Google's documentation gives for calls that other models have made.
_NO_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}


def missed_thought(refusal: Refused) -> str | None:
    """The field that an endpoint misses in the assistant's messages; None if the refusal names
    none."""
    if refusal.status not in (400, 422):
        return None
    words = read_refusal(refusal.status, refusal.body).words
    return next(
        (
            missed
            for missed, pattern in _COMPLAINTS.items()
            if re.search(pattern, words, re.IGNORECASE)
        ),
        None,
    )


def with_thoughts(message: dict[str, Any], missed: Collection[str]) -> dict[str, Any]:
    """A message with placeholders for the reasoning that the endpoint misses."""
    if message["role"] != "assistant":
        return message
    if THOUGHTS in missed:
        message = {**message, THOUGHTS: _NO_TEXT}
    if SIGNATURE in missed and "tool_calls" in message:
        # The first call of a message carries the signature for all of its calls.
        first, *others = message["tool_calls"]
        signed = {**first, "extra_content": _NO_SIGNATURE}
        message = {**message, "tool_calls": [signed, *others]}
    return message

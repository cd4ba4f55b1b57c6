"""The thoughts behind calls of tools, which some endpoints want back with the conversation.

A model that thinks before it calls a tool is to read its thoughts again with the result, and some
endpoints refuse a conversation without them: DeepSeek and Moonshot want the text, Gemini a
signature. Whoever asks through `moa` has none of them: the thoughts of a reply are not part of its
history, and the calls may be those of another model. Such an endpoint is sent what it takes for
thoughts that are not known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from moa_cli.clients.error_reading import read_refusal
from moa_cli.clients.refused_fields import SIGNATURE, THOUGHTS
from moa_cli.clients.transport import Refused

# How endpoints say that one is missing, not that they do not take one.
_COMPLAINTS: Mapping[str, str] = {
    THOUGHTS: r"missing\W{1,3}reasoning_content|reasoning_content\W{0,3} (is |field )?"
    r"(missing|required)|reasoning_content\b.{0,60}must be (passed|sent|provided|included)",
    SIGNATURE: r"(missing|without|requires?) (an? )?\W?thought_?signature",
}
# Some take an empty text for none.
_NO_TEXT = " "
# The value that Google's documentation names for calls that its models have not made.
_NO_SIGNATURE = {"google": {"thought_signature": "skip_thought_signature_validator"}}


def missed_thought(refusal: Refused) -> str | None:
    """What an endpoint misses in the assistant's messages; None if it says no such thing."""
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
    """A message as it is sent, with what stands for the thoughts that the endpoint misses."""
    if message["role"] != "assistant":
        return message
    if THOUGHTS in missed:
        message = {**message, THOUGHTS: _NO_TEXT}
    if SIGNATURE in missed and "tool_calls" in message:
        # The first call of a message carries the thoughts behind all of them.
        first, *others = message["tool_calls"]
        signed = {**first, "extra_content": _NO_SIGNATURE}
        message = {**message, "tool_calls": [signed, *others]}
    return message

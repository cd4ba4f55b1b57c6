"""Fitting a prompt to its model's context.

The rule: room is the context less the answer (max_tokens, else 1,024 tokens or a quarter of the
context). If the prompt with its references has no room, every reference may have the same number
of tokens, and longer ones are cut at their end; if that would be too few, the model is not asked.
Conversations and prompts are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moa_cli.core.conversation import Conversation, Message
from moa_cli.core.errors import ContextTooLong
from moa_cli.core.tokens import estimate_tokens, prompt_tokens
from moa_cli.engine.prompts import Reference, fence_of, messages_for, text_of
from moa_cli.profile import ModelSettings, Profile

_ANSWER_TOKENS = 1024
# Fewer say nothing.
_FEWEST_TOKENS = 64
# Estimates may be that much too low.
_MARGIN = 1.1
_CUT = " […]"


@dataclass(frozen=True)
class Fitted:
    """What a model is sent, and about how many tokens that is.

    kept: tokens left of each reference that was cut, None if none was.
    """

    messages: tuple[Message, ...]
    tokens: int
    kept: int | None = None


def fit(
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    references: Sequence[Reference],
    context: int | None,
) -> Fitted:
    """What the model is sent, cut to `context` (tokens of prompt and answer; None: unknown).

    Raises ContextTooLong where the prompt does not fit, or too little of the references.
    """
    # Of the whole references: a model that is given shorter ones is given the same mark.
    fence = fence_of(references) if profile.reference_format == "fenced" else None
    messages = messages_for(profile, settings, conversation, references, fence)
    needed = prompt_tokens(messages)
    if context is None:
        return Fitted(messages, needed)
    room = int((context - (settings.max_tokens or min(_ANSWER_TOKENS, context // 4))) / _MARGIN)
    if needed <= room:
        return Fitted(messages, needed)
    texts = [text_of(reference) for reference in references]
    lengths = [estimate_tokens(text) for text in texts]
    kept = _share(lengths, room - (needed - sum(lengths)))
    if kept < _FEWEST_TOKENS:
        answer = f"up to {settings.max_tokens:,}" if settings.max_tokens else "any length"
        raise ContextTooLong(
            f"the prompt (about {needed:,} tokens) and an answer of {answer} do not fit its"
            f" context of {context:,}",
            hint="begin a new conversation, lower max_tokens, or use a model with more context",
        )
    cut = [
        _shortened(reference, _cut(text, kept)) if length > kept else reference
        for reference, text, length in zip(references, texts, lengths, strict=True)
    ]
    messages = messages_for(profile, settings, conversation, cut, fence)
    return Fitted(messages, prompt_tokens(messages), kept)


def _shortened(reference: Reference, text: str) -> Reference:
    return text if isinstance(reference, str) else replace(reference, text=text)


def _share(lengths: Sequence[int], room: int) -> int:
    """The most tokens that each may have so that all together have room; below 1 if none may."""
    left = room
    for place, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - place)
        if share < length:
            return share
        left -= length
    return 0


def _cut(text: str, tokens: int) -> str:
    """The beginning of `text`, of about so many tokens, to the end of a word."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[:middle]) <= tokens - 2:
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    return (head.rsplit(None, 1)[0] if " " in head.strip() else head).rstrip() + _CUT

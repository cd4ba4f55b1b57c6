"""Fitting a prompt to its model's context.

The room for a prompt is the context without the answer (see `engine.history`). If the prompt and
its references do not fit, all references get the same limit of tokens, and longer ones are cut at
their end. If the limit would be too low, the model is not asked. The prompt itself is never cut.
`engine.history` leaves out earlier turns.

If an endpoint still refuses a prompt as too long, references are cut further. If that is not
enough, the oldest messages are left out. This happens once for each call, and the user is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moa_cli.core.conversation import Conversation, Message
from moa_cli.core.errors import ContextTooLong
from moa_cli.core.frozen import quickly_made
from moa_cli.core.tokens import estimate_tokens, extra_tokens, prompt_tokens
from moa_cli.engine.history import usable_room, without_oldest
from moa_cli.engine.prompts import Reference, fence_of, messages_for, text_of
from moa_cli.profile import ModelSettings, Profile

# The least number of tokens that a cut reference keeps, as a shorter text says too little; and more
# than any context has.
_FEWEST_TOKENS, _MOST_TOKENS = 64, 20_000_000
_CUT = " […]"
# After a refused prompt, the next one is at most _SAFE of the size that the endpoint seems to take,
# because our estimates of tokens may be too low. If the error tells no size, it is _HALF as long as
# the refused one.
_SAFE, _HALF = 0.85, 0.5
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?![\w.]\d)|(?<![\w.])\d+(?![\w.]\d)")


@quickly_made
@dataclass(frozen=True)
class Fitted:
    """What a model is sent, and about how many tokens that is.

    kept: the tokens that each cut reference still has; None if no reference was cut. context: the
    context in tokens that the prompt was cut for; None if it was not cut. left_out: the number of
    earlier messages that are not sent.
    """

    messages: tuple[Message, ...]
    tokens: int
    kept: int | None = None
    context: int | None = None
    left_out: int = 0


def fit(
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    references: Sequence[Reference],
    context: int | None,
) -> Fitted:
    """What the model is sent, cut to `context` (tokens of prompt and answer; None: unknown).

    Raises ContextTooLong if the prompt does not fit, or if its references would be cut too short.
    """
    messages = messages_for(profile, settings, conversation, references)
    needed = prompt_tokens(messages) + extra_tokens(settings.extra)
    if context is None or needed <= usable_room(settings, context):
        return Fitted(messages, needed)
    room = usable_room(settings, context)
    fitted = _fit_to(room, context, profile, settings, conversation, references)
    if fitted is None:
        answer = f"up to {settings.max_tokens:,}" if settings.max_tokens else "any length"
        raise ContextTooLong(
            f"the prompt (about {needed:,} tokens) and an answer of {answer} do not fit its"
            f" context of {context:,}",
            hint="shorten the prompt, lower max_tokens, or use a model with more context",
        )
    return fitted


def shrink(
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    references: Sequence[Reference],
    error: ContextTooLong,
) -> Fitted | None:
    """A shorter prompt than the one that an endpoint refused with `error`; None if there is none.

    The two largest numbers in the error's message are taken as the context and the request ("…
    context length is 8192 tokens, however you requested 9000 …"), and their ratio tells how far to
    cut. Larger numbers than any context are dates or the ids of requests. Without two numbers, the
    prompt is cut to half.
    """
    answer = settings.max_tokens or 0
    needed = prompt_tokens(messages_for(profile, settings, conversation, references))
    needed += extra_tokens(settings.extra)
    numbers = {int(number.replace(",", "")) for number in _NUMBER.findall(error.message)}
    told = sorted(number for number in numbers if number <= _MOST_TOKENS)
    share = _HALF
    if len(told) > 1 and told[-2] >= _FEWEST_TOKENS:
        share = min(max(told[-2] / told[-1] * _SAFE, 1 - _SAFE), _SAFE)
    room = int((needed + answer) * share) - answer
    if room < needed * (1 - _SAFE):
        room = needed // 2
    left_out, rest = 0, conversation
    while True:
        fitted = _fit_to(room, room + answer, profile, settings, rest, references)
        if fitted is not None:
            return replace(fitted, context=room + answer, left_out=left_out)
        rest, dropped = without_oldest(rest)
        if not dropped:
            return None
        left_out += dropped


def _fit_to(
    room: int,
    context: int,
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    references: Sequence[Reference],
) -> Fitted | None:
    """What the model is sent, with its references cut so that the whole prompt has at most `room`
    tokens; None if that is not possible."""
    # The mark is made of the whole references, so that it is the same for all models of a layer,
    # whether their references are cut or not.
    fence = fence_of(references) if profile.reference_format == "fenced" else None
    messages = messages_for(profile, settings, conversation, references, fence)
    beside = extra_tokens(settings.extra)
    needed = prompt_tokens(messages) + beside
    if needed <= room:
        return Fitted(messages, needed)
    texts = [text_of(reference) for reference in references]
    lengths = [estimate_tokens(text) for text in texts]
    kept = _share(lengths, room - (needed - sum(lengths)))
    if kept < _FEWEST_TOKENS:
        return None
    cut = [
        _shortened(reference, _cut(text, kept)) if length > kept else reference
        for reference, text, length in zip(references, texts, lengths, strict=True)
    ]
    messages = messages_for(profile, settings, conversation, cut, fence)
    return Fitted(messages, prompt_tokens(messages) + beside, kept, context)


def _shortened(reference: Reference, text: str) -> Reference:
    return text if isinstance(reference, str) else replace(reference, text=text)


def _share(lengths: Sequence[int], room: int) -> int:
    """The highest limit for each of the lengths with which they fit `room` together; below 1 if
    there is none."""
    left = room
    for place, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - place)
        if share < length:
            return share
        left -= length
    return 0


def _cut(text: str, tokens: int) -> str:
    """The beginning of `text`, about `tokens` long, cut at the end of a word."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate_tokens(text[:middle]) <= tokens - 2:
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    return (head.rsplit(None, 1)[0] if " " in head.strip() else head).rstrip() + _CUT

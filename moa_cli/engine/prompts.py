"""The Aggregate-and-Synthesize prompt, and where it goes.

Source of the text: "Mixture-of-Agents Enhances Large Language Model Capabilities"
(arXiv:2406.04692), Table 1; of its placement: the authors' reference implementation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from moa_cli.clients.thinking import late_reasoning
from moa_cli.core.conversation import Conversation, Message
from moa_cli.profile import ModelSettings, Placement, Profile

AGGREGATE_AND_SYNTHESIZE = """\
You have been provided with a set of responses from various open-source models to the latest \
user query. Your task is to synthesize these responses into a single, high-quality response. \
It is crucial to critically evaluate the information provided in these responses, recognizing \
that some of it may be biased or incorrect. Your response should not simply replicate the given \
answers but should offer a refined, accurate, and comprehensive reply to the instruction. Ensure \
your response is well-structured, coherent, and adheres to the highest standards of accuracy and \
reliability.

Responses from models:"""

_THINKING = re.compile(r"(?:\s*<think>.*?(?:</think>|\Z))+", re.DOTALL)


def strip_reasoning(text: str) -> str:
    """`text` without the reasoning it opens with (`<think>…</think>`), and stripped.

    Some chat templates put `<think>` into the prompt, so that an answer holds only its end; see
    `late_reasoning`.
    """
    opened = _THINKING.match(text)
    if opened:
        return text[opened.end() :].strip()
    late = late_reasoning(text)
    return text.strip() if late is None else late[1].strip()


def references_text(references: Sequence[str]) -> str:
    """The prompt with `references` numbered from 1, without model names."""
    numbered = "".join(
        f"\n{number}. {strip_reasoning(reference)}"
        for number, reference in enumerate(references, 1)
    )
    return AGGREGATE_AND_SYNTHESIZE + numbered


def with_references(
    messages: Sequence[Message], references: Sequence[str], placement: Placement = "system"
) -> tuple[Message, ...]:
    """`messages` with the references put before the model; unchanged if there are none.

    placement "system": after a blank line in the first message if that is a system message,
    else as a new system message before all. "user": after a blank line at the end of the last
    message, so that all before it stays byte-identical from turn to turn.
    """
    if not references:
        return tuple(messages)
    text = references_text(references)
    if placement == "user":
        last = messages[-1]
        return (*messages[:-1], Message(last.role, f"{last.content}\n\n{text}"))
    if messages and messages[0].role == "system":
        first = messages[0]
        return (Message("system", f"{first.content}\n\n{text}"), *messages[1:])
    return (Message("system", text), *messages)


def messages_for(
    profile: Profile,
    settings: ModelSettings,
    conversation: Conversation,
    references: Sequence[str] = (),
) -> tuple[Message, ...]:
    """What a model is sent: system prompt, history (if multi_turn), prompt, and references.

    A model's own system prompt replaces any other; the profile's yields to one that the
    conversation begins with.
    """
    messages = list(conversation.messages())
    led = bool(messages) and messages[0].role == "system"
    if not profile.multi_turn:
        messages = [*(messages[:1] if led else []), messages[-1]]
    own = settings.system is not None and settings.system != profile.system
    if led and own:
        del messages[0]
    if settings.system and (own or not led):
        messages.insert(0, Message("system", settings.system))
    return with_references(messages, references, profile.reference_placement)

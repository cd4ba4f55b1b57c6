"""The messages of a conversation as lines that can be brought back, edited and sent again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moa_cli.core.conversation import Conversation, Part, Turn
from moa_cli.core.errors import UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.chat.keeping import SavedConversation
    from moa_cli.chat.session import Session


@dataclass(frozen=True)
class Recalled:
    """A line that can be brought back. number: that of the message of this conversation which it
    is, counted from 1; None if it is none."""

    text: str
    number: int | None = None


def recalled(
    typed: Iterable[str], messages: Sequence[str], others: Iterable[str]
) -> list[Recalled]:
    """The lines to bring back, the latest first: those of this conversation before all others.

    typed: what was typed since this process holds the conversation, commands included; the latest
    first. messages: all messages of the conversation, in order. others: what was typed elsewhere,
    the latest first.
    """
    left = list(enumerate(messages, 1))
    found: list[Recalled] = []
    for text in typed:
        sent = text[1:] if text.startswith("//") else text
        place = next((n for n in reversed(range(len(left))) if left[n][1] == sent.strip()), None)
        found.append(Recalled(text, None if place is None else left.pop(place)[0]))
    found += [Recalled(line_of(text), number) for number, text in reversed(left)]
    texts = {line.text for line in found}
    return found + [Recalled(text) for text in others if text not in texts]


def line_of(text: str) -> str:
    """The line that sends this text: one that begins with a slash would be a command."""
    return f"/{text}" if text.startswith("/") else text


def message_text(turn: Turn) -> str:
    """What the user typed of a message, with the texts that were attached to it."""
    texts = [part.text for part in turn.parts if part.kind == "text"]
    return "\n\n".join(texts) if turn.parts else turn.user


def edited_message(
    turn: Turn, text: str, parts: Sequence[Part] = ()
) -> tuple[str, tuple[Part, ...]]:
    """Another text in place of a message's own, with its images and files. Raises UsageError.

    parts: all parts of the new message, if there are others than text.
    """
    held = [*parts] or [Part("text", text)]
    files = [part for part in turn.parts if part.kind != "text" and part not in held]
    if not files:
        return text, tuple(parts)
    from moa_cli.core.attachments import prompt_of

    return prompt_of([*held, *files])


def message(session: Session, number: int) -> Turn:
    """The turn of that message, counted from 1. Raises UsageError if there is none."""
    asked = session.asked()
    if not 1 <= number <= len(asked):
        hint = f"there {'is' if len(asked) == 1 else 'are'} {plural(len(asked), 'message')}"
        raise UsageError(f"there is no message {number}", hint=hint)
    return asked[number - 1]


def fork_before(session: Session, kept: SavedConversation, number: int) -> str:
    """Go on in a copy that ends before a message, and say so in a sentence. The conversation so far
    stays as it is.

    number: that of the message, counted from 1. Raises UsageError if there is none, StoreError.
    """
    turn = message(session, number)
    before = kept.id
    if kept.store is None or before is None or turn.stored_as is None:
        turns = session.conversation.turns[: number - 1]
        session.go_on(replace(session.conversation, turns=turns))
        return f"message {number} and all behind it are left out; they are not saved"
    stays = f"{before} stays as it is"
    if number == 1:
        # A copy without a turn would have the title of the old first message.
        kept.begin_anew()
        session.go_on(Conversation())
        return f"a new conversation; {stays}"
    session.go_on(kept.fork(turn.stored_as))
    return f"a copy that ends before message {number}: {kept.id}; {stays}"

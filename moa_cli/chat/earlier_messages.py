"""The messages of a conversation, as lines that the user can bring back, edit and send again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from prompt_toolkit.auto_suggest import AutoSuggest, Suggestion
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document

from moa_cli.chat.keeping import SavedConversation
from moa_cli.chat.session import Session
from moa_cli.core.conversation import Conversation, Part, Turn, text_of_parts
from moa_cli.core.errors import UsageError
from moa_cli.core.files.attachments import prompt_of, with_texts_folded, with_texts_whole
from moa_cli.core.text import plural


@dataclass(frozen=True)
class Recalled:
    """A line that can be brought back. number: of the message of this conversation that it was sent
    as, from 1; None if the line is no message."""

    text: str
    number: int | None = None


def recalled(
    typed: Iterable[str], messages: Sequence[str], others: Iterable[str]
) -> list[Recalled]:
    """The lines to bring back, the latest first. Lines of this conversation come before all others.

    typed: the lines typed in this conversation and process, including commands; the latest first.
    messages: all messages of the conversation, in order. others: lines typed elsewhere, the latest
    first.
    """
    left = list(enumerate(messages, 1))
    found: list[Recalled] = []
    for text in typed:
        sent = text[1:] if text.startswith("//") else text
        place = next(
            (n for n in reversed(range(len(left))) if _is_message(sent.strip(), left[n][1])), None
        )
        found.append(Recalled(text, None if place is None else left.pop(place)[0]))
    found += [Recalled(line_of(shown_message(text)), number) for number, text in reversed(left)]
    texts = {line.text for line in found}
    return found + [Recalled(text) for text in others if text not in texts]


def _is_message(typed: str, message: str) -> bool:
    """Whether the typed line was sent as this message, to which files may have been added."""
    shown = shown_message(message)
    return typed in (message, shown) or shown.startswith(f"{typed}\n\n[attached: ")


class SuggestEarlierLine(AutoSuggest):
    """Suggests the latest earlier line that begins like the typed line.

    prompt-toolkit's own `AutoSuggestFromHistory` does the same, but searches all lines again at
    each key. Here the search goes on from the place where it ended at the key before: a line that
    did not match the shorter text cannot match the longer one. So for each typed line, all earlier
    lines are searched only once.

    offered: returns the earlier prompts, the latest first; a new list if they have changed.
    """

    def __init__(self, offered: Callable[[], Sequence[Recalled]]) -> None:
        self._offered = offered
        self._searched: Sequence[Recalled] = ()
        self._left: Iterator[str] = iter(())
        self._typed = ""
        self._line = ""

    def get_suggestion(self, buffer: Buffer, document: Document) -> Suggestion | None:
        typed = document.text.rsplit("\n", 1)[-1]
        if not typed.strip():
            return None
        offered = self._offered()
        if offered is not self._searched or not typed.startswith(self._typed or "\n"):
            self._searched, self._line = offered, ""
            # Of each prompt, the last line comes first.
            self._left = (line for each in offered for line in reversed(each.text.splitlines()))
        self._typed = typed
        if not self._line.startswith(typed):
            self._line = next((line for line in self._left if line.startswith(typed)), "")
        return Suggestion(self._line[len(typed) :]) if self._line else None


def line_of(text: str) -> str:
    """The line that sends this text. A text that begins with a slash gets a second one, because the
    line would be a command otherwise."""
    return f"/{text}" if text.startswith("/") else text


def message_text(turn: Turn) -> str:
    """The typed part of a message, with the texts that were attached to it."""
    texts = [part.text for part in turn.parts if part.kind == "text"]
    return "\n\n".join(texts) if turn.parts else turn.user


def shown_message(text: str) -> str:
    """A message for the screen or for editing: a line replaces each text file."""
    return with_texts_folded(text)[0]


class TextFiles:
    """The text files of earlier messages, by the lines that replace them in a text to edit."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}

    def learn(self, turns: Iterable[Turn]) -> None:
        """Remember the text files of these messages."""
        for turn in turns:
            self._held |= with_texts_folded(message_text(turn))[1]

    def put_back(
        self, prompt: str, parts: Sequence[Part], more: Turn | None = None
    ) -> tuple[str, tuple[Part, ...]]:
        """A prompt and its parts, with the text files in place of their lines.

        more: a message whose files are also added, because the edited line does not show them.
        """
        lines = [] if more is None else with_texts_folded(message_text(more))[1]
        added = "".join(f"\n\n{line}" for line in lines)
        if not parts:
            return with_texts_whole(prompt + added, self._held), ()
        whole = []
        for part in parts:
            if part.kind == "text":
                part = replace(part, text=with_texts_whole(part.text + added, self._held))
                added = ""
            whole.append(part)
        return text_of_parts(whole), tuple(whole)


def edited_message(
    turn: Turn, text: str, parts: Sequence[Part] = ()
) -> tuple[str, tuple[Part, ...]]:
    """A message with a new text, and with the images and files of the old one. Raises UsageError if
    the images are too large.

    turn: of the old message. parts: all parts of the new message, if not all of them are text.
    """
    held = [*parts] or [Part("text", text)]
    files = [part for part in turn.parts if part.kind != "text" and part not in held]
    if not files:
        return text, tuple(parts)
    return prompt_of([*held, *files])


def message(session: Session, number: int) -> Turn:
    """The turn of the message with that number, from 1. Raises UsageError if there is none."""
    asked = session.asked()
    if not 1 <= number <= len(asked):
        hint = f"there {'is' if len(asked) == 1 else 'are'} {plural(len(asked), 'message')}"
        raise UsageError(f"there is no message {number}", hint=hint)
    return asked[number - 1]


def fork_before(session: Session, kept: SavedConversation, number: int) -> str:
    """Go on in a copy of the conversation that ends before a message. Returns a sentence about it.
    The conversation itself does not change.

    number: of the message, from 1. Raises UsageError if there is no such message, StoreError if the
    copy cannot be stored.
    """
    turn = message(session, number)
    before = kept.id
    if kept.store is None or before is None or turn.stored_as is None:
        turns = session.conversation.turns[: number - 1]
        session.go_on(replace(session.conversation, turns=turns))
        return f"message {number} and all later ones are left out; they are not saved"
    stays = f"{before} stays as it is"
    if number == 1:
        # A copy without a turn would have the title of the old first message.
        kept.begin_anew()
        session.go_on(Conversation())
        return f"a new conversation; {stays}"
    session.go_on(kept.fork(turn.stored_as))
    return f"a copy that ends before message {number}: {kept.id}; {stays}"

"""Exports conversations to a file: Markdown, a web page, or JSON that can be imported again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moa_cli.core.errors import UsageError

if TYPE_CHECKING:
    from moa_cli.core.conversation import KeptConversation
    from moa_cli.store.reading import Reader

Format = Literal["md", "json", "html"]
_BY_SUFFIX: dict[str, Format] = {".json": "json", ".html": "html", ".htm": "html"}
_OF_TEXTS = ("", ".md", ".markdown", ".txt", ".text")


def format_of(path: Path | None) -> Format:
    """The format for the name of a file; Markdown for no name, and for the suffix of a text. Raises
    UsageError if the suffix is that of another format."""
    suffix = path.suffix.lower() if path else ""
    # What follows a dot may also be the end of a date, or of a number.
    if suffix not in (*_BY_SUFFIX, *_OF_TEXTS) and suffix[1:].isalnum() and suffix[1].isalpha():
        raise UsageError(
            f"{path}: conversations are not written as {suffix}",
            hint=".md is Markdown, .html a web page, .json can be imported again",
        )
    return _BY_SUFFIX.get(suffix, "md")


@dataclass(frozen=True)
class Contents:
    """What the turns of conversations contain beside texts. The head of an export needs this before
    the turns are read. parts: images, files, a speaker or tool calls. summaries: summaries of
    earlier turns. attempts: turns that failed to replace the reply of an earlier one."""

    tags: bool = False
    parts: bool = False
    summaries: bool = False
    attempts: bool = False

    @classmethod
    def stored(cls, store: Reader, identities: Sequence[str] | None) -> Contents:
        """The contents of these conversations in a store (None: of all). No conversation is read
        for this."""
        return cls(
            tags=store.tagged(identities),
            parts=store.has_parts(identities),
            summaries=store.has_summaries(identities),
            attempts=store.has_attempts(identities),
        )

    @classmethod
    def of(cls, conversation: KeptConversation) -> Contents:
        """The contents of a conversation in memory."""
        turns = [kept.turn for kept in conversation.turns]
        return cls(
            tags=bool(conversation.tags),
            parts=any(turn.parts or turn.speaker or turn.tool_calls for turn in turns),
            summaries=any(turn.summary_so_far for turn in turns),
            attempts=any(turn.asks_again for turn in turns),
        )


def written(
    conversations: Iterable[KeptConversation],
    format_: Format,
    contents: Contents,
    *,
    proposals: bool = False,
) -> Iterator[str]:
    """The text of a file, in pieces. conversations: read once, one after the other. proposals:
    whether Markdown includes each answer of each layer; a web page and JSON always do."""
    if format_ == "json":
        from moa_cli.store.archive import text_of

        return text_of(
            conversations,
            tagged=contents.tags,
            parts=contents.parts,
            summaries=contents.summaries,
            attempts=contents.attempts,
        )
    if format_ == "html":
        from moa_cli.documents.html import page

        return page(conversations, images=contents.parts)
    from moa_cli.documents.markdown import document

    return document(conversations, proposals=proposals)

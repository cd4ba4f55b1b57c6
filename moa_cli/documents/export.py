"""Conversations as a file: Markdown, a web page, or JSON that can be imported again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from moa_cli.core.conversation import KeptConversation
    from moa_cli.store.reading import Reader

Format = Literal["md", "json", "html"]
_BY_SUFFIX: dict[str, Format] = {".json": "json", ".html": "html", ".htm": "html"}


def format_of(path: Path | None) -> Format:
    """The format that the name of a file asks for; Markdown for any other name, and for none."""
    return _BY_SUFFIX.get(path.suffix.lower() if path else "", "md")


@dataclass(frozen=True)
class Contents:
    """What the turns of conversations hold beside texts, which the head of their file tells. parts:
    images, files, a speaker or calls of tools. summaries: of the turns before."""

    tags: bool = False
    parts: bool = False
    summaries: bool = False

    @classmethod
    def stored(cls, store: Reader, identities: Sequence[str] | None) -> Contents:
        """Of these conversations in a store (None: of all), of which none is read for it."""
        return cls(
            tags=store.tagged(identities),
            parts=store.has_parts(identities),
            summaries=store.has_summaries(identities),
        )

    @classmethod
    def of(cls, conversation: KeptConversation) -> Contents:
        """Of a conversation that is in memory."""
        turns = [kept.turn for kept in conversation.turns]
        return cls(
            tags=bool(conversation.tags),
            parts=any(turn.parts or turn.speaker or turn.tool_calls for turn in turns),
            summaries=any(turn.summary_so_far for turn in turns),
        )


def written(
    conversations: Iterable[KeptConversation],
    format_: Format,
    contents: Contents,
    *,
    proposals: bool = False,
) -> Iterator[str]:
    """The text of a file, in pieces. conversations: they are read once, one after the other.
    proposals: whether Markdown has each answer of each layer; a web page and JSON always have."""
    if format_ == "json":
        from moa_cli.store.archive import text_of

        return text_of(
            conversations,
            tagged=contents.tags,
            parts=contents.parts,
            summaries=contents.summaries,
        )
    if format_ == "html":
        from moa_cli.documents.html import page

        return page(conversations, images=contents.parts)
    from moa_cli.documents.markdown import document

    return document(conversations, proposals=proposals)

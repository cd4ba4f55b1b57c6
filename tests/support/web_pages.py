"""Web pages, and conversations that say a text wherever they can."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from moa_cli.core.conversation import Failure, KeptConversation, KeptTurn, Proposal, Turn, Usage
from moa_cli.documents.html import page

__all__ = ["Page", "closed", "everywhere", "html"]


def everywhere(text: str) -> KeptConversation:
    """A conversation that says `text` wherever a conversation can."""
    failure = Failure("X", text, text)
    usage = Usage(1, 1, calls=1)
    proposal = Proposal(1, 0, text, text, text, text, text, usage, finish_reason=text)
    lost = Proposal(2, 0, text, text, text, error=failure)
    turn = Turn(
        user=text,
        reply=text,
        status="failed",
        profile=text,
        proposals=((proposal,), (lost,)),
        model=text,
        answered_by=text,
        reasoning=text,
        finish_reason=text,
        usage=usage,
        lost=(text,),
        error=failure,
        causes=(failure,),
    )
    return KeptConversation("2345678923", text, text, 1e9, 1e9, (KeptTurn(turn, 0.0, text),) * 2)


def html(*conversations: KeptConversation) -> str:
    return "".join(page(conversations))


class Page(HTMLParser):
    """What a page is made of; it fails on what is not closed, or closed without being open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "hr"):
            assert not (tag == "a" and "a" in self._open)
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("br", "hr")
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def closed(text: str) -> str:
    """The page with SVG's empty elements closed as HTML's are."""
    return re.sub(r"<(line|rect|circle|polygon|polyline)\b([^>]*)/>", r"<\1\2></\1>", text)

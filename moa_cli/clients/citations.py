"""Reads the sources that an endpoint names for an answer, in the shapes of different providers.

Perplexity sends `citations` (addresses, in the order of the numbers in the text) and
`search_results` (with titles) with every chunk; xAI sends `citations` with the last one; OpenRouter
and OpenAI's search models put `annotations` into the delta or the message; Z.ai sends `web_search`,
Groq `executed_tools`, and Gemini's own form is `groundingMetadata`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moa_cli.core.conversation import Citation

_MOST = 50
# In characters. A longer address is left out, because a cut address leads nowhere; a title is cut.
_LONGEST_URL, _LONGEST_TITLE = 2000, 300
# Fields with the sources that the answer cites, and fields with search results.
_CITED = ("citations", "annotations")
_FOUND = ("search_results", "web_search", "executed_tools", "groundingMetadata")
# Fields inside an item that hold a source, or a list of sources.
_INNER = (
    *("url_citation", "web"),
    *("search_results", "results", "groundingChunks"),
)


class CitationReader:
    """The citations of one answer that have arrived so far."""

    def __init__(self) -> None:
        self._raw: dict[str, object] = {}
        self._cited: dict[str, str] = {}
        self._found: dict[str, str] = {}

    def take(self, holder: Mapping[str, Any]) -> bool:
        """Read the sources in a chunk, a choice, a delta or a message; returns whether something
        changed."""
        before: tuple[Citation, ...] | None = None
        for names, known in ((_CITED, self._cited), (_FOUND, self._found)):
            for name in names:
                raw = holder.get(name)
                # Unchanged values are skipped: Perplexity repeats all sources with every token.
                if raw and isinstance(raw, list | dict) and raw != self._raw.get(name):
                    before = self.citations if before is None else before
                    self._raw[name] = raw
                    _add(raw, known)
        return before is not None and self.citations != before

    @property
    def citations(self) -> tuple[Citation, ...]:
        """Each address once, in the order of arrival. Search results are used only if no field
        names cited sources; otherwise they only supply titles."""
        named = self._cited or self._found
        return tuple(
            Citation(url, title or self._found.get(url, "")) for url, title in named.items()
        )


def _add(raw: object, known: dict[str, str]) -> None:
    for url, title in _sources(raw, 0):
        if url in known:
            known[url] = known[url] or title
        elif len(known) < _MOST:
            known[url] = title


def _sources(raw: object, depth: int) -> Iterator[tuple[str, str]]:
    """Addresses and titles in a field, however it holds them."""
    if isinstance(raw, list):
        for item in raw:
            if isinstance(item, str | dict):
                yield from _sources(item, depth)
    elif isinstance(raw, str):
        url = raw.strip()
        if url and len(url) <= _LONGEST_URL:
            yield url, ""
    elif isinstance(raw, dict) and depth < len(_INNER):
        address = next((raw[key] for key in ("url", "uri", "link") if raw.get(key)), None)
        if isinstance(address, str):
            title = raw.get("title")
            told = " ".join(title.split())[:_LONGEST_TITLE] if isinstance(title, str) else ""
            yield from ((found, told) for found, _ in _sources(address, depth))
        for key in _INNER:
            inner = raw.get(key)
            if isinstance(inner, list | dict):
                yield from _sources(inner, depth + 1)

"""Untrusted Markdown as harmless HTML: without scripts, images, or links of other schemes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from moa_cli.core.sanitize import sanitize
from moa_cli.markdown.syntax import keep_surplus_cells

_ADDRESS = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)
# Longer code is not highlighted, because some lexers are slow on text that is not code.
_LONGEST_COLORED = 50_000
_LONGEST_COLORED_LINE = 2000
# Headings of a reply sink by this many levels, below those of the page.
_DEEPER = 2


def prose(text: str) -> str:
    """The HTML of an untrusted Markdown text. HTML in it is shown as text. Links lead only to http,
    https and mailto addresses; images become links."""
    parser = _parser()
    tokens = parser.parse(sanitize(text))
    _tame(tokens)
    html: str = parser.renderer.render(tokens, parser.options, {})
    return html


def _tame(tokens: Sequence[Token]) -> None:
    """Sanitize text that an entity or a percent escape may have hidden, and lower the headings."""
    in_link = 0
    for token in tokens:
        token.content = sanitize(token.content)
        token.attrs = {
            key: sanitize(value) if isinstance(value, str) else value
            for key, value in token.attrs.items()
        }
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + _DEEPER)}"
        in_link += (token.type == "link_open") - (token.type == "link_close")
        if token.type == "image":
            token.meta["in link"] = bool(in_link)
        _tame(token.children or ())


class _HtmlParser(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        return bool(_ADDRESS.match(url))

    def normalizeLinkText(self, link: str) -> str:
        # The inherited method decodes percent escapes, so the text shown would differ from the
        # address.
        return link


class _Renderer(RendererHTML):
    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _link(str(tokens[idx].attrs.get("href", "")))

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        image = tokens[idx]
        shown = self.renderInlineAsText(image.children, options, env)
        address = str(image.attrs.get("src", ""))
        label = escape(sanitize(shown).strip() or address)
        return label if image.meta.get("in link") else f"{_link(address)}{label}</a>"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return '<div class="wide"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        words = tokens[idx].info.split()
        return _code(tokens[idx].content, sanitize(words[0]) if words else "")

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _code(tokens[idx].content, "")


def _link(address: str) -> str:
    return f'<a href="{escape(address)}" rel="noopener noreferrer nofollow">'


def _code(code: str, language: str) -> str:
    label = f"<figcaption>{escape(language)}</figcaption>" if language else ""
    shown = _colored(code, language) or escape(code)
    # HTML drops a line end right after <pre>, so the code follows the tag directly.
    return f'<figure class="code">{label}<pre><code>{shown}</code></pre></figure>\n'


def _colored(code: str, language: str) -> str:
    """The code with Pygments' classes; empty if it should not be coloured."""
    if not language or len(code) > _LONGEST_COLORED:
        return ""
    if max(map(len, code.split("\n"))) > _LONGEST_COLORED_LINE:
        return ""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return ""
    return highlight(code, lexer, HtmlFormatter(nowrap=True))


@cache
def _parser() -> MarkdownIt:
    options = {"html": False, "linkify": False, "maxNesting": 50}
    made = _HtmlParser("commonmark", options, renderer_cls=_Renderer)
    keep_surplus_cells(made)
    return made.enable(["table", "strikethrough"])

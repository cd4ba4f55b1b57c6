"""The Markdown that replies are written in: CommonMark, tables, strikethrough, math, addresses.

Math is text between marks of TeX (`$…$`, `$$…$$`, `\\(…\\)`, `\\[…\\]`). It is not changed and
keeps its marks, because text in it that looks like emphasis or a list is none. An address in a text
becomes a link, and text in it is not emphasis either.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.ruler import RuleOptionsType
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

# In characters. Inline math is at most this long, so that the search for the partner of a lone `$`
# ends.
LONGEST_MATH = 1000

_CHARACTERS = rf"(?:\\[^\n]|[^`$\\\n]){{1,{LONGEST_MATH}}}"
# In `$…$`, there is no space after the opening mark or before the closing one, and no word follows.
# So `$5 and $6` are prices.
_DOLLARS = re.compile(rf"\$\$(?!\s){_CHARACTERS}\$\$|\$(?!\s){_CHARACTERS}(?<!\s)\$(?![\w$])")
_PARENTHESES = re.compile(rf"\\\([^`]{{1,{LONGEST_MATH}}}?\\\)")
_BRACKETS = re.compile(rf"\\\[([^`]{{1,{LONGEST_MATH}}}?)\\\]")
_MATH = re.compile(f"{_DOLLARS.pattern}|{_PARENTHESES.pattern}|{_BRACKETS.pattern}")
_OPENING_MATH = re.compile(r"\\[(\[]|\$(?!\s)")
# Text in `\[…\]` is math only if it contains one of these; `\[1\]` is just escaped brackets.
_MATHEMATICAL = re.compile(r"[\\=^_{}&+*/<>|]|^\s")
# A line that opens math without closing it must contain one of these.
_FORMULA = re.compile(r"[\\=^_{}&]")
_DISPLAY = re.compile(r"(\$\$|\\\[)(.*)", re.DOTALL)
_CLOSING = {"$$": "$$", "\\[": "\\]"}
_AFTER_DISPLAY = " \t.,;:"
_FENCE_MARKS = ("```", "~~~")

_SCHEME = re.compile(r"(?<![\w.+-])https?\Z", re.IGNORECASE)
# Ends before typographic quotes and the punctuation of CJK, which follow addresses without a space.
_ADDRESS = re.compile(
    r"://[0-9A-Za-z\[][^\s<>`\\/?#\u2018-\u201f\u3000-\u3020\uff01-\uff0f\uff1a-\uff20]*"
    r"(?:[/?#][^\s<>`\\\u2018-\u201f\u3000-\u3020\uff01-\uff0f\uff1a-\uff20]*)?"
)
_CLOSED_BY = {")": "(", "]": "[", "}": "{"}
_CELL_END = re.compile(r"(?<!\\)\|")


class _Parser(MarkdownIt):
    def normalizeLinkText(self, link: str) -> str:
        # The inherited method decodes percent escapes, and could so produce control sequences.
        return link


@functools.cache
def parser(*, inline: bool) -> MarkdownIt:
    """Return the parser for all replies. Without `inline`, it only finds the blocks, and does not
    parse their text."""
    options = {"html": False, "maxNesting": 50, "store_labels": True}
    made = _Parser("commonmark", options)
    made.enable(["table", "strikethrough"])
    interrupts: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    made.block.ruler.before("fence", "math_block", _math_block, interrupts)
    made.inline.ruler.before("escape", "math", _math)
    made.inline.ruler.before("escape", "address", _address)
    keep_surplus_cells(made)
    return made if inline else made.disable("inline")


def keep_surplus_cells(parser: MarkdownIt) -> None:
    """Keep all text in the rows of tables.

    The parser drops the last cells of a row that has more cells than the header. Models write such
    rows: they do not escape a bar in code (`a | b`), although it ends a cell there, too.
    """
    parser.core.ruler.after("block", "surplus_cells", _keep_surplus_cells)


def _keep_surplus_cells(state: StateCore) -> None:
    lines: list[str] = []
    cells: list[Token] = []
    for token in state.tokens:
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline":
            cells.append(token)
        elif token.type == "tr_close" and cells and cells[0].map:
            lines = lines or state.src.split("\n")
            texts = _cells(lines[cells[0].map[0]], len(cells))
            for cell, text in zip(cells, texts, strict=False):
                cell.content = text


def _cells(line: str, count: int) -> list[str]:
    """The texts of a row with more than `count` cells, joined to `count` cells; an empty list for
    other rows."""
    # In a quote, the marks of the quote stand before the row.
    cells = [text.replace("\\|", "|") for text in _CELL_END.split(line.lstrip(" \t>").rstrip())]
    cells = cells[not cells[0] : len(cells) - (not cells[-1])]
    if len(cells) <= count:
        return []
    whole: list[str] = []
    for cell in cells:
        if whole and whole[-1].count("`") % 2:
            whole[-1] += f"|{cell}"
        else:
            whole.append(cell)
    cells = whole if len(whole) >= count else cells
    return [text.strip() for text in (*cells[: count - 1], "|".join(cells[count - 1 :]))]


def code_blocks(text: str) -> list[str]:
    """The blocks of code in order, including those in lists and quotes, without the indentation of
    the lists and quotes."""
    return [
        token.content.rstrip("\n")
        for token in parser(inline=False).parse(text)
        if token.type in ("fence", "code_block")
    ]


def without_math(text: str) -> str | None:
    """Return `text` without its math; None if math may still be open at its end."""
    left = _MATH.sub("", text)
    return None if _OPENING_MATH.search(left, max(0, len(left) - LONGEST_MATH)) else left


def _math_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """Find math on lines of its own, up to its closing mark, a blank line, or a fence.

    Only the first line decides whether it is math. So a later line of a growing text cannot change
    this.
    """
    if state.is_code_block(first):
        return False
    start = state.bMarks[first] + state.tShift[first]
    found = _DISPLAY.match(state.src[start : state.eMarks[first]])
    if found is None:
        return False
    closing, rest = _CLOSING[found[1]], found[2]
    place = rest.find(closing)
    closed = place > 0 and bool(rest[:place].strip())
    if closed:
        if rest[place + len(closing) :].strip(_AFTER_DISPLAY):
            return False
    elif place >= 0 or (rest.strip() and not _FORMULA.search(rest)):
        return False
    if silent:
        return True
    end = first + 1
    while not closed and end < last and not state.isEmpty(end):
        line = state.src[state.bMarks[end] + state.tShift[end] : state.eMarks[end]]
        if state.sCount[end] < state.blkIndent or line.startswith(_FENCE_MARKS):
            break
        closed = closing in line
        end += 1
    state.line = end
    token = state.push("math_block", "math", 0)
    token.content = state.getLines(first, end, state.blkIndent, False)
    token.map = [first, end]
    token.info = "closed" if closed else ""
    return True


def _math(state: StateInline, silent: bool) -> bool:
    found = None
    if state.src[state.pos] == "$":
        found = _DOLLARS.match(state.src, state.pos, state.posMax)
    elif state.src.startswith("\\(", state.pos):
        found = _PARENTHESES.match(state.src, state.pos, state.posMax)
    elif state.src.startswith("\\[", state.pos):
        found = _BRACKETS.match(state.src, state.pos, state.posMax)
        found = found if found and _MATHEMATICAL.search(found[1]) else None
    if found is None:
        return False
    if not silent:
        state.push("text", "", 0).content = found.group()
    state.pos = found.end()
    return True


def _address(state: StateInline, silent: bool) -> bool:
    """Find an address in the text. It becomes a link, as an address in angle brackets does."""
    position = state.pos
    # While the parser searches the end of a link's text, an address in it is plain text.
    if silent or state.src[position] != ":" or state.linkLevel > 0:
        return False
    scheme = _SCHEME.search(state.src, max(0, position - 6), position)
    found = _ADDRESS.match(state.src, position, state.posMax)
    if scheme is None or found is None or not state.pending.endswith(scheme.group()):
        return False
    if state.src.startswith("\\", found.end()):
        return False
    rest = _without_punctuation(found.group())
    text = (scheme.group() + rest).replace("&amp;", "&")
    target = state.md.normalizeLink(text)
    if not state.md.validateLink(target):
        return False
    state.pending = state.pending[: -len(scheme.group())]
    state.push("link_open", "a", 1).attrs = {"href": target}
    state.push("text", "", 0).content = text
    state.push("link_close", "a", -1)
    state.pos += len(rest)
    return True


def _without_punctuation(address: str) -> str:
    """Return the address without the punctuation at its end that belongs to the sentence."""
    while address:
        last = address[-1]
        opening = _CLOSED_BY.get(last)
        if opening and address.count(last) <= address.count(opening):
            break
        if not opening and last not in "?!.,:;*_~'\"|":
            break
        address = address[:-1]
    return address

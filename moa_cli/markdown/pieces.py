"""Cuts lines of Markdown into blocks. The last lines may still change."""

import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from markdown_it.token import Token

from moa_cli.markdown.syntax import parser, without_math

PIECE_ROWS = 32

# If an open block has more than twice this many characters, only its end, which is still more than
# a screen, is drawn as pending.
_PENDING = 4000
_MARK = re.compile(r"\*+|~~|`+|(?<!\w)_+|_+(?!\w)|[\[\]]")
_OPENING = re.compile(r" *(?:> ?|(?:[-+*]|\d{1,9}[.)]) +)*")
_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_DELIMITERS = re.compile(r" {0,3}[-:|][-:| \t]+")

Joint = Literal["apart", "tight", "code", "rows", "end"]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished piece of a reply: `source` is Markdown that stands on its own.

    `joint` says how it follows the block before: "apart", after a blank line; "tight", without one;
    "code", as further lines of the same fenced code; "rows", as further rows of the same table,
    whose header it repeats; "end", as the end of the reply, with the link definitions that no link
    has shown. `number` is the number of an ordered list's item.
    """

    source: str
    joint: Joint = "apart"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A block within the open lines.

    start: the line of its first token. end: the line after its last one. header: the header lines
    that have to stand before its lines, so that they are rows of a table.
    """

    block: Block
    token: Token
    start: int
    end: int
    header: tuple[str, ...] = ()


def cut_pieces(lines: list[str], head: Block) -> list[Piece]:
    """Cut `lines` into pieces. `head` says how the first piece follows the block before."""
    pieces: list[Piece] = []
    end = 0
    number: int | None = None
    first = True
    for token in parser(inline=False).parse("\n".join([*lines, ""])):
        if token.map is None:
            continue
        if token.level == 0 and token.type in ("ordered_list_open", "bullet_list_open"):
            first = True
            number = int(token.attrs.get("start", 1)) if token.tag == "ol" else None
            number = head.number if head.number is not None and not pieces else number
            continue
        item = token.type == "list_item_open" and token.level == 1
        if not item and token.level > 0:
            continue
        start, stop = token.map
        joint: Joint = "apart"
        if not pieces:
            joint = head.joint
        elif item and not first and not is_blank(lines[start - 1]):
            joint = "tight"
        header: tuple[str, ...] = ()
        if token.type == "table_open":
            for cut in range(start + 2 + PIECE_ROWS, stop, PIECE_ROWS):
                block = Block("\n".join([*header, trimmed(lines[end:cut])]), joint)
                pieces.append(Piece(block, token, start, cut, header))
                header = header or tuple(lines[start : start + 2])
                joint, start, end = "rows", cut, cut
        source = "\n".join([*header, trimmed(lines[end:stop])])
        block = Block(source, joint, number if item else None)
        pieces.append(Piece(block, token, start, stop, header))
        end = stop
        first = False
        number = None if number is None else number + 1
    return pieces


def is_closed(piece: Piece, lines: list[str]) -> bool:
    """Tell whether no further line can change the last of the pieces."""
    kind = piece.token.type
    if kind == "fence":
        last = piece.end - 1
        return last > piece.start and bool(closing_of(piece.token.markup).fullmatch(lines[last]))
    if kind == "math_block" and piece.token.info:
        return True
    if kind in ("paragraph_open", "table_open", "blockquote_open", "math_block"):
        return piece.end < len(lines)
    return kind in ("heading_open", "hr")


def place_to_cut(text: str) -> int:
    """Return the place where the last word begins; 0 if emphasis, code, a link or math may be open
    there."""
    before, space, after = text.rpartition(" ")
    # The rest must not look like the start of a list or another block, and a hard break must not be
    # lost.
    if not space or not after[:1].isalpha() or before[-1:] in ("", " ", "\\"):
        return 0
    outside = without_math(before)
    if outside is None:
        return 0
    marks = Counter(_MARK.findall(outside))
    closed = marks.pop("[", 0) == marks.pop("]", 0) and not any(n % 2 for n in marks.values())
    return len(before) if closed else 0


def end_of(lines: list[str]) -> list[str]:
    """Return the end of an open block, after the lines that decide its type.

    The start of the end moves in steps of `_PENDING`. Otherwise the text would be wrapped
    differently at each token.
    """
    excess = sum(map(len, lines)) - _PENDING
    if excess <= _PENDING or (len(lines) > 1 and _DELIMITERS.fullmatch(lines[1])):
        return lines
    excess -= excess % _PENDING
    start = 0
    while excess >= len(lines[start]):
        excess -= len(lines[start])
        start += 1
    first = lines[start]
    if len(first) > _PENDING:
        # The ellipsis keeps the rest from being parsed as the start of another block.
        first = f"{_opening(first)}…{first[excess:]}"
    return [*_around(lines[:start], first), first, *lines[start + 1 :]]


def _around(above: list[str], line: str) -> list[str]:
    """Return the lines that open the fence, lists and quotes in which `line` stands. above: the
    lines before it."""
    fence = markup = ""
    for source in above:
        found = _FENCE.fullmatch(source, len(_opening(source)))
        if found and not fence:
            fence, markup = source, found[1]
        elif found and found[1].startswith(markup) and not found[2].strip():
            fence = ""
    indentation = _indentation(fence or line)
    context = [fence] if fence else []
    for source in reversed(above):
        if _indentation(source) < indentation and _opening(source).strip():
            indentation = _indentation(source)
            context.insert(0, f"{_opening(source)}…")
    return context


def _opening(line: str) -> str:
    """Return the marks of lists and quotes that a line begins with."""
    found = _OPENING.match(line)
    return found.group() if found else ""


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


@functools.lru_cache(maxsize=16)
def closing_of(markup: str) -> re.Pattern[str]:
    return re.compile(rf" {{0,3}}{markup[0]}{{{len(markup)},}}[ \t]*")


def is_blank(line: str) -> bool:
    # Only spaces and tabs are stripped, because in Markdown a line of U+2028 or no-break spaces is
    # text.
    return not line.strip(" \t")


def trimmed(lines: list[str]) -> str:
    written = [place for place, line in enumerate(lines) if not is_blank(line)]
    return "\n".join(lines[written[0] : written[-1] + 1]) if written else ""

"""Cuts Markdown that is still arriving into blocks that can no longer change.

Only complete lines are looked at, and only those not yet cut off. A list is cut at its items,
an open fence after every `PIECE_LINES` lines, a table after every `PIECE_ROWS` rows and a
paragraph within a line of more than `PIECE_LENGTH` characters, so that a long one neither
stands still nor makes a frame long.
"""

import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from markdown_it import MarkdownIt
from markdown_it.common.utils import normalizeReference
from markdown_it.token import Token

from moa_cli.render.sanitize import Sanitizer

PIECE_LINES = 16
PIECE_ROWS = 32
PIECE_LENGTH = 4000

# Below this many characters an open block is parsed at every new line; above, only when it
# has grown by an eighth, which keeps the whole cost linear.
_PARSED_EVERY_LINE = 2000
# Of an open block that is longer than twice this, only the end is pending: more than a screen.
_PENDING = 4000
_MARK = re.compile(r"\*+|~~|`+|(?<!\w)_+|_+(?!\w)|[\[\]]")
_LABEL = re.compile(r"\[([^\[\]\n]+)\](?!:)")
_OPENING = re.compile(r" *(?:> ?|(?:[-+*]|\d{1,9}[.)]) +)*")
_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_DELIMITERS = re.compile(r" {0,3}[-:|][-:| \t]+")

Joint = Literal["apart", "tight", "code", "rows"]


@dataclass(frozen=True, slots=True)
class Block:
    """A finished piece of a reply: `source` is Markdown that stands on its own.

    `joint` says how it follows the block before it: after a blank line, without one, as
    further lines of the same fenced code, or as further rows of the same table, whose header
    it repeats. `number` is the number of an ordered list's item.
    """

    source: str
    joint: Joint = "apart"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block within the open lines: where its first token starts, where it ends.

    header: what has to stand before its lines, for them to be rows of a table.
    """

    block: Block
    token: Token
    start: int
    end: int
    header: tuple[str, ...] = ()


class _Parser(MarkdownIt):
    def normalizeLinkText(self, link: str) -> str:
        # The inherited one decodes percent escapes, and with them escape sequences.
        return link


@functools.cache
def parser(*, inline: bool) -> MarkdownIt:
    """Return the parser of all replies; without `inline` it tells blocks apart, no more."""
    made = _Parser("commonmark", {"html": False, "maxNesting": 50})
    made.enable(["table", "strikethrough"])
    return made if inline else made.disable("inline")


class MarkdownStream:
    """Turns the chunks of one untrusted reply into finished blocks.

    The text is sanitized on the way. Drawn by one `BlockRenderer`, the blocks give the same
    lines however the reply was split into chunks.
    """

    def __init__(self) -> None:
        self._sanitizer = Sanitizer()
        self._partial: list[str] = []
        self._length = 0
        self._lines: list[str] = []
        self._size = 0
        self._parse_at = 0
        self._head = Block("")
        self._fence: _OpenFence | None = None
        self._definitions = _Definitions()

    def feed(self, text: str) -> list[Block]:
        """Take the next chunk; return the blocks that have become final, in order."""
        return self._take(self._sanitizer.feed(text))

    def finish(self) -> list[Block]:
        """End the reply, once; return what was left, and the link definitions no link has shown."""
        blocks = self._take(self._sanitizer.flush())
        if any(self._partial):
            blocks += self._take("\n")
        blocks += self._advance(final=True)
        self._definitions.note("\n".join(self._lines))
        self._lines = []
        return blocks + self._definitions.unshown()

    @property
    def tail(self) -> str:
        """The source that is not final yet, its last line perhaps incomplete."""
        opening = [self._fence.opening] if self._fence else []
        return "\n".join([*opening, *self._lines, "".join(self._partial)])

    def pending(self) -> list[Block]:
        """Return the tail as the blocks it would make if the reply ended here.

        Of a very long one only the end is taken, and its first lines may be drawn wrong.
        """
        lines = [*self._lines, *filter(None, ["".join(self._partial)])]
        if self._fence:
            return [self._fence.piece(lines)] if lines else []
        return [piece.block for piece in _pieces(_end_of(lines), self._head)]

    def _take(self, text: str) -> list[Block]:
        *complete, rest = text.split("\n")
        blocks: list[Block] = []
        if complete:
            complete[0] = "".join([*self._partial, complete[0]])
            for line in complete:
                cut, line = self._cut_line(line)
                blocks += cut
                self._lines.append(line)
                self._size += len(line) + 1
            self._partial, self._length = [], 0
            blocks += self._advance()
        before = self._length // PIECE_LENGTH
        self._partial.append(rest)
        self._length += len(rest)
        if self._length // PIECE_LENGTH > before:
            cut, rest = self._cut_line("".join(self._partial))
            blocks += cut
            self._partial, self._length = [rest], len(rest)
        return blocks

    def _cut_line(self, line: str) -> tuple[list[Block], str]:
        """Cut what can be cut off a long line that is to be the next; also return its rest.

        It makes no difference how much of the line is there already.
        """
        blocks: list[Block] = []
        known = PIECE_LENGTH
        while len(line) >= known:
            if self._fence:
                blocks += self._advance()
            cut = 0 if self._fence else _place_to_cut(line[:known])
            pieces = _pieces([*self._lines, line[:cut]], self._head) if cut else []
            known += PIECE_LENGTH
            if not pieces:
                continue
            if pieces[-1].token.type != "paragraph_open" or pieces[-1].start < len(self._lines):
                break
            blocks += self._noted([piece.block for piece in pieces])
            self._keep(len(self._lines))
            self._head = Block("", "tight")
            line = line[cut + 1 :]
            known = PIECE_LENGTH
        return blocks, line

    def _advance(self, *, final: bool = False) -> list[Block]:
        blocks: list[Block] = []
        while True:
            if self._fence:
                blocks += self._cut_fence(self._fence, final=final)
                if self._fence:
                    break
            if self._size < self._parse_at and not final:
                break
            blocks += self._cut_blocks(final=final)
            if not self._fence:
                break
        return self._noted(blocks)

    def _noted(self, blocks: list[Block]) -> list[Block]:
        for block in blocks:
            self._definitions.note(block.source)
        return blocks

    def _cut_fence(self, fence: "_OpenFence", *, final: bool) -> list[Block]:
        lines = self._lines
        closing = fence.closing_line(lines)
        end = len(lines) if closing is None else closing
        ended = final or closing is not None
        blocks = []
        at = 0
        while end - at >= PIECE_LINES or (ended and at < end):
            piece = lines[at : min(at + PIECE_LINES, end)]
            blocks.append(fence.piece(piece))
            fence.joint = "code"
            at += len(piece)
        self._keep(at if closing is None else closing + 1)
        fence.scanned = len(self._lines)
        if ended:
            self._fence = None
        return blocks

    def _cut_blocks(self, *, final: bool) -> list[Block]:
        pieces = _pieces(self._lines, self._head)
        still_open = None
        if pieces and not final and not _is_closed(pieces[-1], self._lines):
            still_open = pieces.pop()
        blocks = [piece.block for piece in pieces]
        cut = pieces[-1].end if pieces else 0
        self._head = still_open.block if still_open else Block("")
        if still_open and still_open.token.type == "fence":
            if definitions := _trimmed(self._lines[cut : still_open.start]):
                blocks.append(Block(definitions))
            self._fence = _OpenFence(self._lines[still_open.start], still_open.token.markup)
            self._head = Block("")
            cut = still_open.start + 1
        while not self._fence and cut < len(self._lines) and _is_blank(self._lines[cut]):
            cut += 1
        self._keep(cut, still_open.header if still_open else ())
        return blocks

    def _keep(self, start: int, header: tuple[str, ...] = ()) -> None:
        self._lines = [*header, *self._lines[start:]]
        self._size = sum(len(line) + 1 for line in self._lines)
        grown = self._size + self._size // 8
        self._parse_at = 0 if self._size < _PARSED_EVERY_LINE else grown


@dataclass(slots=True)
class _OpenFence:
    """A fenced code block whose end has not come: its opening line, and how far it is read."""

    opening: str
    markup: str
    joint: Joint = "apart"
    scanned: int = 0

    def piece(self, lines: list[str]) -> Block:
        return Block("\n".join([self.opening, *lines, self.markup]), self.joint)

    def closing_line(self, lines: list[str]) -> int | None:
        closing = _closing(self.markup)
        unseen = range(self.scanned, len(lines))
        return next((index for index in unseen if closing.fullmatch(lines[index])), None)


class _Definitions:
    """Keeps the link definitions, to tell which of them no link has shown the target of."""

    def __init__(self) -> None:
        self._targets: dict[str, str] = {}
        self._used: set[str] = set()
        self._late: set[str] = set()

    def note(self, source: str) -> None:
        if "]:" in source:
            env: dict[str, Any] = {}
            parser(inline=False).parse(source, env)
            for label, definition in env.get("references", {}).items():
                if label not in self._targets:
                    self._targets[label] = definition["href"]
                    self._late |= {label} & self._used
        self._used.update(map(normalizeReference, _LABEL.findall(source)))

    def unshown(self) -> list[Block]:
        lines = [
            f"`[{label.replace('`', '')}]: {target}`"
            for label, target in self._targets.items()
            if label in self._late or label not in self._used
        ]
        return [Block("\\\n".join(lines))] if lines else []


def _pieces(lines: list[str], head: Block) -> list[_Piece]:
    """Cut `lines` into pieces; `head` says how the first one follows what was cut before."""
    pieces: list[_Piece] = []
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
        elif item and not first and not _is_blank(lines[start - 1]):
            joint = "tight"
        header: tuple[str, ...] = ()
        if token.type == "table_open":
            for cut in range(start + 2 + PIECE_ROWS, stop, PIECE_ROWS):
                block = Block("\n".join([*header, _trimmed(lines[end:cut])]), joint)
                pieces.append(_Piece(block, token, start, cut, header))
                header = header or tuple(lines[start : start + 2])
                joint, start, end = "rows", cut, cut
        source = "\n".join([*header, _trimmed(lines[end:stop])])
        block = Block(source, joint, number if item else None)
        pieces.append(_Piece(block, token, start, stop, header))
        end = stop
        first = False
        number = None if number is None else number + 1
    return pieces


def _is_closed(piece: _Piece, lines: list[str]) -> bool:
    """Tell whether no further line can change the last of the pieces."""
    kind = piece.token.type
    if kind == "fence":
        last = piece.end - 1
        return last > piece.start and bool(_closing(piece.token.markup).fullmatch(lines[last]))
    if kind in ("paragraph_open", "table_open", "blockquote_open"):
        return piece.end < len(lines)
    return kind in ("heading_open", "hr")


def _place_to_cut(text: str) -> int:
    """Return where the last word begins, if no emphasis, code or link is open there; else 0."""
    before, space, after = text.rpartition(" ")
    # What follows must not be taken for the start of a list or the like, nor lose a hard break.
    if not space or not after[:1].isalpha() or before[-1:] in ("", " ", "\\"):
        return 0
    marks = Counter(_MARK.findall(before))
    closed = marks.pop("[", 0) == marks.pop("]", 0) and not any(n % 2 for n in marks.values())
    return len(before) if closed else 0


def _end_of(lines: list[str]) -> list[str]:
    """Return the end of an open block, below the lines that make it what it is.

    Its start moves in steps of `_PENDING`: else the text would be wrapped anew at each token.
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
        # The dots keep what follows from being read as the start of another block.
        first = f"{_opening(first)}…{first[excess:]}"
    return [*_around(lines[:start], first), first, *lines[start + 1 :]]


def _around(above: list[str], line: str) -> list[str]:
    """Return what has been opened by the lines `above` and is open still at `line`."""
    fence = markup = ""
    for one in above:
        found = _FENCE.fullmatch(one, len(_opening(one)))
        if found and not fence:
            fence, markup = one, found[1]
        elif found and found[1].startswith(markup) and not found[2].strip():
            fence = ""
    indentation = _indentation(fence or line)
    context = [fence] if fence else []
    for one in reversed(above):
        if _indentation(one) < indentation and _opening(one).strip():
            indentation = _indentation(one)
            context.insert(0, f"{_opening(one)}…")
    return context


def _opening(line: str) -> str:
    """Return the marks of lists and quotes that a line begins with."""
    found = _OPENING.match(line)
    return found.group() if found else ""


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


@functools.lru_cache(maxsize=16)
def _closing(markup: str) -> re.Pattern[str]:
    return re.compile(rf" {{0,3}}{markup[0]}{{{len(markup)},}}[ \t]*")


def _is_blank(line: str) -> bool:
    # Not `str.strip`: to Markdown a line of U+2028 or no-break spaces is text.
    return not line.strip(" \t")


def _trimmed(lines: list[str]) -> str:
    start, end = 0, len(lines)
    while start < end and _is_blank(lines[start]):
        start += 1
    while end > start and _is_blank(lines[end - 1]):
        end -= 1
    return "\n".join(lines[start:end])

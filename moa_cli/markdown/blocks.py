"""Cuts Markdown that is still arriving into blocks that can no longer change.

Only complete lines are parsed, and only those that were not cut off yet. A list is cut at its
items, an open fence after every `PIECE_LINES` lines, a table after every `PIECE_ROWS` rows, and a
paragraph within a line of more than `PIECE_LENGTH` characters. So a long block appears piece by
piece, and a frame does not take long to draw.
"""

from dataclasses import dataclass

from moa_cli.core.sanitize import Sanitizer
from moa_cli.markdown.pieces import (
    Block,
    Joint,
    closing_of,
    cut_pieces,
    end_of,
    is_blank,
    is_closed,
    place_to_cut,
    trimmed,
)

PIECE_LINES = 16
PIECE_LENGTH = 4000

# An open block of fewer characters is parsed at every new line. A longer one is parsed only when it
# has grown by an eighth, which keeps the whole cost linear.
_PARSED_EVERY_LINE = 2000


class MarkdownStream:
    """Turns the chunks of one untrusted reply into finished blocks.

    The text is sanitized on the way. If one `BlockRenderer` draws the blocks, the lines do not
    depend on how the reply was split into chunks.
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
        self._defines = False

    def feed(self, text: str) -> list[Block]:
        """Take the next chunk; return the blocks that have become final, in order."""
        return self._take(self._sanitizer.feed(text))

    def finish(self) -> list[Block]:
        """End the reply; this is called once. Returns the remaining blocks.

        If the reply may have link definitions, the last block has the joint "end", which shows the
        definitions that no link has shown.
        """
        blocks = self._take(self._sanitizer.flush())
        if any(self._partial):
            blocks += self._take("\n")
        blocks += self._advance(final=True)
        if self._defines:
            blocks.append(Block(trimmed(self._lines), "end"))
            self._defines = False
        self._lines = []
        return blocks

    @property
    def tail(self) -> str:
        """The source that is not final yet, its last line perhaps incomplete."""
        opening = [self._fence.opening] if self._fence else []
        return "\n".join([*opening, *self._lines, "".join(self._partial)])

    def pending(self) -> list[Block]:
        """Return the blocks that the tail would become if the reply ended here.

        Of a very long tail, only the end is taken, and its first lines may be drawn wrong.
        """
        lines = [*self._lines, *filter(None, ["".join(self._partial)])]
        if self._fence:
            return [self._fence.piece(lines)] if lines else []
        return [piece.block for piece in cut_pieces(end_of(lines), self._head)]

    def _take(self, text: str) -> list[Block]:
        *complete, rest = text.split("\n")
        blocks: list[Block] = []
        if complete:
            complete[0] = "".join([*self._partial, complete[0]])
            for line in complete:
                self._defines = self._defines or "]:" in line
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
        """Cut finished blocks from the beginning of a long next line. Also returns the rest of the
        line.

        The result does not depend on how much of the line has arrived already.
        """
        blocks: list[Block] = []
        known = PIECE_LENGTH
        while len(line) >= known:
            if self._fence:
                blocks += self._advance()
            cut = 0 if self._fence else place_to_cut(line[:known])
            pieces = cut_pieces([*self._lines, line[:cut]], self._head) if cut else []
            known += PIECE_LENGTH
            if not pieces:
                continue
            if pieces[-1].token.type != "paragraph_open" or pieces[-1].start < len(self._lines):
                break
            blocks += [piece.block for piece in pieces]
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
        return blocks

    def _cut_fence(self, fence: "_OpenFence", *, final: bool) -> list[Block]:
        lines = self._lines
        closing = fence.closing_line(lines)
        end = len(lines) if closing is None else closing
        ended = final or closing is not None
        blocks, at = [], 0
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
        pieces = cut_pieces(self._lines, self._head)
        still_open = None
        if pieces and not final and not is_closed(pieces[-1], self._lines):
            still_open = pieces.pop()
        blocks = [piece.block for piece in pieces]
        cut = pieces[-1].end if pieces else 0
        self._head = still_open.block if still_open else Block("")
        if still_open and still_open.token.type == "fence":
            if definitions := trimmed(self._lines[cut : still_open.start]):
                blocks.append(Block(definitions))
            self._fence = _OpenFence(self._lines[still_open.start], still_open.token.markup)
            self._head = Block("")
            cut = still_open.start + 1
        while not self._fence and cut < len(self._lines) and is_blank(self._lines[cut]):
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
    """A fenced code block whose end has not come yet.

    opening: its first line. markup: its fence. scanned: how many of its lines were searched for the
    closing fence.
    """

    opening: str
    markup: str
    joint: Joint = "apart"
    scanned: int = 0

    def piece(self, lines: list[str]) -> Block:
        return Block("\n".join([self.opening, *lines, self.markup]), self.joint)

    def closing_line(self, lines: list[str]) -> int | None:
        closing = closing_of(self.markup)
        unseen = range(self.scanned, len(lines))
        return next((index for index in unseen if closing.fullmatch(lines[index])), None)

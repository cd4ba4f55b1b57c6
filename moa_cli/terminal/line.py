"""One line of a live region: pieces of text, each in a style, cut by cells.

Rich could draw the same. But a board draws ten times a second while tokens arrive, and Rich takes
many times as long to lay out a `Text` as this module takes to join the pieces.
"""

from __future__ import annotations

import re

from rich.console import Console, RenderableType
from rich.text import Text

from moa_cli.core.sanitize import one_line
from moa_cli.terminal.table import cell_len, set_cell_size

LONGEST_NAME = 40
# Joiners, variation selectors, skin tones and flags. Terminals disagree on the width of these
# characters, or of the characters before them, so the right border of a panel would move.
_UNSURE = re.compile("[\ufe00-\ufe0f\u200d\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]")


def to_lines(console: Console, renderable: RenderableType, width: int) -> list[str]:
    """The renderable as `console` draws it, as ANSI lines of at most `width` cells."""
    # Set explicitly, because Rich would limit the width to COLUMNS, even if that is stale.
    console.width = width
    with console.capture() as captured:
        console.print(renderable, width=width, end="", soft_wrap=False)
    return captured.get().rstrip("\n").split("\n")


def plain(text: str, limit: int | None = None) -> str:
    """A name or a message on one line, with the same width on all terminals."""
    return one_line(sure(text), limit)


def sure(text: str) -> str:
    """The text without characters whose width differs among terminals."""
    return text if text.isascii() else _UNSURE.sub("", text)


class Styles:
    """The sequences that begin and end a style, such as `bold` or `red`, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._codes: dict[str, tuple[str, str]] = {"": ("", "")}

    def paint(self, text: str, style: str) -> str:
        """The text in the style, as far as the terminal can show it."""
        codes = self._codes.get(style)
        if codes is None:
            [sample] = to_lines(self._console, Text(".", style), 10)
            begin, _, end = sample.partition(".")
            codes = self._codes[style] = begin, end
        return f"{codes[0]}{text}{codes[1]}"


class Line:
    """A line of styled pieces. Its text must be sanitized: on one line, and without escapes.

    pieces: texts, each alone or with its style.
    """

    def __init__(self, *pieces: str | tuple[str, str]) -> None:
        self._pieces = [(piece, "") if isinstance(piece, str) else piece for piece in pieces]
        self.cells = sum(cell_len(text) for text, _ in self._pieces)

    def append(self, text: str, style: str = "") -> Line:
        """Add a piece at the end; return the line."""
        self._pieces.append((text, style))
        self.cells += cell_len(text)
        return self

    def extend(self, other: Line) -> Line:
        """Add the pieces of another line; return this one."""
        self._pieces += other._pieces
        self.cells += other.cells
        return self

    def cut(self, width: int) -> Line:
        """Cut the line to at most `width` cells, with an ellipsis if it was longer. Returns the
        line."""
        if self.cells <= width:
            return self
        free = max(0, width - 1)
        kept: list[tuple[str, str]] = []
        for text, style in self._pieces:
            cells = cell_len(text)
            if cells >= free:
                kept.append((set_cell_size(text, free) + "…" * (width > 0), style))
                break
            kept.append((text, style))
            free -= cells
        self._pieces, self.cells = kept, max(0, width)
        return self

    @property
    def plain(self) -> str:
        return "".join(text for text, _ in self._pieces)

    def ansi(self, styles: Styles) -> str:
        """The line as ANSI text for a terminal."""
        return "".join(styles.paint(text, style) for text, style in self._pieces if text)

    def wrapped(self, console: Console, width: int) -> list[str]:
        """The line folded between words at the width, as ANSI lines."""
        return to_lines(console, Text.assemble(*self._pieces), width)


def wrap(line: str, width: int) -> list[str]:
    """The line folded at the width. It is folded between words if this leaves a row that is more
    than half full."""
    ascii_only = line.isascii()
    pieces = []
    while (len(line) if ascii_only else cell_len(line)) > width:
        cut = width if ascii_only else len(set_cell_size(line, width).rstrip(" "))
        cut = cut or 1
        space = line.rfind(" ", 0, cut + 1)
        cut = space if space > width // 2 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip(" ")
    return [*pieces, line]

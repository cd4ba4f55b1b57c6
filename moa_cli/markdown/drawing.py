"""Draws Markdown for a terminal, block by block, as lines that are written once."""

import copy
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme

from moa_cli.core.sanitize import sanitize
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.elements import MIN_WIDTH, Carry, Document
from moa_cli.markdown.pieces import Block, parser

Color = Literal["none", "16", "256", "truecolor"]

_COLOR_SYSTEMS: dict[Color, ColorSystem | None] = {
    "none": None,
    "16": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}
# Only colours which the usual palettes keep readable on dark and light alike; no backgrounds.
_THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        **{f"markdown.h{level}": "bold italic" for level in range(3, 7)},
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "none",
        "markdown.item.number": "bold",
        "markdown.link": "cyan",
        "markdown.link_url": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)


class BlockRenderer:
    """Draws the blocks of one reply in order, with one blank line between them.

    `color` is what the terminal can show; with "none" no escape sequence comes out, and
    headings and inline code keep their Markdown marks instead.
    """

    def __init__(self, *, color: Color = "none") -> None:
        self._color_system = _COLOR_SYSTEMS[color]
        self._console = Console(file=io.StringIO(), theme=_THEME, legacy_windows=False)
        self._document = Document(plain=self._color_system is None)
        self._env: dict[str, Any] = {}
        self._carry = Carry()
        self._started = False
        self._inside = False
        self._blank = 0

    def render(self, blocks: Iterable[Block], *, width: int) -> list[str]:
        """Return the next lines of the reply, without line ends and trailing spaces.

        Lines of code are never broken, and may be wider than `width`.
        """
        return [line for block in blocks for line in self._spaced(block, width)]

    def preview(self, blocks: Iterable[Block], *, width: int) -> list[str]:
        """Return the lines `render` would give for `blocks`, and forget them."""
        trial = copy.copy(self)
        trial._env = {"references": dict(self._env.get("references", {}))}
        return trial.render(blocks, width=width)

    def _spaced(self, block: Block, width: int) -> Iterator[str]:
        """Yield the block's lines, blank ones only between lines that are not.

        Those that end a piece of code are kept back until the next piece has come.
        """
        if block.joint != "code":
            self._inside = False
            self._blank = int(self._started and block.joint == "apart")
        for line in self._drawn(block, width):
            if not line:
                self._blank += self._inside
                continue
            yield from [""] * self._blank
            yield line
            self._started = self._inside = True
            self._blank = 0

    def _drawn(self, block: Block, width: int) -> list[str]:
        tokens = parser(inline=True).parse(block.source, self._env)
        if block.number is not None and tokens:
            tokens[0].attrs["start"] = block.number
        going_on = block.joint in ("code", "rows")
        self._document.load(tokens, replace(self._carry, going_on=True) if going_on else Carry())
        options = self._console.options.update(width=max(width, MIN_WIDTH))
        lines = list(Segment.split_lines(self._console.render(self._document, options)))
        self._carry = self._document.carry
        return [self._to_text(line) for line in lines]

    def _to_text(self, line: list[Segment]) -> str:
        parts = [
            (sanitize(segment.text).replace("\n", " "), segment.style or Style.null())
            for segment in Segment.simplify(line)
            if not segment.control
        ]
        while parts:
            text, style = parts.pop()
            if text := text.rstrip(" "):
                parts.append((text, style))
                break
        return "".join(style.render(text, color_system=self._color_system) for text, style in parts)


def render_markdown(text: str, *, width: int, color: Color = "none") -> list[str]:
    """Return a whole reply as lines, as `BlockRenderer` draws it piece by piece."""
    stream = MarkdownStream()
    return BlockRenderer(color=color).render([*stream.feed(text), *stream.finish()], width=width)

"""Draws Markdown for a terminal, block by block, as lines that never change afterwards."""

import copy
import functools
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.theme import Theme

from moa_cli.config.palette import Palette
from moa_cli.core.sanitize import sanitize
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.elements import MIN_WIDTH, Carry, Document
from moa_cli.markdown.pieces import Block
from moa_cli.markdown.syntax import parser

Color = Literal["none", "16", "256", "truecolor"]

_COLOR_SYSTEMS: dict[Color, ColorSystem | None] = {
    "none": None,
    "16": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}
# Link targets that are made clickable. Other targets are only shown, because other schemes may
# start programs, and terminals ignore longer targets.
_OPENED = re.compile(r"(?:https?|mailto):[!-~]{1,2000}", re.IGNORECASE)
_LABEL = re.compile(r"\[((?:\\.|[^\[\]\\])+)\]:", re.DOTALL)
_AUTO = Palette().over("auto")


@functools.lru_cache(maxsize=8)
def _styles(palette: Palette) -> Theme:
    """Return the styles that Rich draws Markdown in."""
    heading = palette.heading or "none"
    styles = {
        "h1": f"{heading} underline",
        "h2": heading,
        **{f"h{level}": f"{heading} italic" for level in range(3, 7)},
        "code": palette.code,
        "code_block": palette.code,
        "block_quote": palette.quote,
        "item.number": palette.number,
        "link": palette.link,
        "link_url": "none",
        "target": palette.target,
        "table.border": palette.border,
        "table.header": "bold",
    }
    return Theme({f"markdown.{name}": style or "none" for name, style in styles.items()})


class BlockRenderer:
    """Draws the blocks of one reply in order, with one blank line between them.

    `color` is the kind of colours that the terminal can show. With "none", the lines contain no
    escape sequences, and headings and inline code keep their Markdown marks. `hyperlinks` says
    whether links are clickable (OSC 8) if there are colours; their targets are shown in any case.
    `palette` has the styles.
    """

    def __init__(
        self,
        *,
        color: Color = "none",
        hyperlinks: bool = False,
        palette: Palette = _AUTO,
    ) -> None:
        self._color_system = _COLOR_SYSTEMS[color]
        self._console = Console(file=io.StringIO(), theme=_styles(palette), legacy_windows=False)
        self._document = Document(plain=self._color_system is None, palette=palette)
        self._hyperlinks = hyperlinks
        self._env: dict[str, Any] = {}
        # The labels of link definitions in their original spelling, by their normalized form.
        self._labels: dict[str, str] = {}
        # The targets that have been shown.
        self._shown: set[str] = set()
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
        """Return the lines that `render` would return for `blocks`, without changing the state."""
        trial = copy.copy(self)
        trial._env = {"references": dict(self._env.get("references", {}))}
        trial._labels, trial._shown = dict(self._labels), set(self._shown)
        return trial.render(blocks, width=width)

    def _spaced(self, block: Block, width: int) -> Iterator[str]:
        """Yield the block's lines. Blank lines are yielded only between other lines.

        Blank lines at the end of a piece of code are held back until the next piece has come.
        """
        if block.joint != "code":
            self._inside = False
            self._blank = int(self._started and block.joint in ("apart", "end"))
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
        self._note_labels(block.source)
        self._document.shown = self._shown
        if block.joint == "end":
            return self._definitions(width)
        if block.number is not None and tokens:
            tokens[0].attrs["start"] = block.number
        going_on = block.joint in ("code", "rows")
        self._document.load(tokens, replace(self._carry, going_on=True) if going_on else Carry())
        return self._loaded(width)

    def _loaded(self, width: int) -> list[str]:
        options = self._console.options.update(width=max(width, MIN_WIDTH))
        lines = list(Segment.split_lines(self._console.render(self._document, options)))
        self._carry = self._document.carry
        return [self._to_text(line) for line in lines]

    def _note_labels(self, source: str) -> None:
        """Remember the original spelling of the labels of link definitions in `source`."""
        references = self._env.get("references", {})
        if len(references) == len(self._labels):
            return
        lines = source.split("\n")
        for label in references.keys() - self._labels.keys():
            found = _LABEL.search("\n".join(lines[references[label]["map"][0] :]))
            self._labels[label] = " ".join((found[1] if found else label).split())

    def _definitions(self, width: int) -> list[str]:
        """Return the lines of link definitions whose targets no link has shown: the link came
        before the definition, or there is no link."""
        left = [
            (self._labels[label], reference["href"])
            for label, reference in self._env.get("references", {}).items()
            if reference["href"] not in self._shown
        ]
        if not left:
            return []
        self._document.load_definitions(left)
        return self._loaded(width)

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
        return "".join(self._styled(text, style) for text, style in parts)

    def _styled(self, text: str, style: Style) -> str:
        target = style.link
        if target is None:
            return style.render(text, color_system=self._color_system)
        # The link is written here, because Rich neither checks the target nor gives it a stable id.
        styled = style.update_link(None).render(text, color_system=self._color_system)
        opened = self._hyperlinks and self._color_system is not None and _OPENED.fullmatch(target)
        if not opened:
            return styled
        # With the same id, a terminal treats pieces on several lines as one link.
        identity = f"{zlib.crc32(target.encode()):x}"
        return f"\x1b]8;id={identity};{target}\x1b\\{styled}\x1b]8;;\x1b\\"


def render_markdown(
    text: str, *, width: int, color: Color = "none", palette: Palette = _AUTO
) -> list[str]:
    """Return a whole reply as lines, in the same form as `BlockRenderer` draws it piece by
    piece."""
    stream, renderer = MarkdownStream(), BlockRenderer(color=color, palette=palette)
    return renderer.render([*stream.feed(text), *stream.finish()], width=width)

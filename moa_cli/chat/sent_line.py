"""A line that was sent and is taller than the screen: printed whole, as it was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.utils import get_cwidth

if TYPE_CHECKING:
    from prompt_toolkit.output import Output
    from prompt_toolkit.styles import BaseStyle

CONTINUED, FOLDED = "… ", "  "


def print_whole(output: Output, prompt: str, line: str, style: BaseStyle) -> None:
    """Print a line of several rows behind its prompt.

    Args:
        output: The terminal, whose cursor stands in the first column.
        prompt: What stands before the first row.
        line: What was typed.
        style: How it looks; the prompt has the class `prompt`.
    """
    columns = output.get_size().columns
    parts: list[tuple[str, str]] = []
    for number, text in enumerate(line.split("\n")):
        first = "class:prompt" if number == 0 else "class:prompt-continuation"
        before = prompt if number == 0 else CONTINUED
        for place, row in enumerate(_folded(text, columns - len(before))):
            parts += [(first, FOLDED if place else before), ("", f"{row}\n")]
    print_formatted_text(output, FormattedText(parts), style)


def _folded(text: str, cells: int) -> Iterator[str]:
    """A text in rows of at most so many cells, with signs in place of control characters."""
    row: list[str] = []
    taken = 0
    for letter in text:
        shown = Char.display_mappings.get(letter, letter)
        width = get_cwidth(shown)
        if row and taken + width > cells:
            yield "".join(row)
            row, taken = [], 0
        row.append(shown)
        taken += width
    yield "".join(row)

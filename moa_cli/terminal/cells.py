"""Text cut to a number of terminal cells, of which a character takes none, one or two.

The only file that imports `rich.cells`, which Rich does not document: `cell_len` and
`set_cell_size` are imported from here.
"""

from __future__ import annotations

from rich.cells import cell_len as cell_len
from rich.cells import set_cell_size as set_cell_size

from moa_cli.core.sanitize import one_line


def fitted(text: str, cells: int) -> str:
    """Untrusted text on one line that takes at most `cells`, with an ellipsis if it was cut."""
    # What is beyond can not be seen, and a character takes a cell at least; but for marks.
    line = one_line(text, 8 * max(0, cells) + 1)
    if cell_len(line) <= cells:
        return line
    return set_cell_size(line, cells - 1).rstrip() + "…" if cells > 0 else ""


def padded(text: str, cells: int, *, right: bool = False) -> str:
    """The same, with spaces up to `cells`; at the left of a text that stands to the right."""
    line = fitted(text, cells)
    spaces = " " * (cells - cell_len(line))
    return spaces + line if right else line + spaces

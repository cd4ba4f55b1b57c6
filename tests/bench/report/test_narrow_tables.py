"""Tables that are wider than the terminal go on below, and lose no figure."""

from __future__ import annotations

import pytest

from moa_cli.cli.bench.cells import fitting_table, split_table
from moa_cli.terminal.table import Column, cell_len

ARMS = ["mixture", *(f"single:lab:maker/Model-{size}B-Instruct-Turbo" for size in (70, 235))]
NAME = Column("arm", ARMS, widest=40)
FIGURES = [
    Column(f"figure {place}", [f"{10 * place + row}.00 ± 0.00" for row in range(3)], right=True)
    for place in range(1, 6)
]


@pytest.mark.parametrize("width", [30, 50, 80, 120, 160])
@pytest.mark.parametrize("keys", [1, -1])
def test_every_figure_is_shown_and_no_line_is_too_wide(width: int, keys: int) -> None:
    columns = [NAME, *FIGURES] if keys == 1 else [*FIGURES, NAME]
    lines = list(split_table(columns, width, keys))
    assert max(map(cell_len, lines)) <= width
    shown = "\n".join(lines)
    for figure in FIGURES:
        assert all(shown.count(text) == 1 for text in (figure.head, *figure.cells))
    tables = shown.split("\n\n")
    assert (len(tables) == 1) == (width >= 120)
    for table in tables:
        head, *rows = table.splitlines()
        assert head.startswith("arm")
        # The names tell the rows apart, also where they are cut.
        assert len({row.split("  ")[0] for row in rows}) == 3


def test_a_table_that_fits_is_one() -> None:
    columns = [NAME, *FIGURES, Column("about", ["some words"] * 3)]
    head, *rows = fitting_table(columns, 200)
    assert head.endswith("about")
    assert len(rows) == 3

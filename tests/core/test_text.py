"""Lines that are folded between words."""

from __future__ import annotations

import pytest

from moa_cli.core.text import wrapped
from moa_cli.terminal.table import cell_len


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("  one  two three", ["  one", "two three"]),
        ("a-word-longer-than-the-row and more", ["a-word-longer-than-the-row", "and more"]),
        ("漢字 かな 交じり", ["漢字 かな", "交じり"]),
        (
            "e\u0301e\u0301e\u0301 e\u0301e\u0301e\u0301",
            ["e\u0301e\u0301e\u0301 e\u0301e\u0301e\u0301"],
        ),
    ],
)
def test_a_line_is_folded_by_the_cells_that_it_takes(text: str, rows: list[str]) -> None:
    assert wrapped(text, 9, cell_len) == rows

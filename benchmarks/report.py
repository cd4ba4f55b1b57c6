"""How the benchmarks print what they found: Markdown, which the page of results consists of."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence


def environment_line(*more: str) -> str:
    """On what was measured, and how often."""
    return (
        ", ".join([f"Python {platform.python_version()}", f"{os.cpu_count()} cores", *more]) + "\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are figures."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the greatest value in brackets."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

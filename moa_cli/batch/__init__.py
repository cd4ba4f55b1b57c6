"""Answers many prompts from a file with a line of JSON each; `answer_rows` answers Python data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moa_cli.batch.row_answerer import answer_rows as answer_rows

__all__ = ["answer_rows"]


def __getattr__(name: str) -> object:
    # Loaded on first use, because the other modules of this package do not need it.
    if name == "answer_rows":
        from moa_cli.batch.row_answerer import answer_rows

        return answer_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

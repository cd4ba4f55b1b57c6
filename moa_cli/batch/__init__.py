"""Many prompts from a file, a line of JSON for each answer; `answer_rows` for data of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moa_cli.batch.row_answerer import answer_rows as answer_rows

__all__ = ["answer_rows"]


def __getattr__(name: str) -> object:
    # Loaded when it is needed: the parts of a batch do without.
    if name == "answer_rows":
        from moa_cli.batch.row_answerer import answer_rows

        return answer_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

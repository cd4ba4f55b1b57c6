"""What `moa compare` shows at a terminal; the words of models and prompts are untrusted."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from moa_cli.compare.contest import Shown
from moa_cli.core.money import cost_text
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.markdown.drawing import render_markdown
from moa_cli.terminal.live import color_of, console_for, reply_width
from moa_cli.terminal.table import Column, table_lines
from moa_cli.terminal.tty import can_redraw

__all__ = ["answer_lines", "revealed_lines"]


def answer_lines(head: str, text: str, *, raw: bool) -> list[str]:
    """A head, and the text under it, drawn as Markdown; as it is if `raw`, or where nothing can
    be drawn."""
    safe = sanitize(text).strip()
    if raw or not can_redraw(sys.stdout):
        drawn = safe.split("\n")
    else:
        console = console_for(sys.stdout)
        drawn = render_markdown(safe, width=reply_width(console.width), color=color_of(console))
    return [*([head] if head else []), *drawn, ""]


def revealed_lines(
    there: Sequence[Shown], failed: Sequence[Shown], winner: int | None, width: int
) -> list[str]:
    """Whose the answers were, in the order in which they were shown, and who gave none.

    winner: the place of the chosen one.
    """
    lines: list[str] = []
    if there:
        lines = table_lines(
            [
                Column("", [chr(ord("A") + place) for place in range(len(there))]),
                Column("arm", [one.arm.name for one in there], widest=40),
                Column("cost", [cost_text(one.turn.usage) for one in there], right=True),
                Column("seconds", [f"{one.turn.seconds:.1f}" for one in there], right=True),
                Column("", ["chosen" if place == winner else "" for place in range(len(there))]),
                Column("profile", [one.arm.profile.name for one in there]),
            ],
            width,
        )
    told = (f"{one.arm.name} ({one.arm.profile.name}) failed: {one.trouble}" for one in failed)
    return [*lines, *map(one_line, told)]

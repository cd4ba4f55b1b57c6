"""Draws answers, under their letters."""

from __future__ import annotations

import sys

from moa_cli.cli import wiring
from moa_cli.cli.options import look_of
from moa_cli.core.sanitize import sanitize
from moa_cli.terminal.tty import can_redraw


def drawn(head: str, text: str, *, raw: bool) -> list[str]:
    """A head, and the (untrusted) text under it, drawn as Markdown; as it is if `raw`, or where
    nothing can be drawn."""
    safe = sanitize(text).strip()
    if raw or not can_redraw(sys.stdout):
        lines = safe.split("\n")
    else:
        from moa_cli.markdown.drawing import render_markdown
        from moa_cli.terminal.live import color_of, console_for, reply_width

        look = look_of(wiring.config())
        console = console_for(sys.stdout, look=look)
        width, color = reply_width(console.width), color_of(console)
        lines = render_markdown(safe, width=width, color=color, palette=look.palette)
    return [*([head] if head else []), *lines, ""]

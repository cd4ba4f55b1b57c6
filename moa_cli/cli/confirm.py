"""Asking before something happens that cannot be taken back."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from moa_cli.core.errors import UsageError

__all__ = ["MOST_NAMED", "check_can_confirm", "confirm"]

# More would push the question off a small screen.
MOST_NAMED = 10


def check_can_confirm() -> None:
    """Raise UsageError if standard input is not a terminal: no answer can come."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise UsageError("cannot confirm: standard input is not a terminal; pass --yes")


def confirm(question: str, named: Sequence[str] = (), *, more: int = 0) -> None:
    """Ask, and go on only after a yes.

    named: what it is about, a line each; more: how many there are beside those. Raises UsageError
    if standard input is not a terminal, typer.Abort after a no.
    """
    from moa_cli.core.sanitize import one_line
    from moa_cli.terminal.tty import columns_of

    check_can_confirm()
    columns = columns_of(sys.stderr)
    for line in named:
        typer.echo(f"  {one_line(line, columns and columns - 3)}", err=True)
    if more:
        typer.echo(f"  and {more:,} more", err=True)
    typer.confirm(question, abort=True, err=True)

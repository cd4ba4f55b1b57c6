"""Prints what commands show besides a reply: notices, tables, JSON, and questions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps
from moa_cli.terminal.tty import columns_of, folded

if TYPE_CHECKING:
    from moa_cli.terminal.table import Column

# The width without a terminal, in cells. It is large, so that nothing is cut in a pipe.
_UNBOUND = 1000
# A question lists at most this many things. A longer list would push the question off a small
# screen.
MOST_NAMED = 10


def say(text: str) -> None:
    """Print a notice on standard error, as one line. At a terminal it is folded between words."""
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def print_paged(lines: Sequence[str], *, no_pager: bool) -> None:
    """Print lines; through $PAGER if they do not fit on the terminal."""
    if no_pager or not sys.stdout.isatty():
        print_lines(lines)
        return
    from moa_cli.terminal.programs import page

    if trouble := page(lines):
        say(trouble)


def print_json(values: object) -> None:
    """Print JSON on standard output, indented."""
    print_lines([dumps(values, indent=2)])


def output_width(elsewhere: int = _UNBOUND) -> int:
    """The width of standard output in cells. elsewhere: the value without a terminal."""
    return columns_of(sys.stdout) or elsewhere


def print_table(columns: Sequence[Column]) -> None:
    """Print a table on standard output, as wide as its terminal."""
    from moa_cli.terminal.table import table_lines

    print_lines(table_lines(columns, output_width()))


def check_can_confirm() -> None:
    """Raise UsageError if standard input is not a terminal, so that no question can be asked."""
    if not sys.stdin.isatty():
        raise UsageError("cannot confirm: standard input is not a terminal; pass --yes")


def confirm(question: str, named: Sequence[str] = (), *, more: int = 0) -> None:
    """Ask a question, and return only after a yes.

    named: the things that it is about, to be listed before it. more: how many further things there
    are. Raises UsageError if standard input is not a terminal, typer.Abort after a no.
    """
    check_can_confirm()
    columns = columns_of(sys.stderr)
    for line in named:
        typer.echo(f"  {one_line(line, columns and columns - 3)}", err=True)
    if more:
        typer.echo(f"  and {more:,} more", err=True)
    typer.confirm(question, abort=True, err=True)

"""What a command prints beside a reply: lines on standard error, tables, JSON, and questions."""

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

# In a pipe nothing is cut.
_UNBOUND = 1000
# A longer list would push the question off a small screen.
MOST_NAMED = 10


def say(text: str) -> None:
    """Tell something on standard error, on one line; at a terminal folded between words."""
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
    """The cells that a line on standard output may take. elsewhere: if it is no terminal."""
    return columns_of(sys.stdout) or elsewhere


def print_table(columns: Sequence[Column]) -> None:
    """Print a table on standard output, as wide as its terminal."""
    from moa_cli.terminal.table import table_lines

    print_lines(table_lines(columns, output_width()))


def check_can_confirm() -> None:
    """Raise UsageError if standard input is not a terminal: no answer can come."""
    if not sys.stdin.isatty():
        raise UsageError("cannot confirm: standard input is not a terminal; pass --yes")


def confirm(question: str, named: Sequence[str] = (), *, more: int = 0) -> None:
    """Ask, and go on only after a yes.

    named: what it is about, a line each; more: how many there are beside those. Raises UsageError
    if standard input is not a terminal, typer.Abort after a no.
    """
    check_can_confirm()
    columns = columns_of(sys.stderr)
    for line in named:
        typer.echo(f"  {one_line(line, columns and columns - 3)}", err=True)
    if more:
        typer.echo(f"  and {more:,} more", err=True)
    typer.confirm(question, abort=True, err=True)

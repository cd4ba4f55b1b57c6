"""`moa history stats`: what was used and paid."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli import wiring
from moa_cli.cli.saving import open_store, warn
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.store.spending import Spent

__all__ = ["stats"]


def stats(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print turns, tokens and cost by month and model, of deleted conversations too."""
    spending = open_store(to_read=True).spending
    months, turns = spending.by_month(), spending.turns_by_month()
    zone = wiring.config().budget.zone
    if unsound := spending.unsound():
        warn(f"{plural(unsound, 'row')} of the ledger cannot be right, and are not counted")
    if json:
        from moa_cli.core.jsonl import usage_to_dict
        from moa_cli.core.text import dumps

        rows = [
            {"month": one.month, "model": one.model, "turns": one.turns} | usage_to_dict(one.usage)
            for one in months
        ]
        told = {"zone": zone, "turns_by_month": turns, "models": rows}
        typer.echo(dumps(told, indent=2))
        return
    if not months:
        typer.echo("moa: nothing was spent yet", err=True)
        return
    tables = [
        "\n".join(_month(month, turns.get(month, 0), group))
        for month, group in groupby(months, key=lambda one: one.month)
    ]
    typer.echo("\n\n".join(tables))
    typer.echo(f"moa: months are those of {zone} (budget.zone)", err=True)


def _month(month: str, turns: int, models: Iterable[Spent]) -> list[str]:
    from moa_cli.core.conversation import Usage
    from moa_cli.core.money import cost_text
    from moa_cli.terminal.table import Column, table_lines

    rows = [(one.model, one.turns, one.usage) for one in models]
    if len(rows) > 1:
        rows.append(("in all", turns, sum((usage for _, _, usage in rows), Usage())))
    columns = [
        Column(month, [name for name, _, _ in rows]),
        Column("turns", [f"{turns:,}" for _, turns, _ in rows], right=True, spare=4),
        Column("calls", [f"{one.calls:,}" for _, _, one in rows], right=True, spare=3),
        Column("tokens in", [f"{one.prompt_tokens:,}" for _, _, one in rows], right=True, spare=1),
        Column("out", [f"{one.completion_tokens:,}" for _, _, one in rows], right=True, spare=2),
        Column("cost", [cost_text(one) for _, _, one in rows]),
    ]
    # In a pipe nothing is cut.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    return table_lines(columns, width)

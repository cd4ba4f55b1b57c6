"""`moa history stats`: what was used and paid."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from moa_cli.cli import wiring
from moa_cli.cli.options import Json
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.money import cost_text
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.store.spending import MonthlySpending


def stats(json: Json = False) -> None:
    """Print turns, tokens and cost by month and model, of deleted conversations too."""
    spending = open_store(to_read=True).spending
    months, turns = spending.by_month(), spending.turns_by_month()
    zone = wiring.config().budget.zone
    if unsound := spending.unsound():
        say(f"{plural(unsound, 'row')} of the ledger with impossible values left out")
    if json:
        from moa_cli.core.jsonl import usage_to_dict

        rows = [
            {"month": row.month, "model": row.model, "turns": row.turns} | usage_to_dict(row.usage)
            for row in months
        ]
        told = {"zone": zone, "turns_by_month": turns, "models": rows}
        print_json(told)
        return
    if not months:
        say("nothing was spent yet")
        return
    for number, (month, models) in enumerate(groupby(months, key=lambda row: row.month)):
        print_lines([*[""] * bool(number), *_month(month, turns.get(month, 0), models)])
    say(f"months are those of {zone} (budget.zone)")


def _month(month: str, turns: int, models: Iterable[MonthlySpending]) -> list[str]:
    from moa_cli.core.conversation import Usage
    from moa_cli.terminal.table import Column, table_lines

    rows = [(spent.model, spent.turns, spent.usage) for spent in models]
    if len(rows) > 1:
        rows.append(("in all", turns, sum((usage for _, _, usage in rows), Usage())))
    usages = [usage for _, _, usage in rows]
    columns = [
        Column(month, [name for name, _, _ in rows]),
        Column("turns", [f"{turns:,}" for _, turns, _ in rows], right=True, spare=4),
        Column("calls", [f"{usage.calls:,}" for usage in usages], right=True, spare=3),
        Column("tokens in", [f"{usage.prompt_tokens:,}" for usage in usages], right=True, spare=1),
        Column("out", [f"{usage.completion_tokens:,}" for usage in usages], right=True, spare=2),
        Column("cost", list(map(cost_text, usages))),
    ]
    return table_lines(columns, output_width())

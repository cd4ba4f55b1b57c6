"""Tables of what was chosen blind, and `moa compare --results`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from moa_cli.bench.scoring.means import Mean
from moa_cli.cli.bench.cells import width_of_output
from moa_cli.cli.options import span_seconds
from moa_cli.cli.saving import open_store, warn
from moa_cli.compare.standings import Standing, standings
from moa_cli.core.money import usd
from moa_cli.core.text import plural
from moa_cli.terminal.table import Column, table_lines

__all__ = ["run", "standing_lines"]


def run(since: str | None, *, json: bool) -> None:
    """Print the table over all choices that were kept. since: a span such as `7d`."""
    after = time.time() - span_seconds(since) if since else 0.0
    comparisons = open_store(to_read=True).comparisons
    found = standings(comparisons.since(after))
    if comparisons.unsound:
        warn(f"{plural(comparisons.unsound, 'choice')} cannot be right, and are not counted")
    if json:
        from moa_cli.core.text import dumps

        sys.stdout.write(dumps([one.to_dict() for one in found], indent=2) + "\n")
    elif found:
        lines = standing_lines(found, width_of_output())
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    else:
        sys.stderr.write("moa: nothing was chosen yet\n")


def standing_lines(found: Sequence[Standing], width: int) -> list[str]:
    """A table. width: in cells."""
    same = Counter((one.arm, one.profile) for one in found)
    # Only where one name has had several settings must they be told apart.
    names = [
        f"{one.profile} #{one.settings}" if same[one.arm, one.profile] > 1 else one.profile
        for one in found
    ]
    return table_lines(
        [
            Column("arm", [one.arm for one in found], widest=40),
            Column("compared", [f"{one.compared:,}" for one in found], right=True, spare=1),
            Column("wins", [f"{one.wins:,}" for one in found], right=True),
            Column("ties", [f"{one.ties:,}" for one in found], right=True, spare=2),
            Column("win rate", [_rate(one.win_rate) for one in found], right=True),
            Column("cost/win", [_cost(one) for one in found], right=True),
            Column(
                "s/answer",
                [f"{one.seconds / one.compared:.1f}" for one in found],
                right=True,
                spare=3,
            ),
            Column("profile", names),
        ],
        width,
    )


def _rate(rate: Mean) -> str:
    value = f"{100 * (rate.value or 0.0):.0f}%"
    # The same answer twice shows no spread, which does not mean that there is none.
    return f"{value} ± {100 * rate.standard_error:.0f}" if rate.standard_error else value


def _cost(one: Standing) -> str:
    if one.usage.unpriced_calls:
        return "?"
    return "–" if one.cost_per_win is None else usd(one.cost_per_win)

"""Usage and costs as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moa_cli.core.conversation import Charge, Usage
from moa_cli.core.money import cost_text
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.profile import short_name


def _tokens(usage: Usage) -> str:
    about = "~" if usage.estimated_calls else ""
    return (
        f"{about}{plural(usage.prompt_tokens, 'token')} in, {about}{usage.completion_tokens:,} out"
    )


def usage_line(usage: Usage, seconds: float, ledger: Sequence[Charge]) -> str:
    """A line on the usage of a turn: calls, tokens, cost, seconds, and the cost of its most
    expensive model.

    `~` marks figures that contain estimates.
    """
    parts = [plural(usage.calls, "call"), _tokens(usage), cost_text(usage), f"{seconds:.1f} s"]
    line = ", ".join(parts)
    spent: dict[str, Usage] = {}
    for charge in ledger:
        spent[charge.model] = spent.get(charge.model, Usage()) + charge.usage
    dearest = max(spent, key=lambda name: spent[name].cost, default="")
    if len(spent) < 2 or not spent[dearest].cost:
        return line
    return f"{line}; dearest: {one_line(short_name(dearest), 40)} {cost_text(spent[dearest])}"


def spent_lines(spent: Mapping[str, Usage]) -> list[str]:
    """A line for each model, the most expensive first, and a line with the sum."""
    rows = sorted(spent.items(), key=lambda item: (-item[1].cost, -item[1].total_tokens))
    if len(rows) > 1:
        rows.append(("in all", sum(spent.values(), Usage())))
    width = max(len(one_line(model)) for model, _ in rows)
    lines = []
    for model, usage in rows:
        estimated = f" ({usage.estimated_calls} estimated)" if usage.estimated_calls else ""
        calls = plural(usage.calls, "call") + estimated
        lines.append(f"{one_line(model):<{width}}  {calls}, {_tokens(usage)}, {cost_text(usage)}")
    return lines

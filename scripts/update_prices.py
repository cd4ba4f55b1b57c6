"""Write the table of prices that comes with `moa`, from the package genai-prices.

The package itself is a dependency of development only: it takes 0.5 s to import, brings three
packages, and holds much that `moa` has no use for. What is left here loads in a few milliseconds.
With --check: write nothing, and end with 1 if the table is not that of the installed version.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

TARGET = Path(__file__).parent.parent / "moa_cli" / "models" / "prices.json"
# Those of the providers in moa_cli/models/table.py, and of routers that they stand behind.
WANTED = (
    "anthropic",
    "azure",
    "cerebras",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "mistral",
    "moonshotai",
    "openai",
    "openrouter",
    "perplexity",
    "together",
    "x-ai",
    "zai",
)
PREFIXES = ("huggingface_",)

# USD per million tokens of models that Together has retired and genai-prices does not know, by the
# classes of size in Together's price list of 2024 (41 to 80 billion parameters 0.90, to 110 billion
# 1.80, mixtures of experts to 176 billion 1.20). The list is gone, so they are estimates. Without
# them a cap would refuse the sets of the paper and of its later scripts.
RETIRED: dict[str, dict[str, float]] = {
    "together": {
        "qwen/qwen1.5-110b-chat": 1.8,
        "qwen/qwen1.5-72b-chat": 0.9,
        "qwen/qwen2.5-72b-instruct-turbo": 1.2,
        "qwen/qwen2.5-coder-32b-instruct": 0.8,
        "databricks/dbrx-instruct": 1.2,
    },
}


def clause(match: Any) -> list[Any]:
    """A rule on a model's id, as a list: its kind, then what it compares with."""
    match match:
        case types.ClauseEquals():
            return ["equals", match.equals.lower()]
        case types.ClauseStartsWith():
            return ["starts", match.starts_with.lower()]
        case types.ClauseEndsWith():
            return ["ends", match.ends_with.lower()]
        case types.ClauseContains():
            return ["contains", match.contains.lower()]
        case types.ClauseRegex():
            return ["regex", match.regex]
        case types.ClauseOr():
            return ["any", *map(clause, match.or_)]
        case types.ClauseAnd():
            return ["all", *map(clause, match.and_)]
    raise SystemExit(f"genai-prices has a new kind of rule: {match!r}")


def number(value: Any) -> float | int:
    """A decimal as JSON writes it, without a point that says nothing."""
    found = float(value)
    return int(found) if found == int(found) else found


def at(price: Any, start: int) -> Any:
    """What a price is for prompts of more than `start` tokens."""
    if not isinstance(price, types.TieredPrices):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= start]
    return reached[-1] if reached else price.base


def row(prices: Any, start: int) -> list[Any] | None:
    """The prices of prompt, completion and cached tokens; None if text is not priced."""
    found = [at(getattr(prices, name, None), start) for name in ("input_mtok", "output_mtok")]
    if None in found:
        return None
    cached = at(getattr(prices, "cache_read_mtok", None), start)
    return [*map(number, found), None if cached is None else number(cached)]


def entry(prices: Any) -> list[Any] | None:
    """One price: prompt, completion, cached, fee of a request, and the tiers above."""
    base = row(prices, 0)
    if base is None:
        return None
    values = [value for value in vars(prices).values() if isinstance(value, types.TieredPrices)]
    starts = sorted({tier.start for value in values for tier in value.tiers})
    tiers = [[start, *(row(prices, start) or base)] for start in starts]
    fee = getattr(prices, "requests_kcount", None)
    found = [*base, 0 if fee is None else number(fee / 1000), tiers]
    defaults = [None, 0, []]
    # What is as good as not written, at the end.
    while len(found) > 2 and found[-1] == defaults[len(found) - 3]:
        found.pop()
    return found


def phases(prices: Any) -> list[list[Any]]:
    """The prices by the day from which they hold, "" for always.

    Where a price depends on the time of day, the highest holds.
    """
    if isinstance(prices, types.ModelPrice):
        found = entry(prices)
        return [] if found is None else [["", *found]]
    rows: list[list[Any]] = []
    for conditional in prices:
        made = entry(conditional.prices)
        if made is None:
            continue
        if isinstance(conditional.constraint, types.TimeOfDateConstraint):
            if rows and made[:2] > rows[-1][1:3]:
                rows[-1] = [rows[-1][0], *made]
        else:
            since = getattr(conditional.constraint, "start_date", "")
            rows.append([str(since), *made])
    return rows


def table() -> str:
    """The text of the file: a line for each model, so that changes can be read."""
    distribution = importlib.metadata.distribution("genai-prices")
    licence = next(file for file in distribution.files or () if file.name == "LICENSE")
    head = {
        "source": f"genai-prices {distribution.version}",
        "licence": licence.read_text(),
    }
    parts = []
    for provider in sorted(providers, key=lambda provider: provider.id):
        if provider.id not in WANTED and not provider.id.startswith(PREFIXES):
            continue
        rows = [
            json.dumps(
                [clause(model.match), model.context_window, phases(model.prices)],
                separators=(",", ":"),
            )
            for model in provider.models
            if phases(model.prices)
        ]
        rows += [
            json.dumps([["equals", model], None, [["", usd, usd]]], separators=(",", ":"))
            for model, usd in RETIRED.get(provider.id, {}).items()
        ]
        parts.append(f"{json.dumps(provider.id)}:[\n" + ",\n".join(rows) + "\n]")
    told = json.dumps(head)[1:-1]
    return "{" + told + ',\n"providers":{\n' + ",\n".join(parts) + "\n}}\n"


def main() -> int:
    """Write the table, or check it."""
    made = table()
    if "--check" in sys.argv[1:]:
        current = TARGET.read_text(encoding="utf-8") == made
        if not current:
            print(f"{TARGET.name} is not current: run scripts/update_prices.py")
        return 0 if current else 1
    TARGET.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

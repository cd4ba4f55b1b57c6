"""The prices and context lengths that come with `moa`, for models whose lists do not have them.

`prices.json` is made from genai-prices (`scripts/update_prices.py`). It is read when a price is
first missing, which takes a few milliseconds.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import FREE, Price, PriceTier
from moa_cli.models.names import forms, says_free

_FILE = Path(__file__).with_name("prices.json")
# Other providers whose prices apply. A deployment at Azure usually has the name of its model, of
# any vendor. Hugging Face's router charges the prices of the hosts behind it.
_ALSO = {
    "azure": ("openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
    "cerebras": ("huggingface_cerebras",),
    "fireworks": ("huggingface_fireworks-ai",),
    "groq": ("huggingface_groq",),
    "together": ("huggingface_together",),
}
_ROUTER = "huggingface"

_Row = list[Any]


def from_table(provider: str, model: str) -> ModelInfo | None:
    """The context length of a model and its present price; None if the table does not have it. For
    a router whose host is not known, it is the highest price.

    provider: its name in the table. model: its id at the provider.
    """
    found = [known for tables in _tables(provider, model) if (known := _first(tables, model))]
    if not found:
        return None
    price, context = max(found, key=lambda known: known[0].prompt + known[0].completion)
    return ModelInfo(
        id=model, price=FREE if says_free(model) else price, context_length=context, from_table=True
    )


def _tables(provider: str, model: str) -> Iterator[list[str]]:
    """Groups of tables to look into. In each group, the first table that has the model counts."""
    if provider != _ROUTER:
        yield [provider, *_ALSO.get(provider, ())]
        return
    names = [name for name in _providers() if name.startswith(f"{_ROUTER}_")]
    chosen = f"{_ROUTER}_{model.rpartition(':')[2]}"
    for name in [chosen] if chosen in names else names:
        yield [name]


def _first(tables: list[str], model: str) -> tuple[Price, int | None] | None:
    """The price and the context length of a model, by the most similar form of its id."""
    for form in forms(model):
        for table in tables:
            for match, context, phases in _providers().get(table, ()):
                if _fits(match, form):
                    return _price(phases), context
    return None


def _price(phases: list[_Row]) -> Price:
    """The present price. phases: prices with the dates on which they begin; before all of them, the
    first one is used."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    reached = [phase for phase in phases if phase[0] <= today]
    phase = reached[-1] if reached else phases[0]
    # Missing values at the end of a row have the defaults of `Price`.
    rest: _Row = [None, 0, []]
    _, prompt, completion, cached, request, tiers = phase + rest[len(phase) - 3 :]
    return Price(
        float(prompt),
        float(completion),
        None if cached is None else float(cached),
        float(request),
        tuple(PriceTier(*tier) for tier in tiers),
    )


def _fits(match: _Row, model: str) -> bool:
    kind, *values = match
    match kind:
        case "equals":
            return bool(model == values[0])
        case "starts":
            return model.startswith(values[0])
        case "ends":
            return model.endswith(values[0])
        case "contains":
            return values[0] in model
        case "regex":
            return bool(re.search(values[0], model))
        case "any":
            return any(_fits(value, model) for value in values)
        case _:
            return all(_fits(value, model) for value in values)


@cache
def _providers() -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = json.loads(_FILE.read_bytes())["providers"]
    return found

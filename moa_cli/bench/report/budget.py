"""How much computation an answer takes, and which arms give the most for their cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from moa_cli.bench.run.journal import Result
from moa_cli.profile import short_name

# Billions of active parameters of models whose names do not give them: mixtures of experts. The
# values are from the makers' announcements.
_ACTIVE: Final = {"8x7b": 12.9, "8x22b": 39.0, "dbrx": 36.0}
_NAMED: Final = re.compile(r"(?<![a-z0-9.])(a?)(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")
# TFLOPs for each token and billion parameters: two operations for each parameter.
_PER_TOKEN: Final = 2e-3


def active_parameters(model: str) -> float | None:
    """Billions of active parameters, read from the model's name; None if it does not give them.
    `Qwen3-235B-A22B` has 22, `Llama-3-70b` has 70."""
    name = short_name(model).lower()
    for part, billions in _ACTIVE.items():
        if part in name:
            return billions
    found = [
        (bool(active), float(number) / (1 if unit == "b" else 1000))
        for active, number, unit in _NAMED.findall(name)
    ]
    if not found:
        return None
    return next((size for active, size in found if active), found[0][1])


def path_tflops(result: Result) -> float | None:
    """TFLOPs on the critical path of an item, computed as in the MoA paper: the sum over layers of
    the most that a call of the layer takes. None if a model's size is not known."""
    total = 0.0
    for layer in (layer for turn in result.turns for layer in turn.layers()):
        most = 0.0
        for answer in layer:
            size = active_parameters(answer.model)
            if size is None:
                return None
            most = max(most, _PER_TOKEN * size * answer.usage.total_tokens)
        total += most
    return total


def tflops_of(results: Iterable[Result]) -> list[float]:
    """The TFLOPs of each item; empty if those of one item are not known."""
    found = [path_tflops(result) for result in results]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else []


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indexes of the points on the Pareto front, cheapest first. For such a point, no other has
    the same score at a lower cost, or a higher score at the same cost or less. points: the cost and
    the score of each."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front

"""What an answer takes in tokens and computation, and which arms give most for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from moa_cli.bench.run.journal import Result
from moa_cli.profile import short_name

# Billions of active parameters of mixtures of experts whose names tell only the size of the experts
# (from the makers' announcements).
_ACTIVE: Final = {"8x7b": 12.9, "8x22b": 39.0, "dbrx": 36.0}
_NAMED: Final = re.compile(r"(?<![a-z0-9.])(a?)(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")
# Two operations for each parameter and token; of billions of parameters, in TFLOPs.
_PER_TOKEN: Final = 2e-3


def active_parameters(model: str) -> float | None:
    """Billions of active parameters, read from the model's name; None if the name does not tell.
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
    """TFLOPs on the critical path of an item, as the MoA paper has them: the most that a call of
    each layer takes, summed over the layers. None where a model's size is not known."""
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
    """Those of each item; none at all if one is not known."""
    found = [path_tflops(result) for result in results]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else []


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points that no other point beats: no other has as high a score for less, or
    a higher score for as much. The cheapest is first. points: what each takes, and its score."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front

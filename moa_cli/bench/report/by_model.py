"""Right answers of each model in each layer of a mixture."""

from __future__ import annotations

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.scoring.means import Mean, share_of


def accuracy_by_model(run: RunReader, arm: str) -> dict[tuple[str, int], Mean]:
    """How many proposals of each model are right in each layer (from 1), percent.

    A model's answer in a later layer is made of all proposals before it, so it tells how well the
    model aggregates. Empty without known answers.
    """
    grade = run.grader
    # Also where the dataset is not found again.
    if grade is None:
        return {}
    keyed = {item.id: item for item in run.items if item.answer is not None}
    told: dict[tuple[str, int], list[tuple[float, str]]] = {}
    for item, result in run.answers.get(arm, {}).items():
        known = keyed.get(item)
        if known is None or known.answer is None or not result.turns:
            continue
        for number, layer in enumerate(result.turns[-1].proposals, 1):
            by_model: dict[str, list[float]] = {}
            for proposal in layer:
                right = grade(proposal.text, known.answer, known.fields).score
                by_model.setdefault(proposal.model, []).append(right)
            for model, scores in by_model.items():
                share = sum(scores) / len(scores)
                told.setdefault((model, number), []).append((share, origin_of(item)))
    return {place: share_of(scores).in_percent() for place, scores in told.items()}

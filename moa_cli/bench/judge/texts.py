"""What a judge is shown: the run's replies, the reference's outputs, released anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import data_file
from moa_cli.bench.data.items import Item
from moa_cli.bench.judge.judgements import ANCHOR, REFERENCE
from moa_cli.bench.judge.released import read_released
from moa_cli.bench.run.folder import read_results
from moa_cli.bench.run.results import Result
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["Chosen", "Shown", "texts_of"]

# The reference's answers to AlpacaEval: as released with the dataset, or a part of them.
_REFERENCES = (
    "alpaca_eval/model_outputs.json",
    "alpaca_eval/gpt4_1106_preview.json",
    "alpaca_eval/slice50/model_outputs/gpt4_1106_preview.json",
)


@dataclass(frozen=True)
class Shown:
    """replies: what is judged, by arm and item. reference: what pairs are compared with, by item.

    texts: of the reference and the anchors, which are no results of the run. told: where they
    come from, for judge.json.
    """

    replies: Mapping[str, Mapping[str, tuple[str, ...]]]
    reference: Mapping[str, str]
    texts: Sequence[Result]
    told: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """reference: a file, else the one in the data folder. against: an arm in its place.
    anchors: files of released outputs. data: see `data_folder`."""

    reference: Path | None
    against: str | None
    anchors: tuple[Path, ...]
    data: Path | None


def texts_of(
    run: Path,
    settings: Mapping[str, Any],
    kind: str,
    items: Sequence[Item],
    chosen: Chosen,
    before: tuple[Mapping[str, Any], Mapping[tuple[str, str], Result]],
) -> Shown:
    """What is to be judged of a run.

    settings: what its run.json says. kind: of the judge. before: judge.json and the texts of an
    earlier start, whose anchors stay.
    Raises UsageError or BenchError where something is not there, or cannot be read.
    """
    replies = _replies(run, settings)
    texts: list[Result] = []
    source = None
    reference: dict[str, str] = {}
    if chosen.against is not None:
        if chosen.against not in replies:
            hint = f"there are {', '.join(replies)}"
            raise UsageError(f"--against: there is no arm `{chosen.against}`", hint=hint)
        reference = {item: one[0] for item, one in replies.pop(chosen.against).items()}
    elif kind == "pairwise":
        released = read_released(_reference_file(settings, chosen), kind, items)
        source = released.told()
        texts += released.results(REFERENCE, items)
        reference = {item: one[0] for item, one in released.replies.items()}
    anchors = {one["name"]: one for one in before[0].get("anchors", [])}
    texts += [one for one in before[1].values() if one.arm.startswith(ANCHOR)]
    for path in chosen.anchors:
        released = read_released(path, kind, items)
        known = anchors.setdefault(released.name, released.told())
        if known["sha256"] != released.sha256:
            raise BenchError(f"{path}: other answers of {released.name} were judged before")
        if not any(one.arm == ANCHOR + released.name for one in texts):
            texts += released.results(ANCHOR + released.name, items)
    for one in texts:
        if one.arm.startswith(ANCHOR):
            replies.setdefault(one.arm, {})[one.item] = one.replies
    told = {"reference": source, "against": chosen.against, "anchors": list(anchors.values())}
    return Shown(replies, reference, texts, told)


def _replies(run: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, ...]]]:
    found: dict[str, dict[str, tuple[str, ...]]] = {arm: {} for arm in settings["arms"]}
    for one in read_results(run):
        if one.error is None:
            found.setdefault(one.arm, {})[one.item] = one.replies
    return found


def _reference_file(settings: Mapping[str, Any], chosen: Chosen) -> Path:
    found = chosen.reference or data_file(settings, chosen.data, *_REFERENCES)
    if found is None:
        raise BenchError(
            f"there are no reference outputs ({_REFERENCES[0]})",
            hint="`moa bench fetch alpaca` gets them; --reference names another file",
        )
    return found

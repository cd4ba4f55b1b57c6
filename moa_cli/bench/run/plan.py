"""The plan of a run: the items, the arms, and everything on which its results depend."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from moa_cli.bench.data.datasets import ASKING_FOR_ANSWER, DATASETS
from moa_cli.bench.data.epochs import for_all_epochs, in_epochs
from moa_cli.bench.data.items import Item, sha256_of
from moa_cli.bench.data.loading import Dataset
from moa_cli.bench.data.released import read_outputs
from moa_cli.bench.data.sampling import ItemSample
from moa_cli.bench.run.arms import Arm, best_of, make_arms, proposers_of, with_given, with_parity
from moa_cli.bench.run.settings import FileDigest, RunSettings
from moa_cli.bench.scoring.answers import grader_of
from moa_cli.bench.scoring.rules import GRADERS
from moa_cli.core.conversation import Part
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_cli.profile import Aggregator, Profile, Proposer, to_table, waiting_for_all

# This is added to seeds from one epoch to the next. It is more than a proposer can have samples,
# because each sample has its own seed.
SEED_STEP = 1000

_Model = TypeVar("_Model", Proposer, Aggregator)


@dataclass(frozen=True)
class Work:
    """One item to be answered by one arm. order: the item's place among all items."""

    arm: Arm
    item: Item
    order: int

    @property
    def name(self) -> tuple[str, str]:
        """Arm and item, which is also the name of the result."""
        return self.arm.name, self.item.id


@dataclass(kw_only=True)
class RunPlan:
    """The run that the user asks for. Its arms wait for all proposers, unless an option says
    otherwise.

    kinds: the kinds of arms. best: the proposer for the arm `self`; None takes the first. parity:
    whether the settings of the MoA authors' scripts are used. limit: only this many items, from the
    first. given_files: the answers of the first layer (see `read_outputs`). answer_format: this is
    added to each question that has a right answer (see `format_of`). grader: compares replies with
    right answers, instead of the dataset's own grader (see `grader_of`). sample: the items, instead
    of `limit`. epochs: how often each item is asked.

    items: the items of all epochs. given: the answers of `given_files`, by model name and item.

    Raises UsageError if the options contradict each other, the profile or the dataset, BenchError
    if a file cannot be used.
    """

    profile: Profile
    dataset: Dataset
    kinds: tuple[str, ...]
    best: str | None = None
    parity: bool = False
    limit: int | None = None
    given_files: tuple[Path, ...] = ()
    answer_format: str | None = None
    grader: str | None = None
    sample: ItemSample | None = None
    epochs: int = 1
    items: tuple[Item, ...] = field(init=False)
    given: Mapping[str, Mapping[str, str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        whole, kinds = self.dataset.items, self.kinds
        items = whole[: self.limit] if self.sample is None else self.sample.of(whole)
        if self.grader is not None:
            _check_answers(self.grader, items)
        told = self.dataset.settings
        known = sorted(name for name, entry in DATASETS.items() if entry.parity)
        if self.parity and not (told.known and told.name in known):
            raise UsageError(f"--parity: the authors' scripts know {', '.join(known)} only")
        self.profile = waiting_for_all(self.profile)
        if self.given_files:
            if "self" in kinds:
                raise UsageError("--reference-paths: the arm `self` has proposers of its own")
            outputs = read_outputs(self.given_files, items)
            self.profile = with_given(self.profile, list(outputs))
            models = [proposer.model for proposer in self.profile.layer(1)]
            answers = (for_all_epochs(replies, self.epochs) for replies in outputs.values())
            self.given = dict(zip(models, answers, strict=True))
            _check_given(make_arms(self.profile, kinds, ""), self.given)
        self.items = in_epochs(items, self.epochs)
        self.best = best_of(self.profile, self.best) if "self" in kinds else None

    @property
    def count(self) -> int:
        """How many items are asked in each epoch."""
        return len(self.items) // self.epochs

    @cached_property
    def _known_arms(self) -> dict[tuple[str | None, int], list[Arm]]:
        return {}

    @cached_property
    def _is_seeded(self) -> bool:
        """Whether a model gets a seed. Seeds must differ between epochs: with the same seed, all
        epochs would get the same answer."""
        asked = [*self.profile.aggregators(), *proposers_of(self.profile)]
        return any(model.seed is not None for model in asked)

    def arms(self, category: str | None = None, epoch: int = 1) -> list[Arm]:
        """The arms for items of that category in that epoch."""
        parity = DATASETS[self.dataset.settings.name].parity if self.parity else None
        met = category if parity == "category" else None, epoch if self._is_seeded else 1
        if met not in self._known_arms:
            profile = with_parity(self.profile, parity, met[0]) if parity else self.profile
            profile = _reseeded(profile, (met[1] - 1) * SEED_STEP)
            self._known_arms[met] = make_arms(profile, self.kinds, self.best or "")
        return self._known_arms[met]

    def work(self) -> Iterator[Work]:
        for order, item in enumerate(self.items):
            item = _asking(item, self.answer_format)
            for arm in self.arms(item.category, item.epoch):
                yield Work(arm, item, order)

    def models(self) -> tuple[str, ...]:
        asked = [model for arm in self.arms() for model in arm.profile.models()]
        return tuple(dict.fromkeys(model for model in asked if model not in self.given))

    def settings(self) -> RunSettings:
        return RunSettings(
            source=str(self.dataset.file.absolute()),
            dataset=self.dataset.settings,
            limit=self.limit,
            arms=tuple(arm.name for arm in self.arms()),
            best=self.best,
            parity=self.parity,
            reference_paths=tuple(
                FileDigest(file.name, sha256_of(file)) for file in self.given_files
            ),
            profile={"name": self.profile.name, **to_table(self.profile)},
            prompt=AGGREGATE_AND_SYNTHESIZE,
            answer_format=self.answer_format,
            grader=self.grader,
            sample=self.sample,
            epochs=self.epochs,
            seed_step=SEED_STEP if self.epochs > 1 and self._is_seeded else None,
        )


def _check_answers(rule: str, items: Iterable[Item]) -> None:
    """Raise UsageError or BenchError if that grader cannot compare replies with their answers,
    which would be known only when everything is paid."""
    grade = grader_of(rule)
    keyed = [item for item in items if item.answer is not None]
    if not keyed:
        raise UsageError("--grader needs items with an `answer`", hint="there are none")
    for item in keyed if rule in ("number", "choice") else ():
        try:
            grade("", item.answer or "", item.fields)
        except BenchError as error:
            raise BenchError(f"item {item.id}: {error.message}", hint=error.hint) from None


def _reseeded(profile: Profile, step: int) -> Profile:
    if not step:
        return profile

    def moved(model: _Model) -> _Model:
        return model if model.seed is None else replace(model, seed=model.seed + step)

    return replace(
        profile.with_proposers(lambda proposers: [*map(moved, proposers)]),
        aggregator=moved(profile.aggregator),
    )


def format_of(dataset: Dataset, grader: str | None) -> str | None:
    """The text to add to a question that has a right answer, so that replies end in an answer that
    can be parsed; None if none is needed. grader: the run's grader, if it is not the dataset's
    own."""
    if grader not in (None, *GRADERS):
        # With a rule of their own for parsing answers, users ask for the format themselves.
        return None
    if dataset.settings.known:
        return DATASETS[dataset.settings.name].answer_format
    return ASKING_FOR_ANSWER if any(item.answer for item in dataset.items) else None


def _asking(item: Item, answer_format: str | None) -> Item:
    """The item, with the answer format added to its last question if it has a right answer."""
    if answer_format is None or item.answer is None:
        return item
    *before, last = item.turns
    parts = item.parts
    if parts and not before:
        parts = (*parts, Part("text", answer_format))
    return replace(item, turns=(*before, f"{last}\n\n{answer_format}"), parts=parts)


def _check_given(arms: Iterable[Arm], given: Collection[str]) -> None:
    """Raise UsageError if an arm would ask models for reviews whose answers are given in files."""
    for arm in arms:
        reviews = [stage for stage in arm.profile.stages() if stage.purpose]
        if any(settings.model in given for stage in reviews for settings in stage.models):
            raise UsageError(
                f"--reference-paths: the arm `{arm.name}` has the proposers judge each other, and"
                " their answers alone are there",
                hint="use at least two rounds, or other arms",
            )

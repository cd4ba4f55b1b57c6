"""What a run consists of: the items, the arms, and all that its results depend on."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import Dataset
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.outputs import read_outputs
from moa_cli.bench.run.arms import PARITY_DATASETS, Arm, best_of, make_arms, with_given, with_parity
from moa_cli.core.errors import UsageError
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_cli.profile import Profile, to_table
from moa_cli.version import __version__

__all__ = ["Plan", "Work", "make_plan"]


@dataclass(frozen=True)
class Work:
    """What one arm has to do with one item. order: the item's place."""

    arm: Arm
    item: Item
    order: int

    @property
    def name(self) -> tuple[str, str]:
        """Arm and item, as results are named."""
        return self.arm.name, self.item.id


@dataclass(frozen=True)
class Plan:
    """See `make_plan`. given: answers that are there already, by model name and item."""

    profile: Profile
    dataset: Dataset
    items: tuple[Item, ...]
    kinds: tuple[str, ...]
    best: str | None
    parity: bool
    limit: int | None
    given_files: tuple[Path, ...] = ()
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def _by_category(self) -> dict[str | None, list[Arm]]:
        return {}

    def arms(self, category: str | None = None) -> list[Arm]:
        """The arms as an item of that category meets them."""
        # Only there do settings depend on it.
        asked = category if self.parity and self.dataset.name == "mt" else None
        if asked not in self._by_category:
            name = self.dataset.name
            profile = with_parity(self.profile, name, asked) if self.parity else self.profile
            self._by_category[asked] = make_arms(profile, self.kinds, self.best or "")
        return self._by_category[asked]

    def work(self) -> Iterator[Work]:
        """Everything, item by item."""
        for order, item in enumerate(self.items):
            for arm in self.arms(item.category):
                yield Work(arm, item, order)

    def models(self) -> tuple[str, ...]:
        """The models that are asked."""
        asked = [model for arm in self.arms() for model in arm.profile.models()]
        return tuple(dict.fromkeys(one for one in asked if one not in self.given))

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON values for run.json."""
        dataset = self.dataset
        return {
            "versions": {"moa": __version__, "python": platform.python_version()},
            "source": str(self.dataset.file.absolute()),
            "dataset": {
                "name": dataset.name,
                "known": dataset.known,
                "file": dataset.file.name,
                "sha256": dataset.sha256,
                "items": len(dataset.items),
            },
            "limit": self.limit,
            "arms": [arm.name for arm in self.arms()],
            "best": self.best,
            "parity": self.parity,
            "reference_paths": [
                {"file": one.name, "sha256": hashlib.sha256(one.read_bytes()).hexdigest()}
                for one in self.given_files
            ],
            "profile": {"name": self.profile.name, **to_table(self.profile)},
            "prompt": AGGREGATE_AND_SYNTHESIZE,
        }


def make_plan(
    profile: Profile,
    dataset: Dataset,
    *,
    kinds: Sequence[str] = ("mixture",),
    best: str | None = None,
    parity: bool = False,
    limit: int | None = None,
    given_files: Sequence[Path] = (),
) -> Plan:
    """The run that is asked for.

    kinds: of `arms.ARMS`. best: the proposer for the arm `self`. limit: the first so many items.
    given_files: the first layer's answers (see `read_outputs`).
    Raises UsageError or BenchError where this makes no sense, or a file cannot be used.
    """
    items = dataset.items[:limit]
    if parity and not (dataset.known and dataset.name in PARITY_DATASETS):
        raise UsageError(f"--parity: the authors' scripts know {', '.join(PARITY_DATASETS)} only")
    given: dict[str, Mapping[str, str]] = {}
    if given_files:
        if "self" in kinds:
            raise UsageError("--reference-paths: the arm `self` has proposers of its own")
        outputs = read_outputs(given_files, items)
        profile = with_given(profile, [one.name for one in outputs])
        named = [one.model for one in profile.layer(1)]
        given = {model: one.answers for model, one in zip(named, outputs, strict=True)}
    return Plan(
        profile=profile,
        dataset=dataset,
        items=items,
        kinds=tuple(kinds),
        best=best_of(profile, best) if "self" in kinds else None,
        parity=parity,
        limit=limit,
        given_files=tuple(given_files),
        given=given,
    )

"""Which items of a dataset a run asks: a representative sample, or certain ids or categories."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from moa_cli.bench.data.items import Item
from moa_cli.core.errors import UsageError
from moa_cli.core.text import meant, plural

# How items are drawn. stratified: from each category in proportion to its size. random: without
# regard to categories. first: the first ones.
Draw = Literal["stratified", "random", "first"]
DRAWS: tuple[Draw, ...] = get_args(Draw)
_MOST_NAMED = 20


@dataclass(frozen=True)
class ItemSample:
    """The part of a dataset that a run asks, as run.json records it.

    items: how many items it has. limit: the most items to draw; None is all that match. draw, seed:
    how they are drawn. ids, categories: only these match; empty is any. shuffle: whether items are
    asked in the order of the draw, so that a stopped run also has a sample. Otherwise they are
    asked in the dataset's order.
    """

    items: int
    limit: int | None = None
    draw: Draw = "stratified"
    seed: int = 0
    ids: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    shuffle: bool = False

    def of(self, items: Sequence[Item]) -> tuple[Item, ...]:
        known = [
            item
            for item in items
            if (not self.ids or item.id in self.ids)
            and (not self.categories or item.category in self.categories)
        ]
        drawn = _drawn(known, self.draw, self.seed)[: self.limit]
        if self.shuffle:
            return tuple(drawn)
        chosen = {item.id for item in drawn}
        return tuple(item for item in known if item.id in chosen)

    def text(self) -> str:
        """The sample in words, to be put after the number of items."""
        parts = []
        if self.ids:
            parts.append("by their ids")
        if self.categories:
            parts.append(f"of {', '.join(self.categories)}")
        if self.draw == "first":
            parts.append("the first ones")
        elif self.limit is not None or self.shuffle:
            how = "drawn by category" if self.draw == "stratified" else "drawn at random"
            parts.append(f"{how}, seed {self.seed}")
        if self.shuffle:
            parts.append("asked in that order")
        return ", ".join(parts)


def sample_of(
    items: Sequence[Item],
    *,
    limit: int | None = None,
    draw: Draw = "stratified",
    seed: int = 0,
    ids: Collection[str] = (),
    categories: Collection[str] = (),
    shuffle: bool = False,
) -> ItemSample | None:
    """The sample that these options describe; None if it is the whole dataset or its first items.

    Raises UsageError if an id or a category does not exist, or no item matches both.
    """
    for wanted, there, what in (
        (ids, [item.id for item in items], "item"),
        (categories, [item.category for item in items if item.category], "category"),
    ):
        for name in wanted:
            if name not in there:
                raise _unknown(name, there, what)
    narrowed = bool(ids or categories or shuffle)
    if not narrowed and (draw == "first" or limit is None or limit >= len(items)):
        return None
    sample = ItemSample(
        0, limit, draw, seed, tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(categories)), shuffle
    )
    count = len(sample.of(items))
    if not count:
        raise UsageError("no item has one of these ids and one of these categories")
    return replace(sample, items=count)


def _unknown(name: str, there: Sequence[str], what: str) -> UsageError:
    names = list(dict.fromkeys(there))
    otherwise = "" if names else "its items have none"
    if len(names) > _MOST_NAMED:
        otherwise = f"there are {plural(len(names), what)}, such as {', '.join(names[:3])}"
    return UsageError(f"the dataset has no {what} `{name}`", hint=meant(name, names, otherwise))


def _drawn(items: Sequence[Item], draw: Draw, seed: int) -> list[Item]:
    """The items in the order of the draw. So a smaller sample is a part of each larger one.

    For a stratified draw, the next item comes from the category that is furthest below its share
    (Sainte-Laguë's method, by which parliaments distribute seats). The order of items in a category
    depends only on the seed and their ids, and not on the version of Python.
    """
    if draw == "first":
        return list(items)
    strata: dict[str | None, list[Item]] = defaultdict(list)
    for item in items:
        strata[item.category if draw == "stratified" else None].append(item)
    ranked = []
    for members in strata.values():
        members.sort(key=lambda item: _lot(seed, item.id))
        ranked += [
            ((place + 0.5) / len(members), _lot(seed, item.id), item)
            for place, item in enumerate(members)
        ]
    return [item for _, _, item in sorted(ranked, key=lambda row: row[:2])]


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()

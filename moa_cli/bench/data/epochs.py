"""Epochs: a run may ask each of its items several times.

Each epoch of an item is an item with its own id (`q1`, `q1 epoch 2`, `q1 epoch 3`). So the journal,
judges and exports keep epochs apart as they keep items apart. Statistics must not do so: all epochs
of one item are one observation, which `origin_of` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from moa_cli.bench.data.items import Item
from moa_cli.core.errors import UsageError

_LATER = re.compile(r" epoch ([2-9]|[1-9][0-9]+)\Z")

_Value = TypeVar("_Value")


def epoch_id(item: str, epoch: int) -> str:
    """The id of an item in that epoch. Epochs count from 1."""
    return item if epoch == 1 else f"{item} epoch {epoch}"


def epoch_of(item: str) -> int:
    """The epoch that an id belongs to."""
    found = _LATER.search(item)
    return int(found[1]) if found else 1


def origin_of(item: str) -> str:
    """The id that an item of any epoch has in the dataset."""
    return _LATER.sub("", item)


def first_epoch(items: Iterable[Item]) -> tuple[Item, ...]:
    """The items of the first epoch, so that each item is there once."""
    return tuple(item for item in items if item.epoch == 1)


def own_id(item: Item) -> str:
    """The id that an item has in the dataset, even if it looks like the id of a later epoch."""
    return item.id if item.epoch == 1 else origin_of(item.id)


def in_epochs(items: Sequence[Item], epochs: int) -> tuple[Item, ...]:
    """The items of all epochs, one epoch after another. In this order a stopped run has asked as
    many items as possible, and a run that gets another epoch continues at its end.

    Raises UsageError if the id of an item looks like that of a later epoch.
    """
    if epochs == 1:
        return tuple(items)
    for item in items:
        if epoch_of(item.id) > 1:
            raise UsageError(
                f"--epochs: the item `{item.id}` is called as a later epoch of"
                f" `{origin_of(item.id)}` would be",
                hint="give it another `id`",
            )
    return tuple(
        replace(item, id=epoch_id(item.id, epoch), epoch=epoch)
        for epoch in range(1, epochs + 1)
        for item in items
    )


def for_all_epochs(known: Mapping[str, _Value], epochs: int) -> dict[str, _Value]:
    """Values by the items' ids in all epochs. known: the same values by the ids in the dataset."""
    return {
        epoch_id(item, epoch): value
        for epoch in range(1, epochs + 1)
        for item, value in known.items()
    }

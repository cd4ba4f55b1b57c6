"""Chooses the references of a model: a random subset of them, or all in a random order.

Source of the subsets: "Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models"
(arXiv:2509.26626). There, each of the N samples of a step aggregates K samples of the step before,
which are drawn again for each sample. A draw depends only on the prompt, the place of the call and
the number of references, so that a replay of a turn sends the same requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from moa_cli.profile import Profile

_R = TypeVar("_R")


def references_of_calls(
    profile: Profile, references: Sequence[_R], prompt: str, layer: int, calls: int
) -> list[Sequence[_R]] | None:
    """The references of each call of a layer of proposers; None if each call is given all of them.

    prompt: the user's message. layer: its number, from 1.
    """
    most = profile.references if profile.references is not None else len(references)
    if most >= len(references) and not profile.shuffle:
        return None
    return [
        _drawn(references, most, f"{prompt}\0{layer}\0{index}", shuffle=profile.shuffle)
        for index in range(calls)
    ]


def shuffled(references: Sequence[_R], prompt: str, layer: int) -> list[_R]:
    """All references in another order."""
    return _drawn(references, len(references), f"{prompt}\0{layer}", shuffle=True)


def _drawn(references: Sequence[_R], most: int, seed: str, *, shuffle: bool) -> list[_R]:
    # The draw protects no secret, so a weak random generator will do.
    places = Random(seed).sample(  # noqa: S311
        range(len(references)), min(most, len(references))
    )
    return [references[place] for place in (places if shuffle else sorted(places))]

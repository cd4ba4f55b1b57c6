"""Chooses a mixture from the models that an endpoint offers.

Models of one family give similar answers, so a mixture takes one model of each family: the newest
general one and, among equally new ones, the largest. Only the names of models are known, and
sometimes their prices. So the rules read names as the vendors write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moa_cli.core.endpoints import ModelInfo

# Families of models; those that answer best for their size come first. A longer name comes before a
# shorter one that it contains.
_FAMILIES = (
    *("claude", "gpt-oss", "gpt", "gemini", "deepseek", "qwen", "kimi", "glm", "grok", "minimax"),
    *("mistral", "llama", "gemma", "phi", "command", "nova", "nemotron", "hermes", "granite"),
    *("hunyuan", "ernie", "exaone", "jamba", "sonar", "olmo", "falcon", "yi", "smollm"),
)
# Names of models whose family has another name.
_OTHER_NAMES = {
    "mixtral": "mistral",
    "ministral": "mistral",
    "magistral": "mistral",
    "codestral": "mistral",
    "devstral": "mistral",
    "qwq": "qwen",
    "o1": "gpt",
    "o3": "gpt",
    "o4": "gpt",
    "chatgpt": "gpt",
}
# Base models, which complete a text and do not answer questions.
_BASE = re.compile(r"(?:^|[-/_:])(?:base|pt)(?:[-_:]|$)", re.IGNORECASE)
# Words in the names of models that do not represent their family: special purposes, previews, small
# and large variants.
_SPECIAL = re.compile(
    r"code|math|vision|\bvl\b|-vl|preview|thinking|reason|\br1\b|search|research|-exp|free|distill"
    r"|uncensored|abliterat|mini|nano|lite|tiny|flash|\bpro\b",
    re.IGNORECASE,
)
_SIZE = re.compile(r"(?<![\d.a-z])(?:(\d+)x)?(\d+(?:\.\d+)?)(b|m)(?![a-z])", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(?:20\d{2}[-.]?\d{2}[-.]?\d{2}|\d{4,})(?!\d)")
# USD per million completion tokens: a mixture is not made of paid models that cost more.
_MOST_USD = 16.0
# How often a mixture of a single model asks it.
_SAMPLES = 3


@dataclass(frozen=True)
class ChosenMixture:
    """The models of a mixture, by name. samples: how often each proposer is asked."""

    proposers: tuple[str, ...]
    aggregator: str
    samples: int = 1

    def table(self) -> dict[str, Any]:
        """The mixture as the table of a profile's file."""
        samples = {} if self.samples == 1 else {"samples": self.samples}
        proposers = [{"model": model, **samples} for model in self.proposers]
        return {"rounds": 1, "proposers": proposers, "aggregator": {"model": self.aggregator}}


def can_chat(info: ModelInfo) -> bool:
    """Whether a listed model is a chat model, as far as is known.

    It is not if no profile can contain its id, such as one with spaces or control characters.
    """
    is_name = bool(info.id) and info.id.isprintable() and " " not in info.id
    return is_name and info.kind == "chat" and _BASE.search(info.id) is None


def family(model: str) -> str:
    """The family of a model: a known one, else the first word of its name."""
    name = model.rpartition("/")[2].lower()
    for other, known in _OTHER_NAMES.items():
        if re.match(rf"{other}(?![a-z])", name):
            return known
    found = next((known for known in _FAMILIES if known in name), None)
    if found is not None:
        return found
    word = re.match(r"[a-z]+", name)
    return word[0] if word else name


def size(model: str) -> float:
    """The number of a model's parameters, in billions; 0 if its name does not have it."""
    name = model.rpartition("/")[2]
    sizes = [
        float(experts or 1) * float(number) / (1 if unit.lower() == "b" else 1000)
        for experts, number, unit in _SIZE.findall(name)
    ]
    return max(sizes, default=0.0)


def _version(model: str) -> tuple[float, ...]:
    """The version in a model's name, such as (3.3,) for Llama-3.3-70B; () if there is none."""
    name = _DATE.sub("", _SIZE.sub("", model.rpartition("/")[2].lower()))
    return tuple(float(number) for number in re.findall(r"\d+(?:\.\d+)?", name)[:1])


def choose(provider: str, offered: Sequence[ModelInfo], *, most: int = 4) -> ChosenMixture | None:
    """A mixture of models that `provider` offers: one of each of the best families. The best of
    them is also the aggregator. If there is only one model, it is sampled several times. None if
    there is no chat model.

    offered: the provider's list. most: the largest number of proposers.
    """
    chats = [info for info in offered if can_chat(info)]
    affordable = [info for info in chats if _usd(info) <= _MOST_USD] or chats
    members: dict[str, list[ModelInfo]] = {}
    for info in affordable:
        members.setdefault(family(info.id), []).append(info)
    by_family = {name: max(infos, key=_rank) for name, infos in members.items()}
    # Models of unknown families may be anything, so they are used only if there are no others.
    known_families = {name: info for name, info in by_family.items() if name in _FAMILIES}
    best = _by_quality(known_families or by_family)[:most]
    names = tuple(f"{provider}:{info.id}" for info in best)
    if not names:
        return None
    return ChosenMixture(names, names[0], samples=1 if len(names) > 1 else _SAMPLES)


def _by_quality(by_family: dict[str, ModelInfo]) -> list[ModelInfo]:
    """The models, the best first: by size if all names have one, as on the user's own machine, else
    by the order of families."""
    place = {name: number for number, name in enumerate(_FAMILIES)}

    def key(item: tuple[str, ModelInfo]) -> tuple[float, int, str]:
        name, info = item
        return -size(info.id), place.get(name, len(place)), info.id

    all_sized = all(size(info.id) for info in by_family.values())
    items: Iterable[tuple[str, ModelInfo]] = by_family.items()
    if all_sized:
        return [info for _, info in sorted(items, key=key)]
    return [info for _, info in sorted(items, key=lambda item: key(item)[1:])]


def _rank(info: ModelInfo) -> tuple[bool, tuple[float, ...], float, float, int]:
    """A key by which the model that best represents its family is the greatest."""
    model = info.id
    is_general = _SPECIAL.search(model.rpartition("/")[2]) is None
    # Among names that differ by a date, the shortest is an alias that is kept up to date.
    return is_general, _version(model), size(model), _usd(info), -len(model)


def _usd(info: ModelInfo) -> float:
    return 0.0 if info.price is None else float(info.price.completion)

"""The settings of a run, a judge or a batch: run.json, judge.json and batch.json.

The format has a number. Files of format 1 do not contain it, so that they are byte for byte the
same as those of versions that had no number.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.data.loading import DatasetSettings
from moa_cli.bench.data.released import ReleasedDigest
from moa_cli.bench.data.sampling import ItemSample
from moa_cli.core import paths
from moa_cli.core.errors import BenchError
from moa_cli.core.money import Price, check_price, price_values
from moa_cli.core.text import dumps
from moa_cli.core.values import load_value

FORMAT = 1
# Keys that later versions have added. They are left out if unset, so that files without them are
# byte for byte the same as those of older versions.
_ADDED = (
    *("answer_format", "grader", "provider_batch", "ratings", "reading", "reasoning_tokens"),
    *("rubric", "sample", "seed_step", "shard"),
)
# Settings that may differ between starts of the same work.
_FREE = (
    *("anchors", "asked", "date", "discrete", "facts", "reasoning_tokens"),
    *("source", "versions"),
)

# A message shows at most this many characters of a setting, of which this many before the
# difference.
_LONGEST_SHOWN, _SHOWN_ALIKE = 60, 20


@dataclass(frozen=True)
class Versions:
    moa: str
    python: str


@dataclass(frozen=True)
class ModelFacts:
    """The facts on a model from when the work began; None is unknown."""

    context_length: int | None
    price: Price | None

    def __post_init__(self) -> None:
        if self.price is not None:
            check_price(self.price)


@dataclass(frozen=True)
class FileDigest:
    """A file that the results depend on: its name and the SHA-256 of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class WorkSettings:
    """The settings that all these files have. facts: by model; None if the work has not begun."""

    format: int = FORMAT
    versions: Versions | None = None
    facts: Mapping[str, ModelFacts] | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings(WorkSettings):
    """The content of run.json: everything on which the results of a run depend.

    source: the absolute path of the dataset's file. limit: only this many items, from the first;
    None is all. arms: their names. best: the proposer of the arm `self`. reference_paths: the files
    with the first layer's answers. profile: the table of the profile and its name. prompt: the
    instruction that comes before references. answer_format: the text that is added to each question
    with a right answer. grader: the grader that compares replies with right answers, if it is not
    the dataset's own. sample: which items are asked; None for all, or the first `limit`. epochs:
    how often each item is asked; left out of the file if it is 1. seed_step: the number that is
    added to the seeds of the profile from one epoch to the next; None without seeds, or for one
    epoch.
    """

    source: str | None = None
    dataset: DatasetSettings
    limit: int | None = None
    arms: tuple[str, ...]
    best: str | None = None
    parity: bool = False
    reference_paths: tuple[FileDigest, ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    answer_format: str | None = None
    grader: str | None = None
    sample: ItemSample | None = None
    epochs: int = 1
    seed_step: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError("`epochs` is not a number from 1 on")

    @property
    def asked(self) -> int:
        """How many items are asked in each epoch."""
        if self.sample is not None:
            return self.sample.items
        whole = self.dataset.items
        return whole if self.limit is None else min(self.limit, whole)

    @property
    def askings(self) -> int:
        """How many answers each arm gives: one for each item in each epoch."""
        return self.asked * self.epochs

    @property
    def aggregator(self) -> Mapping[str, Any]:
        return dict(self.profile.get("aggregator", {}))


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(WorkSettings):
    """The content of judge.json: everything on which a judge's verdicts on a run depend.

    model: the judge. date: when it made its first judgement, YYYY-MM-DD. asked: how
    log-probabilities are asked for. discrete: whether preferences are read in a text. files: the
    SHA-256 of the prompt's files, by name. reference, against: the released outputs or the arm of
    the run that replies are compared with. anchors: released outputs that are also judged.
    reasoning_tokens: how many tokens for reasoning the judge has in addition to those for its
    verdict; None is none. rubric: the user's rubric for ratings. ratings: whether ratings are
    computed from log-probabilities; None reads them in the text.
    """

    model: str
    date: str = ""
    kind: str
    asked: Literal["logprobs", "count", "text"] = "logprobs"
    discrete: bool = False
    files: Mapping[str, str] | None = None
    reference: ReleasedDigest | None = None
    against: str | None = None
    anchors: tuple[ReleasedDigest, ...] = ()
    reasoning_tokens: int | None = None
    rubric: str | None = None
    ratings: Literal["logprobs"] | None = None


Settings = TypeVar("Settings", bound=WorkSettings)


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """The settings in that file.

    Raises BenchError if it cannot be read, is damaged, has an unknown key (the message has its
    path), or has the format of a later version.
    """
    table = read_table(path)
    found = table.get("format", FORMAT)
    if found != FORMAT:
        raise BenchError(
            f"{path}: has format {found}, written by a later version of moa",
            hint="update moa to read it",
        )
    unknown = ", ".join(f"`{place}`" for place in _unknown(kind, table, ""))
    if unknown:
        raise BenchError(f"{path}: unknown key {unknown}", hint="remove it, or update moa")
    facts = table.pop("facts", None)
    try:
        settings = load_value(kind, table, strict=True)
        if facts is not None:
            known = {
                name: load_value(ModelFacts, values, strict=True) for name, values in facts.items()
            }
            settings = replace(settings, facts=known)
    except (ValueError, AttributeError) as error:
        raise BenchError(f"{path}: is damaged: {error}") from None
    return settings


def write_settings(path: Path, settings: WorkSettings) -> None:
    """Replace the file in one step. Raises OSError."""
    with paths.replacing(path) as file:
        file.write(dumps(_table(settings), indent=2).encode() + b"\n")


def differences(old: WorkSettings, new: WorkSettings) -> Iterator[str]:
    """The differences that matter, each as `path was old, is new`."""
    # Both as they would be read from a file, with lists instead of tuples and so on.
    before, now = (json.loads(dumps(_table(settings))) for settings in (old, new))
    for table in (before, now):
        for name in _FREE:
            table.pop(name, None)
        # The description is for users. No model sees it.
        table.get("profile", {}).pop("description", None)
        table.setdefault("epochs", 1)
    yield from _differences(before, now, "")


def _table(settings: WorkSettings) -> dict[str, Any]:
    """The settings as JSON values, in the order of the file."""
    table = asdict(settings)
    facts = table.pop("facts")
    if table["format"] == 1:
        del table["format"]
    for name in _ADDED:
        if table.get(name, "") is None:
            del table[name]
    if table.get("epochs") == 1:
        del table["epochs"]
    if facts is None or settings.facts is None:
        return table
    for name, known in settings.facts.items():
        if known.price is not None:
            facts[name]["price"] = price_values(known.price)
    return {**table, "facts": facts}


def _unknown(kind: Any, value: Any, path: str) -> Iterator[str]:
    """The paths of keys in `value` that the type does not have."""
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        for key, inner in value.items():
            place = f"{path}.{key}" if path else key
            if key in hints:
                yield from _unknown(hints[key], inner, place)
            else:
                yield place
    elif get_origin(kind) in (Union, types.UnionType):
        for arm in get_args(kind):
            yield from _unknown(arm, value, path)
    elif isinstance(value, dict) and len(get_args(kind)) == 2:
        for key, inner in value.items():
            yield from _unknown(get_args(kind)[1], inner, f"{path}.{key}")
    elif isinstance(value, list) and get_origin(kind) is tuple:
        for number, inner in enumerate(value, 1):
            yield from _unknown(get_args(kind)[0], inner, f"{path}[{number}]")


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, now) in enumerate(zip(old, new, strict=True), 1):
            yield from _differences(before, now, f"{path}[{number}]")
    elif old != new:
        before, now = _shown(old, new)
        yield f"`{path}` was {before}, is {now}"


def _shown(old: Any, new: Any) -> Iterator[str]:
    """Two different values, each cut to a part that shows the difference, because long values may
    begin alike."""
    texts = ["unset" if v is None else json.dumps(v, ensure_ascii=False) for v in (old, new)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), min(map(len, texts)))
    start = max(0, same - _SHOWN_ALIKE) if same > _LONGEST_SHOWN // 2 else 0
    for text in texts:
        part, rest = text[start : start + _LONGEST_SHOWN], text[start + _LONGEST_SHOWN :]
        yield f"{'…' if start else ''}{part}{'…' if rest else ''}"

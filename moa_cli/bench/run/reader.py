"""A run's folder as it was left: settings, items, results, calls, and what judges said.

    RUN/run.json         settings (`RunSettings`), with the facts on models
    RUN/items.jsonl      a `Result` for each arm and item
    RUN/calls.jsonl      a `CallRecord` for each call
    RUN/judges/NAME/     of each judge: judge.json (`JudgeSettings`), judgements.jsonl
                         (`Judgement`), outputs.jsonl (a `Result` for each text that it was shown
                         and that is no result of the run), calls.jsonl

Each file is read when it is first asked for. Lines that follow later replace earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moa_cli.bench.data.datasets import DATASETS, Grader, KnownDataset, grade_own
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import read_records
from moa_cli.bench.data.loading import data_file, dataset_of
from moa_cli.bench.run.journal import CALLS, CallJournal
from moa_cli.bench.run.records import ANCHOR, Judgement, Result
from moa_cli.bench.run.settings import JudgeSettings, ModelFacts, RunSettings, read_settings
from moa_cli.core.errors import BenchError, UsageError

RUN_FILE, ITEMS = "run.json", "items.jsonl"
JUDGE_FILE, JUDGEMENTS, OUTPUTS = "judge.json", "judgements.jsonl", "outputs.jsonl"
_JUDGES = "judges"


def read_results(path: Path) -> list[Result]:
    """The results in a file of them, the latest of each arm and item. Raises BenchError."""
    return list({result.name: result for result in read_records(path, Result)}.values())


def read_judgements(path: Path) -> list[Judgement]:
    """The verdicts in a file of them, the latest on each answer. Raises BenchError."""
    return list({verdict.name: verdict for verdict in read_records(path, Judgement)}.values())


def judge_folder(run: Path, model: str) -> Path:
    """Where the judgements of that model are, by its full name."""
    return run / _JUDGES / re.sub(r"[^A-Za-z0-9._-]+", "-", model)


@dataclass(frozen=True)
class JudgeReader:
    """What a judge said of a run; see the module. path: of its folder."""

    path: Path
    settings: JudgeSettings

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """Its verdicts, failed ones included. Raises BenchError if the file is damaged."""
        return tuple(read_judgements(self.path / JUDGEMENTS))

    @cached_property
    def texts(self) -> Mapping[tuple[str, str], Result]:
        """What it was shown besides the run's results: by arm (`reference`, `anchor:NAME`) and
        item. Raises BenchError if the file is damaged."""
        return {result.name: result for result in read_results(self.path / OUTPUTS)}

    def anchors(self) -> dict[str, list[Result]]:
        """The released outputs among the texts, by arm."""
        found: dict[str, list[Result]] = {}
        for result in self.texts.values():
            if result.arm.startswith(ANCHOR):
                found.setdefault(result.arm, []).append(result)
        return found

    @cached_property
    def calls(self) -> CallJournal:
        """Its calls. Raises BenchError if the file is damaged."""
        return CallJournal(self.path / CALLS)


@dataclass(frozen=True)
class RunReader:
    """What a run's folder holds; see the module. `read_run` makes it.

    data: where the dataset is (its folder, or the user's own file), if it has been moved since.
    """

    path: Path
    settings: RunSettings
    data: Path | None = None

    @property
    def facts(self) -> Mapping[str, ModelFacts]:
        """What was known of the models when the run began."""
        return self.settings.facts or {}

    @property
    def dataset(self) -> KnownDataset | None:
        """The dataset, if it is known by name; None for the user's own file."""
        told = self.settings.dataset
        return DATASETS.get(told.name) if told.known else None

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """What was asked.

        Raises:
            BenchError: The dataset's file is missing, damaged, or not what the run read.
            UsageError: It is not text.
        """
        settings = self.settings
        return dataset_of(settings.dataset, settings.source, self.data).items[: settings.limit]

    @cached_property
    def missing(self) -> str:
        """Why the items cannot be had; "" if they can."""
        try:
            self.items  # noqa: B018
        except (BenchError, UsageError) as error:
            return error.message
        return ""

    @property
    def known_items(self) -> tuple[Item, ...] | None:
        """What was asked; None where that cannot be had (see `missing`)."""
        return None if self.missing else self.items

    @property
    def grader(self) -> Grader | None:
        """What tells whether a reply is right; None where no item has a known answer."""
        known = self.dataset
        grade = known.grade if known else grade_own
        answered = any(item.answer is not None for item in self.known_items or ())
        return grade if answered and (known or not self.settings.dataset.known) else None

    def data_file(self, *names: str) -> Path | None:
        """The first of these files of the data folder that is there."""
        settings = self.settings
        return data_file(settings.dataset, settings.source, self.data, *names)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """All results, failed ones included. Raises BenchError if the file is damaged."""
        return tuple(read_results(self.path / ITEMS))

    @cached_property
    def answers(self) -> Mapping[str, Mapping[str, Result]]:
        """The results that did not fail, by arm and item; arms are there also without any."""
        found: dict[str, dict[str, Result]] = {arm: {} for arm in self.settings.arms}
        for result in self.results:
            if result.error is None:
                found.setdefault(result.arm, {})[result.item] = result
        return found

    @cached_property
    def calls(self) -> CallJournal:
        """The run's calls. Raises BenchError if the file is damaged."""
        return CallJournal(self.path / CALLS)

    @cached_property
    def judges(self) -> Mapping[str, JudgeReader]:
        """The judges by their models' names. Raises BenchError if a judge.json is damaged."""
        folders = sorted(file.parent for file in (self.path / _JUDGES).glob(f"*/{JUDGE_FILE}"))
        found = [
            JudgeReader(folder, read_settings(folder / JUDGE_FILE, JudgeSettings))
            for folder in folders
        ]
        return {judge.settings.model: judge for judge in found}

    def judge(self, model: str) -> JudgeReader:
        """The judge of that name. Raises BenchError if it has not judged the run."""
        if model not in self.judges:
            there = ", ".join(self.judges)
            command = f"moa bench judge {self.path} --judge {model}"
            raise BenchError(
                f"{self.path}: there are no judgements by {model}",
                hint=f"judged by: {there}" if there else command,
            )
        return self.judges[model]


def read_run(path: Path, data: Path | None = None) -> RunReader:
    """The run in that folder.

    Args:
        path: The folder.
        data: Where its dataset is, if that has been moved since.

    Returns:
        The run; its files but run.json are read when they are asked for.

    Raises:
        BenchError: It is not the folder of a run, or run.json is damaged.
    """
    if not (path / RUN_FILE).exists():
        raise BenchError(f"{path}: is not the folder of a run: there is no {RUN_FILE}")
    return RunReader(path, read_settings(path / RUN_FILE, RunSettings), data)

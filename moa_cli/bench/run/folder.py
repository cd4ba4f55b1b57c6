"""The folder of a run, a judge or a batch. It holds the whole state of the work, so that work can
be stopped and continued.

    RUN/run.json         settings (`RunSettings`), with the facts on models
    RUN/items.jsonl      a `Result` for each arm and item
    RUN/calls.jsonl      a `CallRecord` for each call
    RUN/judges/NAME/     for each judge: judge.json (`JudgeSettings`), judgements.jsonl
                         (`Judgement`), outputs.jsonl (a `Result` for each text that the judge was
                         shown besides results of the run), calls.jsonl

Lines that follow later replace earlier ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from moa_cli.bench.data.datasets import DATASETS, KnownDataset
from moa_cli.bench.data.epochs import in_epochs
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import Lines, read_records, to_line
from moa_cli.bench.data.loading import data_folder, dataset_of
from moa_cli.bench.run.growth import growth_of
from moa_cli.bench.run.journal import ANCHOR, CALLS, CallJournal, Judgement, Result
from moa_cli.bench.run.plan import RunPlan
from moa_cli.bench.run.settings import (
    JudgeSettings,
    ModelFacts,
    RunSettings,
    Settings,
    Versions,
    differences,
    read_settings,
    write_settings,
)
from moa_cli.bench.scoring.answers import Grader, Verdict, grader_of
from moa_cli.core import paths
from moa_cli.core.conversation import Failure
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.lock import locked_folder
from moa_cli.core.files.new_file import why_unfit
from moa_cli.version import __version__

RUN_FILE, ITEMS = "run.json", "items.jsonl"
JUDGE_FILE, JUDGEMENTS, OUTPUTS = "judge.json", "judgements.jsonl", "outputs.jsonl"
_JUDGES = "judges"
_MOST_DIFFERENCES = 3
# File systems take 255 bytes. Other words may stand before it.
_LONGEST_NAME = 180

_Record = TypeVar("_Record", Result, Judgement)


def latest(path: Path, kind: type[_Record]) -> dict[Any, _Record]:
    """The latest record of each name in a file, by name. Raises BenchError."""
    return {record.name: record for record in read_records(path, kind)}


def folder_name(name: str, *, digest: bool = False) -> str:
    """A name for a folder, made of any name. digest: whether it differs for each name, even if the
    names differ only in characters that are replaced here. A long one always does."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    if not digest and len(plain) <= _LONGEST_NAME:
        return plain
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def judge_folder(run: Path, model: str) -> Path:
    """The folder of the judgements by that model. model: its full name.

    Raises BenchError if the settings of a judge there are damaged.
    """
    folder = run / _JUDGES / folder_name(model)
    file = folder / JUDGE_FILE
    if file.exists() and read_settings(file, JudgeSettings).model != model:
        return folder.with_name(folder_name(model, digest=True))
    return folder


@dataclass(frozen=True)
class JudgeReader:
    """Reads the folder of a judge; see the module. path: the path of the folder."""

    path: Path
    settings: JudgeSettings

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """The judge's verdicts, including failed ones. Raises BenchError if the file is damaged."""
        return tuple(latest(self.path / JUDGEMENTS, Judgement).values())

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str, int], Judgement]:
        """The judge's verdicts by arm, item and turn, without failed ones."""
        return {verdict.name: verdict for verdict in self.judgements if verdict.error is None}

    @cached_property
    def texts(self) -> Mapping[tuple[str, str], Result]:
        """The texts that the judge was shown besides the run's results, by arm (`reference`,
        `anchor:NAME`) and item. Raises BenchError if the file is damaged."""
        return latest(self.path / OUTPUTS, Result)

    def anchors(self) -> dict[str, list[Result]]:
        """The released outputs among the texts, by arm."""
        found: dict[str, list[Result]] = {}
        for result in self.texts.values():
            if result.arm.startswith(ANCHOR):
                found.setdefault(result.arm, []).append(result)
        return found

    @cached_property
    def calls(self) -> CallJournal:
        """The judge's calls. Raises BenchError if the file is damaged."""
        return CallJournal(self.path / CALLS)


@dataclass(frozen=True)
class RunReader:
    """Reads the folder of a run; see the module. `read_run` makes it.

    data: the data folder or the user's own file, if the dataset has been moved since the run.
    """

    path: Path
    settings: RunSettings
    data: Path | None = None

    @property
    def dataset(self) -> KnownDataset | None:
        """The dataset, if it is known by name; None for the user's own file."""
        told = self.settings.dataset
        return DATASETS.get(told.name) if told.known else None

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items that were asked, in the dataset's order, epoch by epoch.

        Raises BenchError if the dataset's file is missing, damaged, or not what the run read,
        UsageError if it is not text.
        """
        settings = self.settings
        items = dataset_of(settings.dataset, settings.source, self.data).items
        if settings.sample is None:
            asked = items[: settings.limit]
        else:
            asked = replace(settings.sample, shuffle=False).of(items)
        return in_epochs(asked, settings.epochs)

    @cached_property
    def missing(self) -> str:
        """Why the items cannot be read; "" if they can."""
        try:
            self.items  # noqa: B018
        except (BenchError, UsageError) as error:
            return error.message
        return ""

    @property
    def known_items(self) -> tuple[Item, ...] | None:
        return None if self.missing else self.items

    @cached_property
    def _grade(self) -> Grader | None:
        if self.settings.grader is not None:
            return grader_of(self.settings.grader)
        if self.dataset is not None:
            return self.dataset.grade
        return None if self.settings.dataset.known else grader_of("auto")

    @cached_property
    def keyed(self) -> Mapping[str, Item]:
        """The items for which it can be decided whether a reply is right, by id."""
        keyed = {item.id: item for item in self.known_items or () if item.answer is not None}
        return keyed if keyed and self._grade is not None else {}

    def verdict(self, item: str, text: str) -> Verdict | None:
        """Whether a text answers that item rightly; None if the right answer is not known."""
        known = self.keyed.get(item)
        if known is None or self._grade is None:
            return None
        return self._grade(text, known.answer or "", known.fields)

    def data_file(self, *names: str) -> Path | None:
        """The first of these files that exists in the data folder, or in the data folder that the
        dataset was read from."""
        folders = [data_folder(self.data)]
        if self.settings.dataset.known and self.settings.source is not None:
            folders.append(Path(self.settings.source).parent.parent)
        places = (folder / name for folder in folders for name in names)
        return next((place for place in places if paths.is_file(place)), None)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """All results, including failed ones. Raises BenchError if the file is damaged."""
        return tuple(latest(self.path / ITEMS, Result).values())

    @cached_property
    def answers(self) -> Mapping[str, Mapping[str, Result]]:
        """The results that did not fail, by arm and item. An arm without results is empty."""
        found: dict[str, dict[str, Result]] = {arm: {} for arm in self.settings.arms}
        for result in self.results:
            if result.error is None:
                found.setdefault(result.arm, {})[result.item] = result
        return found

    def shown(self, judge: JudgeReader) -> dict[tuple[str, str], tuple[str, ...]]:
        """All replies that the judge may have been shown, by arm and item: those of the run, the
        reference and the anchors."""
        own = (result for answers in self.answers.values() for result in answers.values())
        return {result.name: result.replies for result in (*judge.texts.values(), *own)}

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
    """The run in that folder. Only run.json is read now; other files are read when they are needed.

    data: see `RunReader`. Raises BenchError if it is not the folder of a run, or run.json is
    damaged.
    """
    if not (path / RUN_FILE).exists():
        raise BenchError(f"{path}: is not the folder of a run: there is no {RUN_FILE}")
    return RunReader(path, read_settings(path / RUN_FILE, RunSettings), data)


class State(Generic[Settings]):
    """The settings of some work, and its calls. Without a file and a journal it is in memory only.

    settings: None for new work. journal: the journal of the calls. file: where the settings are
    written.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        journal: CallJournal | None = None,
        file: Path | None = None,
    ) -> None:
        self.settings = settings
        self.journal = CallJournal(None) if journal is None else journal
        self._file = file

    def facts(self, now: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        """The facts on models from when the work began, or the present facts for new models.

        The work keeps the old facts: a context length that becomes known later would change
        prompts, and another price would change sums.
        """
        kept = (self.settings and self.settings.facts) or {}
        return {
            name: replace(
                info,
                context_length=kept[name].context_length,
                # A price that was unknown at the beginning may be added later.
                price=kept[name].price or info.price,
            )
            if name in kept
            else info
            for name, info in now.items()
        }

    def begin(self, settings: Settings, facts: Mapping[str, ModelInfo]) -> None:
        """Write the settings. Raises OSError."""
        known = {name: ModelFacts(info.context_length, info.price) for name, info in facts.items()}
        self._write(settings, known)

    def note(self, settings: Settings) -> None:
        """Write changed settings, but keep the facts on models. Raises OSError."""
        self._write(settings, self.settings.facts if self.settings else None)

    def _write(self, settings: Settings, facts: Mapping[str, ModelFacts] | None) -> None:
        """Write the settings, with the versions of `moa` and Python that began the work."""
        now = Versions(__version__, platform.python_version())
        versions = (self.settings and self.settings.versions) or now
        self.settings = replace(settings, facts=facts, versions=versions)
        if self._file is not None:
            write_settings(self._file, self.settings)

    def close(self) -> None:
        self.journal.close()


class StateFolder(State[Settings]):
    """An open folder; no other process has it open. See `State`.

    file, kind: the file of its settings, and their class. hint: what the user can do if settings
    differ. journal: the journal of its calls; None reads all calls into memory. noun: the kind of
    work in the folder, for messages.
    """

    noun: ClassVar = "run"

    def __init__(
        self,
        path: Path,
        file: str,
        kind: type[Settings],
        hint: str,
        journal: CallJournal | None = None,
    ) -> None:
        found = read_settings(path / file, kind) if (path / file).exists() else None
        if journal is None:
            journal = CallJournal(path / CALLS)
            journal.take_up()
        super().__init__(found, journal, path / file)
        self.path = path
        self._hint = hint

    def check(self, settings: Settings) -> None:
        """Raise BenchError if this is the folder of work with other settings."""
        if self.settings is None:
            if len(self.journal):
                wrong = f"{self.path}: holds calls, but no {self._file and self._file.name}"
                raise BenchError(wrong, hint=self._hint)
            return
        found = list(differences(self.settings, settings))
        if found:
            raise self._other_settings(found)

    def _other_settings(self, found: Sequence[str]) -> BenchError:
        more = len(found) - _MOST_DIFFERENCES
        told = "; ".join(found[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        wrong = f"{self.path}: is a {self.noun} with other settings: {told}"
        return BenchError(wrong, hint=self._hint)

    def forget_calls(self) -> None:
        """Remove the calls, which are no longer needed. Raises OSError."""
        self.journal.close()
        (self.path / CALLS).unlink(missing_ok=True)


class RunFolder(StateFolder[RunSettings]):
    """An open run. See `StateFolder`.

    results: by arm and item, including failed ones.
    """

    def __init__(self, path: Path) -> None:
        hint = "use the same, or name another folder with -o"
        super().__init__(path, RUN_FILE, RunSettings, hint)
        self.results = latest(path / ITEMS, Result)
        self._items = Lines(path / ITEMS)
        # Arms whose results are no longer valid. They stay in the files until the work begins.
        self._stale: frozenset[str] = frozenset()

    def go_on(self, plan: RunPlan) -> tuple[str, ...]:
        """Continue the run as planned. The plan may have more than the run had (`growth_of`).

        Returns what is new, in words. Nothing is written before `begin` or `note`. Raises
        BenchError if the run was begun with settings that this plan cannot continue.
        """
        if self.settings is None:
            self.check(plan.settings())
            return ()
        growth = growth_of(
            self.settings, plan, self.results.values(), self.journal.answered_models()
        )
        if growth.refused:
            raise self._other_settings(growth.refused)
        planned = {work.name for work in plan.work()}
        self._stale = growth.stale
        self.results = {
            name: result
            for name, result in self.results.items()
            if name in planned and result.arm not in growth.stale
        }
        return growth.told

    def _write(self, settings: RunSettings, facts: Mapping[str, ModelFacts] | None) -> None:
        """Write the settings after results that are no longer valid are removed. After a kill in
        between, the next start makes the results again from the calls."""
        if self._stale:
            self._items.replace(map(to_line, self.results.values()))
            for file in sorted((self.path / _JUDGES).glob(f"*/{JUDGE_FILE}")):
                self._forget_verdicts(file)
            self._stale = frozenset()
        super()._write(settings, facts)

    def _forget_verdicts(self, file: Path) -> None:
        """Remove a judge's verdicts on replies that are made again. file: the file of the judge's
        settings."""
        against = read_settings(file, JudgeSettings).against
        verdicts = latest(file.parent / JUDGEMENTS, Judgement).values()
        kept = [
            verdict
            for verdict in verdicts
            if verdict.arm not in self._stale and against not in self._stale
        ]
        if len(kept) < len(verdicts):
            Lines(file.parent / JUDGEMENTS).replace(map(to_line, kept))

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why that arm failed at that item; None if it did not. Raises KeyError if it has not
        ended."""
        return self.results[name].error

    def add(self, result: Result) -> None:
        """Write the result of an item that has ended or failed for good. Raises OSError."""
        self._items.add(to_line(result))
        self.results[result.name] = result

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Write all results again in this order. order: arms and items. Raises OSError."""
        self._items.replace(to_line(self.results[name]) for name in order)

    def close(self) -> None:
        super().close()
        self._items.close()


_Folder = TypeVar("_Folder", bound=State[Any])


@contextlib.contextmanager
def opened(path: Path, read: Callable[[Path], _Folder]) -> Iterator[_Folder]:
    """Lock a folder, and open it with `read`. The folder is created if it does not exist, and then
    removed at the end if it stays empty.

    Raises BenchError if another process has it open, or a file in it is damaged, UsageError if a
    new folder has a name that some systems do not allow.
    """
    made = not path.exists()
    unfit = why_unfit(path.name)
    if made and unfit:
        raise UsageError(f"{path}: {unfit}", hint="choose another name")
    try:
        paths.make_private(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be made: {error.strerror}") from None
    with locked_folder(path, seconds=0.0) as held:
        if held is False:
            raise BenchError(f"{path}: another process is running it")
        folder = read(path)
        try:
            yield folder
        finally:
            folder.close()
            if made:
                with contextlib.suppress(OSError):
                    path.rmdir()

"""`moa bench select`: a mixture chosen from the models of runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli import wiring
from moa_cli.cli.bench.cells import cell, noted, table, tell_if_long, with_n
from moa_cli.cli.bench.options import CountedJudge
from moa_cli.cli.options import Data, ForceProfile, Json
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError, UsageError
from moa_cli.core.files.new_file import check_name
from moa_cli.core.text import plural
from moa_cli.terminal.table import Column

if TYPE_CHECKING:
    from moa_cli.bench.analysis.pool import AggregatorWorth, Pool, Ranked
    from moa_cli.bench.report.values import ValuedRun
    from moa_cli.profile import Profile

_USUAL = 3


def select(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            metavar="K",
            min=1,
            help="How many proposers to choose; by default 3, or as many as there are.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option("--weights", metavar="A:B", help="The weights of quality and of diversity."),
    ] = "2:1",
    judge: CountedJudge = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="NAME|FILE", help="Write the mixture as a profile."),
    ] = None,
    force: ForceProfile = False,
    json: Json = False,
    data: Data = None,
) -> None:
    """Choose proposers by quality and diversity, and an aggregator, from runs with `single`."""
    from moa_cli.bench.report.values import read_valued
    from moa_cli.profile import check_profile_name, save

    parsed = _weights(weights)
    as_file = write is not None and (write.endswith(".toml") or os.sep in write)
    if write is not None and not as_file:
        check_profile_name(write)
    choice = _choose([read_valued(folder, judge, data) for folder in runs], k, parsed)
    profile = choice.profile(Path(write).stem if write else "chosen")
    if json:
        print_json(_table(choice, profile))
    else:
        print_lines(_lines(choice, output_width()))
    if write is None:
        return
    wiring.providers().check(profile)
    path = (
        _write(profile, paths.expand(write), overwrite=force)
        if as_file
        else save(profile, write, overwrite=force)
    )
    say(f"wrote {path}; use it: moa ask -p {write}")


@dataclass(frozen=True)
class _Selection:
    """The result of a selection. pool: the measured models. ranked: these by score. aggregators:
    the measured aggregators. aggregator: the chosen one. why: why it was chosen."""

    runs: Sequence[ValuedRun]
    pool: Pool
    weights: tuple[float, float]
    ranked: tuple[Ranked, ...]
    aggregators: tuple[AggregatorWorth, ...]
    aggregator: str
    why: str

    @property
    def dataset(self) -> str:
        return self.runs[0].run.settings.dataset.name

    @property
    def asked(self) -> str:
        """What `moa bench run` calls the dataset: a user's own file by its path."""
        settings = self.runs[0].run.settings
        told = settings.dataset
        return told.name if told.known else shlex.quote(settings.source or told.file)

    @property
    def chosen(self) -> list[str]:
        return [model.candidate.model for model in self.ranked if model.chosen]

    @property
    def notes(self) -> list[str]:
        """The notes on the pool, then those on the runs."""
        return [*self.pool.notes, *(note for run in self.runs for note in run.notes)]

    def profile(self, name: str) -> Profile:
        from moa_cli.bench.analysis.pool import chosen_profile

        origins = self.pool.origins
        measured = [found.run for found in self.aggregators if found.model == self.aggregator]
        run = next((run for run in self.runs if str(run.run.path) in measured[:1]), None)
        folders = ", ".join(dict.fromkeys(str(run.run.path) for run in self.runs))
        return chosen_profile(
            name,
            f"chosen by moa bench select from {folders}",
            [(model, origins[model]) for model in self.chosen],
            (self.aggregator, run or origins[self.aggregator]),
        )


def _weights(typed: str) -> tuple[float, float]:
    """The weights of quality and of diversity in a text such as `2:1`. Raises UsageError."""
    try:
        a, b = (float(part) for part in typed.split(":"))
    except ValueError:
        a = b = -1.0
    if not (0 <= a < float("inf") and 0 <= b < float("inf") and a + b > 0):
        raise UsageError(
            f"--weights: `{typed}` must be two weights", hint="quality:diversity, as in 2:1"
        )
    return a, b


def _choose(runs: Sequence[ValuedRun], k: int | None, weights: tuple[float, float]) -> _Selection:
    from moa_cli.bench.analysis.pool import aggregators, best, check_alike, pool_of

    check_alike(runs)
    tell_if_long(runs[0].run.settings.asked)
    pool = pool_of(runs)
    count = min(_USUAL, len(pool.candidates)) if k is None else k
    ranked = best(pool.candidates, count, a=weights[0], b=weights[1])
    measured = aggregators(runs)
    if measured:
        aggregator, why = measured[0].model, "the best aggregator measured"
    else:
        alone = max(pool.candidates, key=lambda candidate: candidate.quality.value or 0.0)
        aggregator, why = alone.model, "the best single model, because no aggregator was measured"
    return _Selection(runs, pool, weights, ranked, measured, aggregator, why)


def _write(profile: Profile, path: Path, *, overwrite: bool) -> Path:
    from moa_cli.profile import dump

    check_name(path)
    if path.exists() and not overwrite:
        raise ProfileError(f"{path}: already exists", hint="--force replaces it")
    try:
        with paths.replacing(path) as file:
            file.write(dump(profile).encode())
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _lines(choice: _Selection, width: int) -> Iterator[str]:
    from moa_cli.profile import short_name

    pool, values = choice.pool, choice.runs[0].values
    a, b = choice.weights
    by = "by known answers" if values.judge is None else f"judged by {values.judge}"
    head = (
        f"{choice.dataset}: a pool of {plural(len(pool.candidates), 'model')}, each over the same"
        f" {plural(pool.items, 'item')}; quality: {values.unit}, {by}"
    )
    yield from noted([head], width, "")
    ranked = choice.ranked
    columns = [
        Column("", ["*" if model.chosen else "" for model in ranked]),
        Column("score", [_score(model) for model in ranked], right=True),
        Column("quality", [cell(model.candidate.quality, 2) for model in ranked], right=True),
        Column("z", [f"{model.quality_z:+.2f}" for model in ranked], right=True),
        Column(pool.measure, [cell(model.candidate.similarity) for model in ranked], right=True),
        Column("z(1-)", [f"{model.diversity_z:+.2f}" for model in ranked], right=True),
        Column("model", [short_name(model.candidate.model) for model in ranked]),
    ]
    first = ranked[0].candidate
    title = (
        f"As proposers; score = {a:g} z(quality) + {b:g} z(1 - mean pairwise {pool.measure}); ±:"
        f" standard errors; n: quality {first.quality.n:,}, similarity {first.similarity.n:,} each"
    )
    yield from table(title, columns, width, keys=-1)
    yield from _aggregator_lines(choice, width)
    yield ""
    yield from noted(
        [f"chosen: {', '.join(choice.chosen)} → {choice.aggregator} ({choice.why})"], width, ""
    )
    yield from noted(dict.fromkeys(choice.notes), width)


def _score(model: Ranked) -> str:
    error = "" if model.standard_error is None else f"±{model.standard_error:.2f}"
    return f"{model.score:+.2f}{error}"


def _aggregator_lines(choice: _Selection, width: int) -> Iterator[str]:
    from moa_cli.profile import short_name

    rows = choice.aggregators
    if rows:
        columns = [
            Column("the mixture's worth", [with_n(row.worth, 2) for row in rows], widest=40),
            Column("aggregator", [short_name(row.model) for row in rows]),
        ]
        yield from table("As aggregators: the same mixture under each", columns, width, -1)
        return
    yield ""
    yield from noted(
        [
            "As aggregators: not measured. A good proposer is not always a good aggregator. To"
            " measure aggregators, run the same mixture with several of them, and pass all the"
            " runs here:",
            f"moa bench run {choice.asked} -p PROFILE -a MODEL -o runs/MODEL",
        ],
        width,
        "",
    )


def _table(choice: _Selection, profile: Profile) -> dict[str, Any]:
    from moa_cli.bench.analysis.similarity import json_values
    from moa_cli.profile import to_table

    values = choice.runs[0].values
    return {
        "dataset": choice.dataset,
        "items": choice.pool.items,
        "asked": choice.pool.asked,
        "unit": values.unit,
        "judge": values.judge,
        "measure": choice.pool.measure,
        "weights": {"quality": choice.weights[0], "diversity": choice.weights[1]},
        "pool": [json_values(model) for model in choice.ranked],
        "aggregators": [json_values(row) for row in choice.aggregators],
        "aggregator": {"model": choice.aggregator, "why": choice.why},
        "profile": to_table(profile),
        "notes": choice.notes,
    }

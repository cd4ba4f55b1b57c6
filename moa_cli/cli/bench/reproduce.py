"""`moa bench reproduce`: a table of the MoA paper, the runs that it needs, and its figures beside
the user's own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli import wiring
from moa_cli.cli.bench.cells import UNKNOWN, noted, table
from moa_cli.cli.bench.options import judge_option
from moa_cli.cli.commands import Debug
from moa_cli.cli.options import Data, Json
from moa_cli.cli.output import output_width, print_json, print_lines
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import meant
from moa_cli.terminal.table import Column

if TYPE_CHECKING:
    from moa_cli.bench.report.reproduction import Beside, Reproduction, ReproductionRun
    from moa_cli.bench.report.scores import Scores
    from moa_cli.bench.run.estimate import RunEstimate
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.profile import Profile

_PAPERS = "paper-moa"


def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="table2, table3, table4, table8 or ranker, as the paper has them."
        ),
    ],
    profile: Annotated[
        str,
        typer.Option(
            "-p",
            "--profile",
            metavar="NAME|PATH",
            help="The mixture of the runs; by default, the paper's.",
        ),
    ] = _PAPERS,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", metavar="N", min=1, help="Only N items of each dataset."),
    ] = None,
    judge: Annotated[
        str | None,
        judge_option("The judge whose judgements count; by default, a run's only judge."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FOLDER", help="The folder that contains the runs."),
    ] = Path("runs"),
    json: Json = False,
    data: Data = None,
    debug: Debug = False,
) -> None:
    """Show how to reproduce a table of the MoA paper: runs, price, and its figures beside yours.

    No model is asked. The runs are those of the profile `paper-moa`, or of another one (-p).
    """
    from moa_cli.bench.report.reproduction import REPRODUCTIONS, beside

    known = REPRODUCTIONS.get(name)
    if known is None:
        hint = meant(name, REPRODUCTIONS)
        raise UsageError(f"the paper has no `{name}` to reproduce", hint=hint)
    runs = list(_planned(known, profile, output, limit, data))
    there = [
        (planned.run, *scored)
        for planned in runs
        if (scored := _scored(output / planned.run.folder, judge, data))
    ]
    cells = beside(known, there)
    if json:
        print_json(_json(name, runs, cells))
        return
    notes = _notes(known, runs, cells, [told for _, _, told in there])
    judging = ["moa", "bench", "judge", "FOLDER", "--judge", "MODEL"]
    judging += ["--data", str(data)] if data else []
    print_lines(_lines(known, runs, shlex.join(judging), cells, [*notes], output_width()))


@dataclass(frozen=True)
class _Planned:
    """A run that the table needs. command: the words of the command. is_there: whether it was
    begun. items: how many items it asks. judged: whether a judge is needed. estimate: None if the
    dataset is missing. missing: the error in that case."""

    run: ReproductionRun
    command: tuple[str, ...]
    is_there: bool
    items: int
    judged: bool
    estimate: RunEstimate | None
    missing: str = ""


def _planned(
    known: Reproduction,
    profile_name: str,
    output: Path,
    limit: int | None,
    data: Path | None,
) -> Iterator[_Planned]:
    import asyncio

    from moa_cli.bench.data.datasets import DATASETS
    from moa_cli.bench.data.loading import data_folder, load_dataset
    from moa_cli.bench.report.reproduction import Mixed
    from moa_cli.bench.run.plan import RunPlan, format_of
    from moa_cli.cli.bench.session import known_facts
    from moa_cli.profile import Overrides

    base = wiring.choose_profile(profile_name, Overrides(), settles=False)
    first = tuple(dict.fromkeys(proposer.model for proposer in base.layer(1)))
    if not base.rounds or not first:
        raise UsageError(f"{profile_name} has no proposers", hint="the paper's mixtures have some")
    mixed = Mixed(first, base.aggregator.model, base.rounds, profile_name == _PAPERS)
    facts: dict[str, ModelInfo] = {}
    for run in known.runs(mixed):
        command = ["moa", *run.arguments(profile_name, output)]
        command += ["-n", str(limit)] if limit else []
        command += ["--data", str(data)] if data else []
        folder = output / run.folder
        planned = _Planned(
            run=run,
            command=tuple(command),
            is_there=(folder / "run.json").exists(),
            items=0,
            judged=DATASETS[run.dataset].judge is not None,
            estimate=None,
        )
        try:
            loaded = load_dataset(run.dataset, data_folder(data))
        except BenchError as error:
            yield replace(planned, missing=str(error))
            continue
        plan = RunPlan(
            profile=_profile_of(run, profile_name),
            dataset=loaded,
            kinds=run.arms,
            best=run.best,
            parity=run.dataset != "math",
            limit=limit,
            answer_format=format_of(loaded, None),
        )
        lacking = [model for model in plan.models() if model not in facts]
        facts |= asyncio.run(known_facts(lacking))
        yield replace(planned, items=plan.count, estimate=_estimate(plan, facts))


def _profile_of(run: ReproductionRun, profile_name: str) -> Profile:
    """The mixture that `moa bench run` would use for the run's command."""
    from moa_cli.profile import Overrides

    flags = Overrides(reference_models=run.proposers, aggregator=run.aggregator, rounds=run.rounds)
    return wiring.choose_profile(run.profile or profile_name, flags, settles=False)


def _estimate(plan: Any, facts: Mapping[str, ModelInfo]) -> RunEstimate:
    from moa_cli.bench.run.estimate import RunEstimator

    estimator = RunEstimator(facts, wiring.providers().model_id)
    for task in plan.work():
        estimator.add(task.arm, task.item)
    return estimator.total


def _scored(folder: Path, judge: str | None, data: Path | None) -> tuple[Any, Any] | None:
    """The run in that folder and its scores; None if there is none."""
    from moa_cli.bench.report.scores import scores_of
    from moa_cli.bench.run.folder import read_run
    from moa_cli.cli.bench.report import only_judge

    if not (folder / "run.json").exists():
        return None
    reader = read_run(folder, data)
    chosen = judge or only_judge(folder)
    return reader, scores_of(folder, chosen if chosen in reader.judges else None, data)


def _lines(
    known: Reproduction,
    runs: Sequence[_Planned],
    judging: str,
    cells: Sequence[Beside],
    notes: Sequence[str],
    width: int,
) -> Iterator[str]:
    sources = list(dict.fromkeys(published.source for published in known.tables))
    yield known.title
    yield from noted(sources, width, "")
    yield ""
    yield "The plan"
    for planned in runs:
        yield f"  {shlex.join(planned.command)}" + ("  # begun" if planned.is_there else "")
    if any(planned.judged for planned in runs):
        yield f"and each of them: {judging}"
    yield from _price(runs, width)
    yield from _beside_lines(known, cells, width)
    yield ""
    yield from noted(notes, width)


def _price(runs: Sequence[_Planned], width: int) -> Iterator[str]:
    from moa_cli.cli.bench.session import cost_band

    rows = [(planned, planned.estimate) for planned in runs if planned.estimate is not None]
    if not rows:
        return
    costs = [
        cost_band(told.low, told.high, "about " * told.assumed).removeprefix("cost: ")
        for _, told in rows
    ]
    columns = [
        Column("run", [planned.run.folder for planned, _ in rows], widest=40),
        Column("items", [f"{planned.items:,}" for planned, _ in rows], right=True),
        Column("calls", [f"{told.high.calls:,}" for _, told in rows], right=True),
        Column(
            "tokens in, up to", [f"{told.high.prompt_tokens:,}" for _, told in rows], right=True
        ),
        Column("out, up to", [f"{told.high.completion_tokens:,}" for _, told in rows], right=True),
        Column("cost", costs),
    ]
    yield from table("The price of whole runs, without judging", columns, width)
    total = sum((told.high for _, told in rows[1:]), rows[0][1].high)
    low = sum((told.low for _, told in rows[1:]), rows[0][1].low)
    yield f"in all {total.calls:,} calls; {cost_band(low, total, '')}"


def _beside_lines(known: Reproduction, cells: Sequence[Beside], width: int) -> Iterator[str]:
    for published in known.tables:
        own = [found for found in cells if found.table == published.title]
        by_row: dict[str, dict[str, Beside]] = {}
        for found in own:
            by_row.setdefault(found.row, {})[found.column] = found
        if not by_row:
            yield from ("", *noted([f"{published.title}: nothing was run yet"], width, ""))
            continue
        columns = [Column("", list(by_row), widest=40)]
        for head in published.columns:
            told = [row[head] for row in by_row.values()]
            paper = [_paper(found, published.digits) for found in told]
            printed = any(cell != UNKNOWN for cell in paper)
            if printed:
                columns.append(Column(f"{head}: paper", paper, right=True, widest=40))
            digits = published.digits
            ours = [found.ours.text(digits) if found.ours else UNKNOWN for found in told]
            own_head = "yours" if printed else f"{head}: yours"
            columns.append(Column(own_head, ours, right=True, widest=40))
        yield from table(f"{published.title}: the paper's figures beside yours", columns, width)


def _paper(found: Beside, digits: int) -> str:
    if found.paper is None:
        return UNKNOWN
    return " ± ".join(f"{value:.{digits}f}" for value in found.paper if value is not None)


def _notes(
    known: Reproduction,
    runs: Sequence[_Planned],
    cells: Sequence[Beside],
    scores: Sequence[Scores],
) -> Iterator[str]:
    """Notes on the table. scores: the scores of the runs that were begun."""
    for published in known.tables:
        yield f"{published.title}: {published.judged}; {published.note}"
    yield from known.notes
    yield from dict.fromkeys(planned.missing for planned in runs if planned.missing)
    if any(found.ours is not None for found in cells):
        yield "yours: ± standard error over items"
    judges = dict.fromkeys(told.judge.model for told in scores if told.judge is not None)
    if judges:
        yield f"yours are judged by {', '.join(judges)}, on a scale of its own"
    # Why one of the paper's figures is missing.
    yield from dict.fromkeys(note for told in scores for note in told.notes if "withheld" in note)
    if any(told.asked < told.whole for told in scores):
        yield "yours are of a part of a dataset: they cannot be compared with the paper's"
    begun = sum(planned.is_there for planned in runs)
    told = f"{begun} of {len(runs)} runs are begun"
    if begun and any(planned.judged for planned in runs):
        told += f", and {sum(found.judge is not None for found in scores)} of them judged"
    yield told


def _json(name: str, runs: Sequence[_Planned], cells: Sequence[Beside]) -> dict[str, Any]:
    return {
        "name": name,
        "runs": [
            {
                "folder": planned.run.folder,
                "command": list(planned.command),
                "begun": planned.is_there,
                "items": planned.items,
                "missing": planned.missing or None,
                "price": None
                if planned.estimate is None
                else {
                    "low": asdict(planned.estimate.low),
                    "high": asdict(planned.estimate.high),
                    "assumed": planned.estimate.assumed,
                },
            }
            for planned in runs
        ],
        "figures": [
            {
                "table": found.table,
                "row": found.row,
                "column": found.column,
                "paper": None if found.paper is None else found.paper[0],
                "spread": None if found.paper is None else found.paper[1],
                "ours": None if found.ours is None else asdict(found.ours),
            }
            for found in cells
        ],
    }

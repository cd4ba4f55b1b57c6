"""`moa bench sweep`: the same items by mixtures of several sizes and aggregators."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli import wiring
from moa_cli.cli.bench.options import judge_option
from moa_cli.cli.bench.run import run
from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.options import signature_of, takes_profile
from moa_cli.cli.output import say
from moa_cli.cli.writing import put
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.bench.report.sweep import SweepRun
    from moa_cli.profile import Profile, Proposer

_answer = inspect.unwrap(run)
# The options that a sweep sets for its runs.
_SET = ("arms", "best", "cache", "output", "max_cost", "reference_paths")


@dataclass(frozen=True)
class _Variant:
    """One run of a sweep. proposals, aggregator: the values that are varied; None if they are
    not. name: of its folder."""

    profile: Profile
    proposals: int | None
    aggregator: str | None
    name: str


def _sweep(
    profile: Profile,
    concurrency: int | None,
    *,
    dataset: str,
    proposers: Annotated[
        str | None,
        typer.Option(
            "--proposers",
            metavar="NUMBERS",
            help="How many proposals a layer has, as numbers separated by commas; 3 takes the"
            " profile's first 3 proposers.",
        ),
    ] = None,
    aggregators: Annotated[
        str | None,
        typer.Option(
            "--aggregators",
            metavar="MODELS",
            help="The models that write the reply, separated by commas.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        judge_option("The judge whose judgements are drawn; by default, the only judge."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="USD",
            min=0,
            help="Maximum cost of the whole sweep, all its runs and sessions together.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="The folder of its runs; by default runs/NAME-PROFILE-sweep. The same command"
            " resumes there.",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Run mixtures of several sizes or aggregators over the same items, in one chart."""
    variants = list(_variants(profile, _numbers(proposers), _models(aggregators)))
    stem = Path(dataset).stem if dataset.endswith((".jsonl", ".json")) else dataset
    folder = output or Path("runs") / f"{stem}-{profile.name}-sweep"
    paths = {variant.name: folder / variant.name for variant in variants}
    failed = 0
    for number, variant in enumerate(variants, 1):
        say(f"run {number} of {len(variants)}: {variant.name}")
        path = paths[variant.name]
        try:
            _answer(
                variant.profile,
                concurrency,
                dataset=dataset,
                arms="mixture",
                cache=folder / "cache",
                max_cost=_left(max_cost, [other for other in paths.values() if other != path]),
                output=path,
                **given,
            )
        except typer.Exit as ended:
            if ended.exit_code != FAILED or not (path / "items.jsonl").exists():
                raise
            failed += 1
    _tell(folder, [(variant, paths[variant.name]) for variant in variants], judge, given["data"])
    if failed:
        say(f"{plural(failed, 'run')} with failed items; the same command tries them again")
        raise typer.Exit(FAILED)


def _numbers(typed: str | None) -> list[int | None]:
    if typed is None:
        return [None]
    try:
        numbers = sorted({int(part) for part in typed.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise UsageError(f"--proposers: `{typed}` is not a list of numbers", hint="such as 1,2,3,6")
    return list(numbers)


def _models(typed: str | None) -> list[str | None]:
    if typed is None:
        return [None]
    models = list(dict.fromkeys(part.strip() for part in typed.split(",") if part.strip()))
    if not models:
        raise UsageError("--aggregators: names no model")
    for model in models:
        wiring.providers().provider_of(model)
    return list(models)


def _variants(
    profile: Profile, numbers: Sequence[int | None], models: Sequence[str | None]
) -> Iterator[_Variant]:
    """Each number of proposals with each aggregator. Raises UsageError if nothing is varied, or
    the profile has too few proposers."""
    if numbers == [None] and models == [None]:
        raise UsageError("nothing is varied", hint="--proposers 1,2,3 or --aggregators MODEL,MODEL")
    there = min((len(profile.layer(n)) for n in range(1, profile.rounds + 1)), default=0)
    most = max((number for number in numbers if number is not None), default=0)
    if most > there:
        raise UsageError(
            f"--proposers: {most} are needed, but a layer of the profile has {there}",
            hint="add proposers, or --samples",
        )
    from moa_cli.bench.run.folder import folder_name

    plain = Counter(folder_name(model) for model in models if model is not None)
    for model in models:
        for number in numbers:
            varied = profile
            parts = [] if number is None else [f"{number}-proposers"]
            if number is not None:
                varied = varied.with_proposers(lambda known, most=number: _first(known, most))  # type: ignore[misc]
            if model is not None:
                final = replace(varied.aggregator, model=model, alternatives=(), fallbacks=())
                varied = replace(varied, aggregator=final)
                parts.append(folder_name(model, digest=plain[folder_name(model)] > 1))
            yield _Variant(varied, number, model, "-".join(parts))


def _first(proposers: Sequence[Proposer], most: int) -> list[Proposer]:
    """The proposers that give the first `most` proposals."""
    found: list[Proposer] = []
    for proposer in proposers:
        if most > 0:
            found.append(replace(proposer, samples=min(proposer.samples, most)))
            most -= proposer.samples
    return found


def _left(most: float | None, others: Sequence[Path]) -> float | None:
    """The part of the cap that the other runs leave. Raises BenchError if a journal is damaged."""
    from moa_cli.bench.run.journal import CALLS, CallJournal

    if most is None:
        return None
    return max(0.0, most - sum(CallJournal(other / CALLS).spent.cost for other in others))


def _tell(
    folder: Path, runs: Sequence[tuple[_Variant, Path]], judge: str | None, data: Path | None
) -> None:
    """Print the table of the runs, and write the page with their chart."""
    from moa_cli.bench.report.scores import scores_of
    from moa_cli.bench.report.sweep import SweepRun, sweep_page
    from moa_cli.cli.bench.report import only_judge

    found = [
        SweepRun(
            variant.proposals,
            variant.aggregator,
            scores_of(path, judge or only_judge(path), data),
        )
        for variant, path in runs
    ]
    notes = list(dict.fromkeys(note for run in found for note in run.scores.notes))
    if not any(run.arm.metrics for run in found):
        notes.append(
            "there are no scores, so the chart shows the cost of an item. Run `moa bench judge`"
            " on each run, then run the same command again"
        )
    _print_table(found, notes)
    put(sweep_page(found[0].scores.dataset, found, notes), folder / "sweep.html", BenchError)


def _print_table(found: Sequence[SweepRun], notes: Sequence[str]) -> None:
    from moa_cli.bench.report.sweep import sweep_table
    from moa_cli.cli.bench.cells import columns_of, noted, split_table
    from moa_cli.cli.output import output_width, print_lines

    told, width = sweep_table(found), output_width()
    print_lines(["", *noted([told.title], width, "")])
    print_lines(split_table(columns_of(told, width), width, told.keys))
    print_lines(noted(notes, width))


def _signature() -> inspect.Signature:
    """The signature with the options of `run` that a sweep passes on, and its own options."""
    own, shared = signature_of(_sweep).parameters, signature_of(_answer).parameters
    kept = [parameter for name, parameter in shared.items() if name not in own and name not in _SET]
    mine = [parameter for name, parameter in own.items() if name not in ("dataset", "given")]
    return inspect.Signature([*mine[:2], shared["dataset"], *mine[2:], *kept])


_sweep.__signature__ = _signature()  # type: ignore[attr-defined]
sweep = takes_profile(_sweep)

"""The content of a report as sections and tables of text. The writers decide how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moa_cli.bench.judge.arena import SCORE
from moa_cli.bench.judge.pairwise import OWN_FIT
from moa_cli.bench.report.budget import pareto_front
from moa_cli.bench.report.differences import (
    ArmPair,
    ArmWorth,
    Differences,
    differences_of,
    ratio_text,
)
from moa_cli.bench.report.official import OFFICIAL
from moa_cli.bench.report.published import PUBLISHED, PublishedTable
from moa_cli.bench.report.scores import ArmScores, Saved, Scores
from moa_cli.bench.report.values import over_epochs
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.core.money import usd
from moa_cli.core.text import plural

# Decimal places of a number, by the end of its unit's name.
_DIGITS = {"%": 1, "of 10": 2, "of 5": 2, "characters": 0}
# The metrics for an arm's quality; the first that exists counts.
QUALITY = (OFFICIAL, OWN_FIT, "win rate", SCORE, "average", "mean", "accuracy")
_BY_NOBODY = "by nobody"
_PAIR_HEADS = (
    *("first", "second", "difference", "95 %", "z", "p", "p (Holm)", "better/worse/equal"),
    *("shows", "cost ×"),
)
_PAIRED = (
    "over the items that both answered; p: by swapping the two at each item, Holm: corrected for"
    " the number of pairs; shows: the difference that so many items find in 8 of 10 cases; cost ×:"
    " what the first costs, in times of the second"
)
_EPOCHS = (
    "pooled: over all epochs, those of an item as one observation; between epochs: the standard"
    " error that comes from the replies alone, the same items asked again"
)
_INCOMPARABLE = "not comparable with published"


@dataclass(frozen=True)
class TextTable:
    """A table of text. keys: how many of its first columns name a row; the others hold numbers.

    notes: lines to show below the table.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmRow:
    """An arm or an anchor of one of the runs. name: unique in its section. keys: the name of the
    run, if there are several runs, and that of the arm."""

    name: str
    keys: tuple[str, ...]
    scores: Scores
    arm: ArmScores


@dataclass(frozen=True)
class ReportSection:
    """The results of all runs over one dataset, side by side.

    judged: "by" and the judge of all rows; "" if judges differ. differences: those between rows
    with the same unit and judge. published: the tables of the MoA paper.
    """

    dataset: str
    judged: str
    rows: tuple[ArmRow, ...]
    tables: tuple[TextTable, ...]
    notes: tuple[str, ...]
    published: tuple[PublishedTable, ...]
    differences: tuple[Differences, ...] = ()

    @property
    def conclusions(self) -> tuple[str, ...]:
        """The sentences on the differences."""
        return tuple(told for found in self.differences for told in found.conclusions)


def run_names(runs: Iterable[Scores]) -> list[str]:
    """The names of the runs: those of their folders, or whole paths if folders have the same
    name."""
    paths = [run.path for run in runs]
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


def sections_of(runs: Sequence[Scores]) -> list[ReportSection]:
    """A section for each dataset, in the order of the runs."""
    named = list(zip(run_names(runs), runs, strict=True))
    return [
        _section(dataset, [(name, scores) for name, scores in named if scores.dataset == dataset])
        for dataset in dict.fromkeys(scores.dataset for scores in runs)
    ]


def digits_of(unit: str) -> int:
    """How many decimal places of a number in that unit are significant."""
    return next((digits for end, digits in _DIGITS.items() if unit.endswith(end)), 2)


def _section(dataset: str, runs: Sequence[tuple[str, Scores]]) -> ReportSection:
    rows = tuple(
        ArmRow(": ".join(keys), keys, scores, arm)
        for run, scores in runs
        for arm in (*scores.arms, *scores.anchors)
        for keys in [(arm.arm,) if len(runs) == 1 else (run, arm.arm)]
    )
    judges = list(dict.fromkeys(_judged(scores) for _, scores in runs))
    judged = judges[0] if len(judges) == 1 else ""
    notes = [
        note if len(runs) == 1 else f"{run}: {note}"
        for run, scores in runs
        for note in _notes(scores)
    ]
    if not judged:
        notes.append("numbers of different judges, or of different days, are on different scales")
    differences = tuple(_differences(rows))
    return ReportSection(
        dataset=dataset,
        judged=judged,
        rows=rows,
        tables=(*_tables(rows, judged), *_epochs(rows), *difference_tables(differences)),
        notes=tuple(dict.fromkeys(notes)),
        published=tuple(table for table in PUBLISHED if table.dataset == dataset),
        differences=differences,
    )


def _differences(rows: Sequence[ArmRow]) -> Iterator[Differences]:
    """The differences within each group of rows with the same items, unit and judge."""
    groups: dict[tuple[str, ...], list[ArmWorth]] = {}
    for row in rows:
        values = row.scores.values
        known = values.by_arm.get(row.arm.arm)
        if known:
            key = (row.scores.origin, values.unit, _judged(row.scores))
            cost = row.arm.cost_per_item.value
            worth = ArmWorth(row.name, row.arm.arm, over_epochs(known, row.scores.epochs), cost)
            groups.setdefault(key, []).append(worth)
    for (_, unit, _), arms in groups.items():
        found = differences_of(unit, arms)
        if found is not None:
            yield found


def _notes(scores: Scores) -> Iterator[str]:
    if scores.asked < scores.whole and not any(_INCOMPARABLE in note for note in scores.notes):
        yield f"{scores.asked:,} of {scores.whole:,} items: {_INCOMPARABLE} figures"
    if _judged(scores) == _BY_NOBODY:
        yield f"there are no scores yet: `moa bench judge {scores.path} --judge MODEL` makes them"
    yield from scores.notes


def _judged(scores: Scores) -> str:
    judge = scores.judge
    if judge is not None:
        return f"by {judge.model}, {judge.date}" + (", discrete" if judge.discrete else "")
    return "by right answers" if any(arm.metrics for arm in scores.arms) else _BY_NOBODY


def _tables(rows: Sequence[ArmRow], judged: str) -> Iterator[TextTable]:
    scored = [row for row in rows if row.arm.metrics]
    if scored:
        metrics = {row.name: row.arm.metrics for row in scored}
        yield _scores("Scores ± standard error", scored, metrics, judged)
    names = dict.fromkeys(
        metric.name for row in rows for found in row.arm.by_category.values() for metric in found
    )
    for name in names:
        categories = {row.name: _categories(row.arm, name) for row in rows}
        kept = [row for row in rows if categories[row.name]]
        title = f"By category: {name} ± standard error"
        yield _scores(title, kept, categories, judged, counted=False)
    own = [row for row in rows if row.arm not in row.scores.anchors]
    if own:
        yield _costs(own)
    if judged and (budget := _budget(own)) is not None:
        yield budget


def _epochs(rows: Sequence[ArmRow]) -> Iterator[TextTable]:
    """A table for each unit of what arms are worth, epoch by epoch. It has the runs that asked
    their items several times."""
    found = [
        (row, figures, row.scores.values.unit)
        for row in rows
        if (figures := row.scores.by_epoch().get(row.arm.arm)) is not None
    ]
    for unit in dict.fromkeys(unit for _, _, unit in found):
        told = [(row, figures) for row, figures, of in found if of == unit]
        digits = digits_of(unit)
        most = max(len(figures.by_epoch) for _, figures in told)

        def number(value: float | None, digits: int = digits) -> str:
            return "–" if value is None else f"{value:.{digits}f}"

        lines = []
        for row, figures in told:
            means = [number(mean.value) for mean in figures.by_epoch]
            means += [""] * (most - len(means))
            pooled = _with_error(figures.pooled, number)
            lines.append((*row.keys, *means, pooled, number(figures.between)))
        keys = _key_heads([row for row, _ in told])
        epochs = [f"epoch {epoch}" for epoch in range(1, most + 1)]
        yield TextTable(
            title=f"By epoch, {unit}",
            heads=(*keys, *epochs, "pooled", "± between epochs"),
            rows=tuple(lines),
            keys=len(keys),
            notes=(_EPOCHS,),
        )


def _categories(arm: ArmScores, name: str) -> list[Metric]:
    """The metric with that name in each category, renamed to the category."""
    return [
        replace(metric, name=category)
        for category, found in arm.by_category.items()
        for metric in found
        if metric.name == name
    ]


def _scores(
    title: str,
    rows: Sequence[ArmRow],
    metrics: Mapping[str, Sequence[Metric]],
    judged: str,
    *,
    counted: bool = True,
) -> TextTable:
    """A table of scores. counted: whether it has columns for costs and for the number of values."""
    units = {metric.name: metric.unit for row in rows for metric in metrics[row.name]}
    costs = [cost for row in rows for cost in row.arm.point_costs if counted]
    points = dict.fromkeys(cost.point for cost in costs if cost.value is not None)
    keys = (*_key_heads(rows), *([] if judged else ["judged"]))
    lines, partial = [], []
    for row in rows:
        found = {metric.name: metric for metric in metrics[row.name]}
        cells = [*row.keys, *([] if judged else [_judged(row.scores)])]
        cells += [_cell(found.get(name)) for name in units]
        if points:
            told = {cost.point: cost.value for cost in row.arm.point_costs}
            cells += [_point_cost(told, point) for point in points]
        if counted:
            counts = sorted({metric.mean.n for metric in found.values()})
            cells.append(" to ".join(f"{n:,}" for n in dict.fromkeys([counts[0], counts[-1]])))
        lines.append(tuple(cells))
        if short := [metric for metric in found.values() if metric.partial]:
            partial.append(f"{row.name}: {_shortfall(short, len(found))}")
    alike = len(set(units.values())) == 1 and len(units) > 1
    heads = [name if alike else f"{name} ({unit})" for name, unit in units.items()]
    if alike:
        title = f"{title} ({next(iter(units.values()))})"
    return TextTable(
        title=f"{title}, {judged}" if judged else title,
        heads=(*keys, *heads, *(f"cost/{point}" for point in points), *(["n"] if counted else [])),
        rows=tuple(lines),
        keys=len(keys),
        notes=(f"* partial: {'; '.join(partial)}",) if partial else (),
    )


def _point_cost(costs: Mapping[str, float | None], point: str) -> str:
    if point not in costs:
        return ""
    value = costs[point]
    return "–" if value is None else usd(value)


def _key_heads(rows: Sequence[ArmRow]) -> tuple[str, ...]:
    return ("run", "arm")[-len(rows[0].keys) :]


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return ""
    digits = digits_of(metric.unit)
    return _with_error(metric.mean, lambda value: f"{value:,.{digits}f}") + "*" * metric.partial


def _with_error(mean: Mean, show: Callable[[float], str]) -> str:
    if mean.value is None:
        return "–"
    error = "?" if mean.standard_error is None else show(mean.standard_error)
    return f"{show(mean.value)} ± {error}"


def _shortfall(short: Sequence[Metric], all_of: int) -> str:
    counts = {(metric.mean.n, metric.asked) for metric in short}
    if len(counts) == 1 and len(short) == all_of:
        ((there, asked),) = counts
        return f"{there:,} of {asked:,}"
    return ", ".join(metric.coverage for metric in short)


def _costs(rows: Sequence[ArmRow]) -> TextTable:
    lines = []
    for row in rows:
        arm = row.arm
        lines.append(
            (
                *row.keys,
                f"{arm.answered:,}" + (f", {arm.failed:,} failed" if arm.failed else ""),
                _cost(arm.cost_per_item),
                _with_error(arm.seconds_path, lambda value: f"{value:.1f}"),
                _with_error(arm.seconds_sum, lambda value: f"{value:.1f}"),
                f"{arm.usage.calls:,}",
                f"{arm.usage.prompt_tokens:,}",
                f"{arm.usage.completion_tokens:,}",
            )
        )
    heads = ("answered", "cost/item", "s/item", "s/item, sum", "calls", "tokens in", "out")
    keys = _key_heads(rows)
    return TextTable(
        title="Cost and time ± standard error",
        heads=(*keys, *heads),
        rows=tuple(lines),
        keys=len(keys),
        notes=(
            "s/item: on the critical path, what an item takes alone; sum: of all its calls",
            *(_saved(row.name, row.arm.saved) for row in rows if row.arm.saved is not None),
        ),
    )


def difference_tables(differences: Iterable[Differences]) -> Iterator[TextTable]:
    """Tables of the arms' intervals, and of the differences between arms."""
    for found in differences:
        yield _intervals(found)
        if found.pairs:
            yield _paired(found)


def _intervals(found: Differences) -> TextTable:
    digits = digits_of(found.unit)
    return TextTable(
        title=f"95 % intervals, {found.unit}",
        heads=("answers of", "mean", "low", "high", "items"),
        rows=tuple(
            (
                arm.name,
                *(
                    f"{value:.{digits}f}"
                    for value in (arm.mean.value or 0.0, interval.low, interval.high)
                ),
                f"{len({item for item, _ in arm.values}):,}",
            )
            for arm, interval in zip(found.arms, found.intervals, strict=True)
        ),
        keys=1,
    )


def _paired(found: Differences) -> TextTable:
    digits = digits_of(found.unit)
    notes = [_PAIRED]
    if len(found.pairs) < found.all_of:
        notes.append(f"each with {found.arms[0].name} only: there are {found.all_of:,} pairs")
    return TextTable(
        title=f"Paired differences ± standard error, {found.unit}",
        heads=_PAIR_HEADS,
        rows=tuple(_pair(pair, digits) for pair in found.pairs),
        keys=2,
        notes=tuple(notes),
    )


def _pair(pair: ArmPair, digits: int) -> tuple[str, ...]:
    found = pair.found
    interval = found.interval
    return (
        pair.first.name,
        pair.second.name,
        _with_error(found.difference, lambda value: f"{value:.{digits}f}"),
        f"{interval.low:+.{digits}f} to {interval.high:+.{digits}f}",
        "–" if found.z is None else f"{found.z:.2f}",
        _p(found.p),
        _p(pair.p_holm),
        f"{found.better:,}/{found.worse:,}/{found.equal:,}",
        "–" if found.detectable is None else f"{found.detectable:.{digits}f}",
        "–" if pair.cost_ratio is None else ratio_text(pair.cost_ratio),
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _saved(name: str, saved: Saved) -> str:
    """A note on what an arm's turns skipped, and how much that saved."""
    reasons = ", ".join(f"{reason} ({times:,})" for reason, times in saved.reasons.items())
    about = f" and about {usd(saved.cost)}" if saved.cost else ""
    return (
        f"{name}: in {saved.turns:,} of {plural(saved.asked, 'turn')} less was enough: {reasons};"
        f" {plural(saved.calls, 'call')}{about} saved"
    )


def quality_of(arms: Sequence[ArmScores]) -> str:
    """The name of the metric for the arms' quality; "" if there is none."""
    return next((name for name in QUALITY if any(arm.metric(name) for arm in arms)), "")


def _budget(rows: Sequence[ArmRow]) -> TextTable | None:
    """A table of scores and their costs; None if there are fewer than two to compare."""
    quality = quality_of([row.arm for row in rows])
    scored = [
        (row, metric)
        for row in rows
        if (metric := row.arm.metric(quality)) is not None and metric.mean.value is not None
    ]
    if len(scored) < 2:
        return None
    unit = scored[0][1].unit
    columns = [[f"{metric.mean.value:,.{digits_of(unit)}f}" for _, metric in scored]]
    heads = [f"{quality} ({unit})"]
    budgets: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("cost/item", "cost_per_item", usd),
        ("tokens/item", "tokens_per_item", lambda value: f"{value:,.0f}"),
        ("TFLOPs/item", "tflops_per_item", lambda value: f"{value:,.1f}"),
    )
    for head, field, show in budgets:
        taken: list[float | None] = [getattr(row.arm, field).value for row, _ in scored]
        known = [
            (place, value, metric.mean.value or 0.0)
            for place, (value, (_, metric)) in enumerate(zip(taken, scored, strict=True))
            if value is not None
        ]
        if not any(value for _, value, _ in known):
            continue
        front = {known[n][0] for n in pareto_front([point[1:] for point in known])}
        heads.append(head)
        columns.append(
            [
                "–" if value is None else show(value) + "*" * (place in front)
                for place, value in enumerate(taken)
            ]
        )
    if len(heads) == 1:
        return None
    keys = _key_heads([row for row, _ in scored])
    lines = [
        (*row.keys, *cells)
        for (row, _), cells in zip(scored, zip(*columns, strict=True), strict=True)
    ]
    notes = ["* on the Pareto front: no other arm scores as much for less"]
    if "TFLOPs/item" in heads:
        notes.append(
            "TFLOPs: two operations for each active parameter (as the models' names tell them) and"
            " token, the largest call of each layer, summed over the layers"
        )
    return TextTable("What a score takes", (*keys, *heads), tuple(lines), len(keys), tuple(notes))


def _cost(mean: Mean) -> str:
    if mean.value is None:
        return "unknown"
    # If all items cost the same, the standard error is not exactly 0 because of rounding. Show it
    # as 0.
    least = abs(mean.value) / 1000
    return _with_error(mean, lambda value: usd(value if value > least else 0.0))


def published_table(known: PublishedTable) -> TextTable:
    rows = [
        (
            name,
            *(
                " ± ".join(f"{x:.{known.digits}f}" for x in figure if x is not None)
                for figure in figures
            ),
        )
        for name, figures in known.rows
    ]
    return TextTable(
        title=f"{known.title}, {known.judged}",
        heads=("model", *known.columns),
        rows=tuple(rows),
        keys=1,
        notes=(f"source: {known.source}", known.note),
    )

"""What a report says, as sections and tables of text; how they look is its writers' business."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moa_cli.bench.report.published import PUBLISHED, Published
from moa_cli.bench.report.scores import ArmScores, Metric, Scores
from moa_cli.bench.scoring.means import Mean
from moa_cli.core.money import usd

__all__ = ["Row", "Section", "Table", "digits_of", "published_table", "run_names", "sections_of"]

_DIGITS = {"%": 1, "of 10": 2, "of 5": 2, "characters": 0}
_NONE = "–"
_BY_NOBODY = "by nobody"
_INCOMPARABLE = "not comparable with published"


@dataclass(frozen=True)
class Table:
    """Text in rows. keys: how many of its first columns name a row; numbers stand in the others.

    notes: what is to stand below it.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """An arm, or an anchor, of one of the runs. name: unique in its section."""

    name: str
    run: str
    scores: Scores
    arm: ArmScores


@dataclass(frozen=True)
class Section:
    """What the runs over one dataset came to, side by side.

    judged: by whom, for all rows; "" if they differ. published: what the MoA paper has.
    """

    dataset: str
    judged: str
    rows: tuple[Row, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    published: tuple[Published, ...]


def run_names(runs: Iterable[Scores]) -> list[str]:
    """What the runs are called: their folders' names, or whole paths where names are the same."""
    paths = [one.path for one in runs]
    names = [one.resolve().name for one in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


def sections_of(runs: Sequence[Scores]) -> list[Section]:
    """A section for each dataset, in the order of the runs."""
    named = list(zip(run_names(runs), runs, strict=True))
    return [
        _section(dataset, [(name, one) for name, one in named if one.dataset == dataset])
        for dataset in dict.fromkeys(one.dataset for one in runs)
    ]


def digits_of(unit: str) -> int:
    """How many digits of a number of that unit say something."""
    return _DIGITS.get(unit, 2)


def _section(dataset: str, runs: Sequence[tuple[str, Scores]]) -> Section:
    rows = tuple(
        Row(arm.arm if len(runs) == 1 else f"{run}: {arm.arm}", run, scores, arm)
        for run, scores in runs
        for arm in (*scores.arms, *scores.anchors)
    )
    judges = list(dict.fromkeys(_judged(one) for _, one in runs))
    judged = judges[0] if len(judges) == 1 else ""
    notes = [
        note if len(runs) == 1 else f"{run}: {note}"
        for run, scores in runs
        for note in _notes(scores)
    ]
    if not judged:
        notes.append("numbers of different judges, or of different days, are on different scales")
    return Section(
        dataset=dataset,
        judged=judged,
        rows=rows,
        tables=tuple(_tables(rows, judged, several=len(runs) > 1)),
        notes=tuple(dict.fromkeys(notes)),
        published=tuple(one for one in PUBLISHED if one.dataset == dataset),
    )


def _notes(scores: Scores) -> Iterator[str]:
    if scores.asked < scores.whole and not any(_INCOMPARABLE in one for one in scores.notes):
        yield f"{scores.asked:,} of {scores.whole:,} items: {_INCOMPARABLE} figures"
    if _judged(scores) == _BY_NOBODY:
        yield f"there are no scores yet: `moa bench judge {scores.path} --judge MODEL` makes them"
    yield from scores.notes


def _judged(scores: Scores) -> str:
    judge = scores.judge
    if judge is not None:
        return f"by {judge.model}, {judge.date}" + (", discrete" if judge.discrete else "")
    return "by right answers" if any(one.metrics for one in scores.arms) else _BY_NOBODY


def _tables(rows: Sequence[Row], judged: str, *, several: bool) -> Iterator[Table]:
    scored = [one for one in rows if one.arm.metrics]
    if scored:
        title = "Scores ± standard error"
        yield _scores(title, scored, {one.name: one.arm.metrics for one in scored}, judged, several)
    names = dict.fromkeys(
        metric.name for one in rows for found in one.arm.by_category.values() for metric in found
    )
    for name in names:
        categories = {one.name: _categories(one.arm, name) for one in rows}
        kept = [one for one in rows if categories[one.name]]
        title = f"By category: {name} ± standard error"
        yield _scores(title, kept, categories, judged, several, counted=False)
    own = [one for one in rows if one.arm not in one.scores.anchors]
    if own:
        yield _costs(own, several)


def _categories(arm: ArmScores, name: str) -> list[Metric]:
    """The metric of that name in each category, under the category's name."""
    return [
        Metric(category, one.mean, one.asked, one.unit)
        for category, found in arm.by_category.items()
        for one in found
        if one.name == name
    ]


def _scores(
    title: str,
    rows: Sequence[Row],
    metrics: Mapping[str, Sequence[Metric]],
    judged: str,
    several: bool,
    *,
    counted: bool = True,
) -> Table:
    """counted: whether there is a column for how many values the numbers are made of."""
    units = {one.name: one.unit for row in rows for one in metrics[row.name]}
    keys = _keys(several) + (() if judged else ("judged",))
    lines, partial = [], []
    for row in rows:
        found = {one.name: one for one in metrics[row.name]}
        cells = [*_named(row, several), *([] if judged else [_judged(row.scores)])]
        cells += [_cell(found.get(name)) for name in units]
        if counted:
            cells.append(_counts(found.values()))
        lines.append(tuple(cells))
        if short := [one for one in found.values() if one.mean.n < one.asked]:
            partial.append(f"{row.name}: {_shortfall(short, len(found))}")
    alike = len(set(units.values())) == 1 and len(units) > 1
    heads = [name if alike else f"{name} ({unit})" for name, unit in units.items()]
    if alike:
        title = f"{title} ({next(iter(units.values()))})"
    return Table(
        title=f"{title}, {judged}" if judged else title,
        heads=(*keys, *heads, *(["n"] if counted else [])),
        rows=tuple(lines),
        keys=len(keys),
        notes=(f"* partial: {'; '.join(partial)}",) if partial else (),
    )


def _keys(several: bool) -> tuple[str, ...]:
    return ("run", "arm") if several else ("arm",)


def _named(row: Row, several: bool) -> list[str]:
    return [row.run, row.arm.arm] if several else [row.arm.arm]


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return ""
    mark = "*" if metric.mean.n < metric.asked else ""
    digits = digits_of(metric.unit)
    return _with_error(metric.mean, lambda value: f"{value:,.{digits}f}") + mark


def _with_error(mean: Mean, show: Callable[[float], str]) -> str:
    if mean.value is None:
        return _NONE
    error = "?" if mean.standard_error is None else show(mean.standard_error)
    return f"{show(mean.value)} ± {error}"


def _counts(metrics: Iterable[Metric]) -> str:
    found = sorted({one.mean.n for one in metrics})
    if not found:
        return ""
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _shortfall(short: Sequence[Metric], all_of: int) -> str:
    counts = {(one.mean.n, one.asked) for one in short}
    if len(counts) == 1 and len(short) == all_of:
        ((there, asked),) = counts
        return f"{there:,} of {asked:,}"
    return ", ".join(f"{one.name} {one.mean.n:,} of {one.asked:,}" for one in short)


def _costs(rows: Sequence[Row], several: bool) -> Table:
    lines = []
    for row in rows:
        arm = row.arm
        lines.append(
            (
                *_named(row, several),
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
    keys = _keys(several)
    return Table(
        title="Cost and time ± standard error",
        heads=(*keys, *heads),
        rows=tuple(lines),
        keys=len(keys),
        notes=("s/item: on the critical path, what an item takes alone; sum: of all its calls",),
    )


def _cost(mean: Mean) -> str:
    if mean.value is None:
        return "unknown"
    # Where all items cost the same, what is left is the noise of the sum.
    least = abs(mean.value) / 1000
    return _with_error(mean, lambda value: usd(value if value > least else 0.0))


def published_table(known: Published) -> Table:
    """A published table as text."""
    rows = []
    for name, figures in known.rows:
        cells = []
        for value, spread in figures:
            text = f"{value:.{known.digits}f}"
            cells.append(text if spread is None else f"{text} ± {spread:.{known.digits}f}")
        rows.append((name, *cells))
    return Table(
        title=f"{known.title}, {known.judged}",
        heads=("model", *known.columns),
        rows=tuple(rows),
        keys=1,
        notes=(f"source: {known.source}", *([known.note] if known.note else [])),
    )

"""Reproduces the MoA paper's tables: the runs that each one needs, and the published figures beside
the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moa_cli.bench.judge.pairwise import OWN_FIT
from moa_cli.bench.report.published import ABLATIONS, PUBLISHED, PublishedTable
from moa_cli.bench.report.scores import Scores
from moa_cli.bench.report.values import accuracy_by_model
from moa_cli.bench.run.arms import MIXTURE, SINGLE
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.scoring.means import Mean
from moa_cli.profile import short_name

# Patterns of the paper's models: their names differ from table to table, and from host to host.
_MODELS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"qwen1\.5.110b",
        r"qwen1\.5.72b",
        "wizard",
        r"llama.3.70b",
        "mixtral.8x22b",
        "dbrx",
    )
)
_LITE, _GPT_4O = "MoA-Lite", "MoA w/ GPT-4o"


@dataclass(frozen=True)
class Figure:
    """A figure of the user's own, and its place in the paper's table.

    arm: the arm that it is of. metric: its name in a report; "layer N" is the accuracy of `model`
    in that layer.
    """

    row: str
    column: str
    arm: str
    metric: str
    model: str = ""


@dataclass(frozen=True)
class ReproductionRun:
    """A run that a table needs, as options of `moa bench run`.

    folder: its name. arms: the kinds of arms. figures: the figures of the run that the table shows.
    profile: a profile to use instead of the user's choice; None is that choice. proposers,
    aggregator, rounds: values that replace those of the profile; None keeps them. best: the model
    that Self-MoA samples.
    """

    folder: str
    dataset: str
    arms: tuple[str, ...]
    figures: tuple[Figure, ...]
    profile: str | None = None
    proposers: tuple[str, ...] | None = None
    aggregator: str | None = None
    rounds: int | None = None
    best: str | None = None

    def arguments(self, profile: str, output: Path) -> list[str]:
        """The arguments of the command `moa`. profile: the one that the user chose to reproduce
        with."""
        words = ["bench", "run", self.dataset, "-p", self.profile or profile]
        if self.proposers is not None:
            words += ["-m", ",".join(self.proposers)]
        if self.aggregator is not None:
            words += ["-a", self.aggregator]
        if self.rounds is not None:
            words += ["--rounds", str(self.rounds)]
        words += ["--arms", ",".join(self.arms)]
        if self.best is not None:
            words += ["--best", self.best]
        if self.dataset != "math":
            words.append("--parity")
        return [*words, "-o", str(output / self.folder)]


@dataclass(frozen=True)
class Mixed:
    """The mixture that a table is reproduced with. is_papers: whether it is that of the paper."""

    proposers: tuple[str, ...]
    aggregator: str
    rounds: int
    is_papers: bool


@dataclass(frozen=True)
class Reproduction:
    """A part of the paper that can be reproduced. tables: its published figures. runs: gives the
    runs that it needs. notes: how these differ from the paper's."""

    title: str
    tables: tuple[PublishedTable, ...]
    runs: Callable[[Mixed], Iterator[ReproductionRun]]
    notes: tuple[str, ...] = ()


def _row_of(table: PublishedTable | None, model: str) -> str:
    """The name of that model's row in the table; its short name if the table has no such row."""
    pattern = next((pattern for pattern in _MODELS if pattern.search(model)), None)
    for name, _ in table.rows if table is not None and pattern is not None else ():
        if pattern is not None and pattern.search(name):
            return name
    return short_name(model)


def _table2(mixed: Mixed) -> Iterator[ReproductionRun]:
    alpaca = (("LC win rate (%)", OWN_FIT), ("win rate (%)", "win rate"))
    mt = (
        ("average (of 10)", "average"),
        ("turn 1 (of 10)", "turn 1"),
        ("turn 2 (of 10)", "turn 2"),
    )
    models = tuple(dict.fromkeys([*mixed.proposers, mixed.aggregator]))
    for dataset, columns, table in (("alpaca", alpaca, _ALPACA), ("mt", mt, _MT)):
        arms = [("MoA", MIXTURE), *((_row_of(table, name), SINGLE + name) for name in models)]
        figures = (
            Figure(row, column, arm, metric) for row, arm in arms for column, metric in columns
        )
        yield ReproductionRun(f"table2-{dataset}", dataset, ("mixture", "single"), tuple(figures))
        if not mixed.is_papers:
            continue
        for row, profile in ((_LITE, "paper-moa-lite"), (_GPT_4O, "paper-moa-gpt4o")):
            own = tuple(Figure(row, column, MIXTURE, metric) for column, metric in columns)
            yield ReproductionRun(
                f"table2-{dataset}-{profile.removeprefix('paper-moa-')}",
                dataset,
                ("mixture",),
                own,
                profile=profile,
            )


def _alpaca_run(
    folder: str, row: str, columns: Mapping[str, str], **differing: Any
) -> ReproductionRun:
    """A run whose length-controlled win rates fill a row. columns: the column for each arm."""
    figures = (Figure(row, column, arm, OWN_FIT) for arm, column in columns.items())
    return ReproductionRun(folder, "alpaca", tuple(columns), tuple(figures), **differing)


def _table3(mixed: Mixed) -> Iterator[ReproductionRun]:
    # The aggregator comes first, because with one proposer the paper samples the aggregator.
    led = [model for model in mixed.proposers if model == mixed.aggregator]
    models = tuple(dict.fromkeys([*led, *mixed.proposers]))
    for count in dict.fromkeys(min(n, len(models)) for n in (6, 3, 2, 1)):
        proposers = models[:count]
        row = f"n = {count}"
        yield _alpaca_run(
            f"table3-{count}",
            row,
            {MIXTURE: "multiple-proposer (%)", "self": "single-proposer (%)"},
            proposers=proposers,
            rounds=1,
            best=proposers[0],
        )


def _table4(mixed: Mixed) -> Iterator[ReproductionRun]:
    [table] = (known for known in ABLATIONS if known.source.endswith("Table 4"))
    for number, model in enumerate(dict.fromkeys(mixed.proposers), 1):
        row = _row_of(table, model)
        as_aggregator, as_proposer = {MIXTURE: "as aggregator (%)"}, {"self": "as proposer (%)"}
        name = f"table4-aggregator-{number}"
        yield _alpaca_run(name, row, as_aggregator, aggregator=model, rounds=1)
        yield _alpaca_run(f"table4-proposer-{number}", row, as_proposer, rounds=1, best=model)


def _table8(mixed: Mixed) -> Iterator[ReproductionRun]:
    models = tuple(dict.fromkeys(mixed.proposers))
    # In each run, all models answer in both layers before the aggregator.
    before = [
        Figure(_row_of(_MATH, model), f"layer {layer} (%)", MIXTURE, f"layer {layer}", model)
        for model in models
        for layer in (1, 2)
    ]
    for number, model in enumerate(models, 1):
        figures = [*before, Figure(_row_of(_MATH, model), "layer 3 (%)", MIXTURE, "accuracy")]
        yield ReproductionRun(
            f"table8-{number}",
            "math",
            ("mixture",),
            tuple(figures),
            aggregator=model,
            rounds=2,
        )


def _ranker(mixed: Mixed) -> Iterator[ReproductionRun]:
    del mixed
    for layers in (2, 3):
        columns = {"synthesize": "MoA (%)", "select": "LLM-ranker (%)"}
        yield _alpaca_run(f"ranker-{layers}", f"{layers} layers", columns, rounds=layers - 1)


def _published(dataset: str) -> PublishedTable:
    return next(table for table in PUBLISHED if table.dataset == dataset)


_ALPACA, _MT, _MATH = map(_published, ("alpaca", "mt", "math"))

REPRODUCTIONS: Final[Mapping[str, Reproduction]] = {
    "table2": Reproduction(
        "MoA, MoA-Lite and single models on AlpacaEval 2 and MT-Bench", (_ALPACA, _MT), _table2
    ),
    "table3": Reproduction(
        "How many proposers, and whether they differ",
        ABLATIONS[:1],
        _table3,
        (
            "the paper does not say which models the smaller mixtures have: these are the first"
            " ones, the aggregator before the others if it is one of them",
        ),
    ),
    "table4": Reproduction(
        "Each model as aggregator of all, and as the only proposer, sampled as often",
        ABLATIONS[1:2],
        _table4,
    ),
    "table8": Reproduction(
        "Each model as aggregator by layer, on MATH",
        (_MATH,),
        _table8,
        ("layers 1 and 2 of all models are in each run: the first one that is there counts",),
    ),
    "ranker": Reproduction(
        "The mixture against an aggregator that only chooses a proposal",
        ABLATIONS[2:],
        _ranker,
        ("the paper draws this as curves (Figure 4 a) and prints no figures",),
    ),
}


@dataclass(frozen=True)
class Beside:
    """A cell of a table. paper: the published value and the ± printed with it, or None. ours: the
    user's value; None if nothing was run or judged."""

    table: str
    row: str
    column: str
    paper: tuple[float, float | None] | None
    ours: Mean | None


def beside(
    known: Reproduction, runs: Sequence[tuple[ReproductionRun, RunReader, Scores]]
) -> list[Beside]:
    """The published figures with the user's own beside them, in the order of the tables. Rows that
    the paper does not have come last in each table.

    runs: the runs that exist, with their scores.
    """
    found: dict[tuple[str, str, str], Mean | None] = {}
    for run, reader, scores in runs:
        for figure in run.figures:
            place = (run.dataset, figure.row, figure.column)
            if found.get(place) is None:
                found[place] = _own(figure, reader, scores)
    cells = []
    for table in known.tables:
        rows = {name: dict(zip(table.columns, values, strict=False)) for name, values in table.rows}
        for dataset, row, _ in found:
            if dataset == table.dataset:
                rows.setdefault(row, {})
        cells += [
            Beside(
                table.title,
                row,
                column,
                values.get(column),
                found.get((table.dataset, row, column)),
            )
            for row, values in rows.items()
            for column in table.columns
        ]
    return cells


def _own(figure: Figure, reader: RunReader, scores: Scores) -> Mean | None:
    if figure.model:
        layer = int(figure.metric.removeprefix("layer "))
        return accuracy_by_model(reader, figure.arm).get((figure.model, layer))
    arm = next((arm for arm in scores.arms if arm.arm == figure.arm), None)
    metric = None if arm is None else arm.metric(figure.metric)
    return None if metric is None or metric.mean.value is None else metric.mean

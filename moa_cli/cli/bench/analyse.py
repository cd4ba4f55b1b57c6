"""`moa bench analyse`: how a mixture used its proposals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli.bench.cells import UNKNOWN, cell, columns_of, noted, table, tell_if_long, with_n
from moa_cli.cli.bench.options import CountedJudge
from moa_cli.cli.options import Data, Json, OutputFile, RunFolder
from moa_cli.cli.output import output_width
from moa_cli.cli.writing import put
from moa_cli.core.errors import BenchError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps, plural
from moa_cli.terminal.table import Column

if TYPE_CHECKING:
    from moa_cli.bench.analysis import Analysis, ArmAnalysis, UsageShare
    from moa_cli.bench.analysis.similarity import MeanSimilarity
    from moa_cli.bench.report.differences import Differences
    from moa_cli.bench.scoring.means import Mean


def analyse(
    run: RunFolder,
    judge: CountedJudge = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="ARM|FILE",
            help="Answers written without the proposals: an arm of the run, or a file of model"
            " outputs; by default, the aggregator's model alone.",
        ),
    ] = None,
    json: Json = False,
    output: OutputFile = None,
    data: Data = None,
) -> None:
    """Analyse how a mixture uses its proposals: similarity, agreement, layers, time and cost."""
    from moa_cli.bench.analysis import analyse
    from moa_cli.bench.analysis.similarity import json_values
    from moa_cli.bench.report.differences import differences_in
    from moa_cli.bench.report.values import read_valued

    valued = read_valued(run, judge, data)
    tell_if_long(valued.run.settings.asked)
    found = analyse(valued, control)
    differences = differences_in(valued)
    if json:
        told = differences.to_dict() if differences else None
        text = dumps({**json_values(found), "differences": told}, indent=2) + "\n"
    else:
        lines = _lines(found, differences, output_width() if output is None else 80)
        text = "".join(f"{line}\n" for line in lines)
    put(text, output, BenchError)


def _lines(found: Analysis, differences: Differences | None, width: int) -> Iterator[str]:
    worth = "answers without a score"
    if found.unit:
        by = "by known answers" if found.judge is None else f"judged by {found.judge}"
        worth = f"{found.unit}, {by}"
    head = f"{found.dataset}: {plural(found.asked, 'item')}; {worth}"
    yield from noted([head, "Means ± standard error; n: the values behind a mean."], width, "")
    if differences is not None:
        yield from _differences(differences, width)
    for arm in found.arms:
        yield ""
        yield ""
        yield one_line(f"{arm.arm}: {plural(arm.items, 'item')}, {plural(arm.turns, 'turn')}")
        for part in (_near, _preference, _agreement, _layers, _by_model, _costs):
            yield from part(found, arm, width)
    if found.notes:
        yield ""
        yield from noted(found.notes, width)


def _differences(found: Differences, width: int) -> Iterator[str]:
    from moa_cli.bench.report.sections import difference_tables

    yield from noted(found.conclusions, width, "= ")
    for text_table in difference_tables([found]):
        yield from table(text_table.title, columns_of(text_table), width, text_table.keys)
        yield from noted(text_table.notes, width, "")


def _measures(
    found: Analysis, rows: Sequence[tuple[MeanSimilarity, ...]], *, counts: bool = True
) -> list[Column]:
    """A column for each measure and, if `counts`, a column with the number of values."""
    from moa_cli.bench.analysis.similarity import BLEU, LEVENSHTEIN, TFIDF

    found_of = [{similarity.measure: similarity.mean for similarity in row} for row in rows]
    columns = [
        Column(name, [cell(means.get(name)) for means in found_of], right=True)
        for name in (BLEU, LEVENSHTEIN, TFIDF)
        if name in found.measures
    ]
    if counts:
        columns.append(Column("n", _counts(rows), right=True))
    return columns


def _counts(rows: Sequence[tuple[MeanSimilarity, ...]]) -> list[str]:
    return [f"{row[0].mean.n:,}" if row else "" for row in rows]


def _near(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    from moa_cli.profile import short_name

    columns = [
        Column("#", [str(proposal.place) for proposal in arm.near], right=True),
        *_measures(found, [proposal.similarity for proposal in arm.near]),
        Column("nearest", [_percent(proposal.nearest) for proposal in arm.near], right=True),
        Column("proposer", [short_name(proposal.model) for proposal in arm.near]),
    ]
    title = (
        "Similarity of the reply to each proposal of the last layer, 0 to 1, and how often it is"
        f" nearest to it (by {found.measures[0]})"
    )
    yield from table(title, columns, width)


def _percent(share: Mean | None) -> str:
    if share is None or share.value is None:
        return UNKNOWN
    error = share.standard_error
    return f"{share.value:.0%}" + ("" if error is None else f"±{error:.0%}")


def _preference(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    rows = arm.preference.rows
    title = "Does the reply follow the better proposals? Rank correlation of similarity and worth"
    if rows:
        columns = [
            Column("measure", [row.measure for row in rows]),
            Column("reply", [with_n(row.reply, 2, sign="+") for row in rows]),
            Column("control", [with_n(row.control, 2, sign="+") for row in rows]),
            Column("reply - control", [with_n(row.difference, 2, sign="+") for row in rows]),
        ]
        yield from table(f"{title}, -1 to 1", columns, width)
    else:
        yield ""
        yield from noted([f"{title}: cannot be computed"], width, "")
    yield from noted(arm.preference.notes, width)


def _agreement(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    if not arm.agreement:
        return
    from moa_cli.profile import short_name

    rows = [(str(layer.layer), "all", "", layer.similarity) for layer in arm.agreement]
    last = arm.agreement[-1]
    for pair in last.pairs:
        a, b = pair.places
        names = " ~ ".join(map(short_name, pair.models))
        rows.append((str(last.layer), f"{a}~{b}", names, pair.similarity))
    columns = [
        Column("layer", [row[0] for row in rows], right=True),
        Column("pair", [row[1] for row in rows]),
        *_measures(found, [row[3] for row in rows]),
        Column("proposers", [row[2] for row in rows]),
    ]
    yield from table(
        "Agreement: similarity of a layer's proposals to each other", columns, width, 2
    )


def _layers(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    rows = arm.layers
    names = ["reply" if row.is_reply else str(row.layer) for row in rows]
    columns = [
        Column("layer", names, right=True),
        Column("characters", [cell(row.characters, 0) for row in rows], right=True),
        Column("n", [f"{row.characters.n:,}" for row in rows], right=True),
        *_measures(found, [row.similarity for row in rows], counts=False),
        Column("n", _counts([row.similarity for row in rows])),
    ]
    title = "What each layer added: length, and similarity to the answers of the layer before"
    yield from table(title, columns, width)
    if not any(row.accuracy for row in rows):
        return
    columns = [
        Column("layer", names, right=True),
        Column("right", [_share(row.accuracy) for row in rows], right=True),
        Column("gained", [_share(row.gained) for row in rows], right=True),
        Column("lost", [_share(row.lost) for row in rows], right=True),
        Column("n", [f"{row.accuracy.n:,}" if row.accuracy else "" for row in rows]),
    ]
    title = (
        "Right answers by layer, %; gained: right, but wrong in the layer before; lost: wrong, but"
        " right in it (of all pairs of answers)"
    )
    yield from table(title, columns, width)


def _by_model(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    if not arm.accuracy:
        return
    from moa_cli.profile import short_name

    told = {(row.model, row.layer): row.accuracy for row in arm.accuracy}
    models = list(dict.fromkeys(row.model for row in arm.accuracy))
    numbers = sorted({row.layer for row in arm.accuracy})
    first = [told.get((model, numbers[0])) for model in models]
    columns = [
        *(
            Column(
                f"layer {number}",
                [cell(told.get((model, number)), 1) for model in models],
                right=True,
            )
            for number in numbers
        ),
        Column("n", [f"{mean.n:,}" if mean else "" for mean in first]),
        Column("proposer", [short_name(model) for model in models]),
    ]
    title = (
        "Right answers by model and layer, %; in a later layer a model answers with all proposals"
        " before it"
    )
    yield from table(title, columns, width, keys=-1)


def _share(share: Mean | None) -> str:
    return cell(share and share.in_percent(), 1)


def _costs(found: Analysis, arm: ArmAnalysis, width: int) -> Iterator[str]:
    from moa_cli.profile import short_name

    rows = (("critical path", arm.seconds_path), ("sum of calls", arm.seconds_sum))
    columns = [
        Column("seconds an item", [name for name, _ in rows]),
        Column("median", [_seconds(row.median) for _, row in rows], right=True),
        Column("90 % within", [_seconds(row.ninetieth) for _, row in rows], right=True),
        Column("mean", [with_n(row.mean, 2) for _, row in rows]),
    ]
    yield from table("Latency", columns, width)
    yield from _spent("Tokens and cost by model", "model", arm.by_model, short_name, width)
    yield from _spent("Tokens and cost by layer", "layer", arm.by_layer, str, width)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.2f}"


def _spent(
    title: str, head: str, rows: Sequence[UsageShare], shown: Callable[[str], str], width: int
) -> Iterator[str]:
    from moa_cli.core.money import cost_text

    if not rows:
        return
    columns = [
        Column("calls", [f"{row.usage.calls:,}" for row in rows], right=True),
        Column("tokens in", [f"{row.usage.prompt_tokens:,}" for row in rows], right=True),
        Column("out", [f"{row.usage.completion_tokens:,}" for row in rows], right=True),
        Column("cost", [cost_text(row.usage) for row in rows], right=True),
        Column("an item", [_money(row.cost) for row in rows], widest=32),
        Column(head, [shown(row.name) for row in rows]),
    ]
    yield from table(title, columns, width, keys=-1)


def _money(cost: Mean) -> str:
    from moa_cli.core.money import usd

    if cost.value is None:
        return UNKNOWN
    error = "" if cost.standard_error is None else f"±{usd(cost.standard_error)}"
    return f"{usd(cost.value)}{error} (n {cost.n:,})"

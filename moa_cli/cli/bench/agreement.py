"""`moa bench agreement`: how far the judges of a run agree, with each other and with you."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.cli.bench.cells import shortened, split_table
from moa_cli.cli.options import Data, RunFolder
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.table import Column
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.bench.judge.panel import ChosenPair, Panel, VerdictName
    from moa_cli.bench.scoring.agreement import Agreement
    from moa_cli.bench.scoring.means import Mean
    from moa_cli.bench.scoring.statistics import ConfidenceInterval
    from moa_cli.compare.judging import ChoiceAgreement

_UNKNOWN = "–"
_WIDEST = 40


def agreement(
    run: RunFolder,
    judges: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="Only these judges; repeatable. By default, all judges of the run.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    data: Data = None,
) -> None:
    """Measure how a run's judges agree beyond chance, and with your choices in `moa compare`."""
    from moa_cli.bench.judge.panel import chosen_pairs, read_panel
    from moa_cli.bench.run.folder import read_run
    from moa_cli.cli.compare.judge import choice_agreement_lines
    from moa_cli.compare.judging import read_agreement

    reader = read_run(run, data)
    panel = read_panel(reader, judges or ())
    made = open_store(to_read=True).comparisons.since(texts=True)
    profile = str(reader.settings.profile.get("name", ""))
    chosen = chosen_pairs(panel, reader.settings.arms, made, profile)
    rejudged = [found for judge in panel.values if (found := read_agreement(judge, made))]
    if json:
        print_json(_table(panel, chosen, rejudged))
        return
    print_lines(agreement_lines(panel, chosen, output_width()))
    for found in rejudged:
        print_lines(["", *choice_agreement_lines(found)])
    if len(panel.values) < 2:
        say(
            f"there is one judge: `moa bench judge {run} --judge MODEL` asks another, whom it can"
            " be compared with"
        )


def agreement_lines(panel: Panel, chosen: Sequence[ChosenPair], width: int) -> list[str]:
    """The tables of a panel: pairs of judges, arms, and your choices."""
    lines = [_sentence(_head(panel))]
    if len(panel.values) > 1:
        lines += [*_pair_lines(panel, width), *_whole_lines(panel)]
        lines += ["", *_arm_lines(panel, width)] if panel.common() else []
    if chosen:
        lines += ["", *_chosen_lines(panel, chosen, width)]
    return lines


def _head(panel: Panel) -> str:
    common = plural(len(panel.common()), "answer")
    what = "ratings" if panel.against is None else f"who is better, the reply or {panel.against}"
    by_all = " by all" if len(panel.values) > 1 else ""
    return f"{plural(len(panel.values), 'judge')}: {what}; {common} judged{by_all}"


def _pair_lines(panel: Panel, width: int) -> Iterator[str]:
    pairs = panel.pairs()
    kappa = "kappa" if panel.against is not None else "weighted kappa"
    yield ""
    yield from split_table(
        [
            Column("judge", [pair.first for pair in pairs], widest=_WIDEST),
            Column("and", [pair.second for pair in pairs], widest=_WIDEST),
            Column("same verdict", [_percent(pair.same) for pair in pairs], right=True),
            Column(kappa, [_number(pair.kappa) for pair in pairs], right=True),
            Column("95 % interval", [_interval(pair.interval) for pair in pairs], right=True),
            Column("judged by both", [f"{pair.units:,}" for pair in pairs], right=True),
        ],
        width,
        keys=2,
    )


def _whole_lines(panel: Panel) -> Iterator[str]:
    alpha = f"Krippendorff's alpha {_measure(panel.alpha())}"
    fleiss = panel.fleiss()
    if fleiss is None:
        yield _sentence(f"all together: {alpha}")
    else:
        yield _sentence(f"all together: Fleiss' kappa {_measure(fleiss)}, {alpha}")


def _arm_lines(panel: Panel, width: int) -> Iterator[str]:
    arms = panel.arms()
    yield _sentence(f"{panel.unit}, over what all have judged; the panel is their mean")
    yield from split_table(
        [
            Column("arm", [arm.arm for arm in arms], widest=_WIDEST),
            Column("panel", [arm.panel.text(2) for arm in arms], right=True),
            *(
                Column(head, [arm.by_judge[judge].text(2) for arm in arms], right=True)
                for head, judge in _judge_heads(panel)
            ),
        ],
        width,
    )


def _judge_heads(panel: Panel) -> Iterator[tuple[str, str]]:
    """The heads of the judges' columns, each with the judge."""
    judges = list(panel.values)
    return zip(shortened(judges, Column.widest), judges, strict=True)


def _chosen_lines(panel: Panel, chosen: Sequence[ChosenPair], width: int) -> Iterator[str]:
    yield _sentence(
        "how often the first arm is better than the second, by your choices in `moa compare`"
    )
    yield from split_table(
        [
            Column("arm", [pair.first for pair in chosen], widest=_WIDEST),
            Column("against", [pair.second for pair in chosen], widest=_WIDEST),
            Column("you", [_share(pair.chosen) for pair in chosen], right=True),
            *(
                Column(head, [_share(pair.by_judge[judge]) for pair in chosen], right=True)
                for head, judge in _judge_heads(panel)
            ),
        ],
        width,
    )
    for judge in panel.values:
        told = [agrees for pair in chosen if (agrees := pair.agrees(judge)) is not None]
        yield _sentence(
            f"{judge} prefers the arm that you prefer in {sum(told):,} of"
            f" {plural(len(told), 'pair')}"
        )


def _sentence(text: str) -> str:
    """A sentence as one line, which is folded between words at a terminal."""
    return folded(one_line(text), sys.stdout)


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f}"


def _interval(interval: ConfidenceInterval | None) -> str:
    return _UNKNOWN if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def _measure(agreement: Agreement[VerdictName]) -> str:
    from moa_cli.bench.judge.panel import interval_of

    interval = interval_of(agreement)
    return _number(agreement.value) + (f" ({_interval(interval)})" if interval else "")


def _share(mean: Mean) -> str:
    return f"{_percent(mean.value)} (n {mean.n:,})"


def _table(
    panel: Panel, chosen: Sequence[ChosenPair], rejudged: Sequence[ChoiceAgreement]
) -> dict[str, Any]:
    from moa_cli.bench.judge.panel import interval_of

    fleiss, alpha = panel.fleiss() if len(panel.values) > 1 else None, panel.alpha()
    fleiss_interval, alpha_interval = fleiss and interval_of(fleiss), interval_of(alpha)
    return {
        "judges": list(panel.values),
        "unit": panel.unit,
        "against": panel.against,
        "judged_by_all": len(panel.common()),
        "pairs": list(map(asdict, panel.pairs())),
        "fleiss_kappa": fleiss and fleiss.value,
        "fleiss_kappa_interval": fleiss_interval and asdict(fleiss_interval),
        "krippendorff_alpha": alpha.value,
        "krippendorff_alpha_interval": alpha_interval and asdict(alpha_interval),
        "arms": list(map(asdict, panel.arms())),
        "choices": list(map(asdict, chosen)),
        "rejudged_choices": list(map(asdict, rejudged)),
    }

"""`moa compare judge`: a model chooses between the answers of earlier choices, which shows how far
it agrees with the user."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from moa_cli.cli import wiring
from moa_cli.cli.bench.judge import ReasoningTokens, ask_judge, unreadable_lines
from moa_cli.cli.bench.options import MaxCost, capped_exit
from moa_cli.cli.commands import Debug
from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.options import (
    Concurrency,
    JsonArray,
    Live,
    ProviderConcurrency,
    YesBeforeSending,
)
from moa_cli.cli.output import check_can_confirm, print_json, print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.errors import StoreError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.bench.run.journal import Judgement, Result
    from moa_cli.cli.bench.session import SessionOptions
    from moa_cli.compare.judging import ChoiceAgreement, DecidedPair
    from moa_cli.core.conversation import Usage

_UNKNOWN = "–"


def judge(
    judges: Annotated[
        list[str],
        Option("--judge", metavar="MODEL", help="The model that judges; repeatable."),
    ],
    reasoning_tokens: ReasoningTokens = None,
    concurrency: Concurrency = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    yes: YesBeforeSending = False,
    json: JsonArray = False,
    live: Live = None,
    debug: Debug = False,
) -> None:
    """Let a model choose between the same answers, and measure how far it agrees with you.

    It is asked about each pair in both orders, without knowing what you chose or whose the answers
    are. The same command resumes where it stopped, and asks only about new choices.
    """
    from moa_cli.cli.bench.session import SessionOptions
    from moa_cli.compare.judging import decided_pairs
    from moa_cli.core.money import cost_text

    models = list(dict.fromkeys(judges))
    for model in models:
        wiring.check_model_name("--judge", model)
    made = open_store(to_read=True).comparisons.since(texts=True)
    pairs = decided_pairs(made)
    if not pairs:
        raise StoreError(
            "no choice with prompt and answers is kept",
            hint="`moa compare --keep-texts` keeps them",
        )
    if not yes:
        check_can_confirm()
    for notice in wiring.providers().key_notices(models):
        say(notice)
    lacking = sum(comparison.texts is None for comparison in made)
    if lacking:
        say(f"{lacking:,} of {plural(len(made), 'choice')}: without prompt and answers, not judged")
    options = SessionOptions(
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        live=live,
    )
    told, failed, spent = [], 0, 0.0
    for model in models:
        left = options
        if max_cost is not None:
            left = replace(options, max_cost=max(0.0, max_cost - spent))
        agreement, verdicts, usage = _judged(model, pairs, reasoning_tokens, left)
        spent += usage.cost
        failed += sum(verdict.error is not None for verdict in verdicts)
        told.append(agreement)
        if not json:
            print_lines(["", *choice_agreement_lines(agreement), f"cost: {cost_text(usage)}"])
    if json:
        print_json([agreement.to_dict() for agreement in told])
    if failed:
        say(f"failed judgements: {failed:,}; the same command tries them again")
    if failed or not any(agreement.pairs for agreement in told):
        raise Exit(FAILED)


def _judged(
    model: str,
    pairs: Sequence[DecidedPair],
    reasoning_tokens: int | None,
    options: SessionOptions,
) -> tuple[ChoiceAgreement, list[Judgement], Usage]:
    """Have that model judge the pairs that it has not judged yet. Returns its agreement with the
    user, its verdicts, and their usage."""
    from moa_cli.bench.judge.judging import JudgeFolder, JudgeResults
    from moa_cli.bench.run.folder import opened
    from moa_cli.cli.bench.session import where
    from moa_cli.compare.judging import agreement_of, folder_of, plan_of

    with opened(folder_of(model), JudgeFolder) as folder:
        plan = folder.go_on(plan_of(pairs, model, reasoning_tokens))
        choices = len({pair.number for pair in pairs})
        say(
            f"{model} judges {plural(len(pairs), 'pair')} of {plural(choices, 'choice')}, in both"
            " orders"
        )
        say(where(folder, folder.judgements.values(), "judgements"))
        verdicts = JudgeResults(folder, plan)
        capped = ask_judge(verdicts, options, called=partial(_called, pairs))
        told = list(verdicts.all())
        agreement = agreement_of(model, pairs, told)
        usage = folder.journal.spent
    if capped is not None:
        print_lines(choice_agreement_lines(agreement))
        raise capped_exit(capped)
    for line in unreadable_lines(told, plan.kind):
        say(line)
    return agreement, told, usage


def _called(pairs: Sequence[DecidedPair], result: Result) -> str:
    """The name of a failed judgement, for messages."""
    item = result.item.partition(" ")[0]
    pair = next(pair for pair in pairs if pair.name == (result.arm, item))
    first, second = ascii_uppercase[pair.first], ascii_uppercase[pair.second]
    return f"choice {pair.number}, {first} and {second}"


def choice_agreement_lines(agreement: ChoiceAgreement) -> list[str]:
    """Lines on how far a judge agrees with the user, folded at the width of the terminal."""
    return [folded(line, sys.stdout) for line in _agreement_lines(agreement)]


def _agreement_lines(agreement: ChoiceAgreement) -> Iterator[str]:
    pairs, choices = plural(agreement.pairs, "pair"), plural(agreement.choices, "choice")
    yield one_line(f"{agreement.judge} and you: {pairs} of {choices}")
    if not agreement.pairs:
        return
    yield (f"the same verdict: {_percent(agreement.same)} (by chance {_percent(agreement.chance)})")
    interval = agreement.interval
    kappa = _UNKNOWN if agreement.kappa is None else f"{agreement.kappa:.2f}"
    between = f", 95 % interval {interval.low:.2f} to {interval.high:.2f}" if interval else ""
    yield f"kappa: {kappa}{between}"
    alike = f"{agreement.decided_same:,} of {agreement.decided:,} alike"
    yield f"without ties: {alike}"
    yield (
        f"both orders give the same verdict: {_percent(agreement.orders_agree.value)};"
        f" the first answer is preferred: {_percent(agreement.first_better.value)}"
    )
    if agreement.lacking:
        yield f"without verdicts in both orders: {plural(agreement.lacking, 'pair')}"


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{100 * share:.0f} %"

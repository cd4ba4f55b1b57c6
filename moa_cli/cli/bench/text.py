"""What `moa bench run` says: the plan, what it will take, what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moa_cli.bench.run.estimate import MARGIN, RunEstimate
from moa_cli.bench.run.folder import RunFolder, StateFolder
from moa_cli.bench.run.journal import CallJournal, path_seconds
from moa_cli.bench.run.plan import RunPlan
from moa_cli.bench.run.records import Judgement, Result
from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import cost_text, usd
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.terminal.table import Column, table_lines
from moa_cli.terminal.usage import spent_lines

__all__ = ["estimate_lines", "plan_lines", "summary_lines", "where"]

_MOST_NAMED = 10


def plan_lines(plan: RunPlan, folder: RunFolder) -> Iterator[str]:
    """What is asked and by whom, and what is there already."""
    arms = []
    for kind in plan.kinds:
        singles = sum(arm.name.startswith("single:") for arm in plan.arms())
        about = {
            "self": f" (Self-MoA on {plan.best})",
            "single": f" ({plural(singles, 'model')})",
        }
        arms.append(kind + about.get(kind, ""))
    of = f" of {len(plan.dataset.items):,}" if len(plan.items) < len(plan.dataset.items) else ""
    yield (
        f"{plan.dataset.name}: {len(plan.items):,}{of} items, arms: {', '.join(arms)}"
        + (", settings of the authors' scripts" if plan.parity else "")
    )
    if plan.given:
        names = ", ".join(proposer.name or "" for proposer in plan.profile.layer(1))
        yield f"the first layer's answers are given: {names}"
    yield where(folder, folder.results.values(), "results")


def where(folder: StateFolder[Any], ended: Iterable[Result | Judgement], what: str) -> str:
    """The folder of a session, and what is there already. what: a word for what has ended."""
    if not folder.settings:
        return f"into {folder.path}"
    done = sum(one.error is None for one in ended)
    return (
        f"going on in {folder.path}: {done:,} {what} and {len(folder.journal):,} calls are there"
        " and not asked for again"
    )


def estimate_lines(
    estimate: RunEstimate, facts: Mapping[str, ModelInfo], left: float | None
) -> Iterator[str]:
    """Calls, tokens and cost, each with its band. left: USD below --max-cost, None without."""
    low, high = estimate.low, estimate.high
    yield (
        f"{estimate.calls:,} calls; tokens in: between {low.prompt_tokens:,} and"
        f" {high.prompt_tokens:,}, out: up to {'about ' * estimate.assumed}"
        f"{high.completion_tokens:,}"
    )
    yield _cost_band(low, high, "about " * estimate.assumed)
    how = f"prompts as they are ± {MARGIN:.0%}, answers from nothing to their max_tokens"
    if estimate.assumed:
        how += f" ({ASSUMED_TOKENS:,} where there is none)"
    yield f"({how})"
    unpriced = [name for name, one in facts.items() if one.price is None]
    if unpriced:
        yield f"(the price of {', '.join(unpriced)} is unknown)"
    if left is not None and high.cost > left:
        yield f"(--max-cost leaves {usd(left)}, which may end the run before all is done)"


def _cost_band(low: Usage, high: Usage, about: str) -> str:
    if high.unpriced_calls >= high.calls:
        return cost_text(high)
    lacking = " + ?" if high.unpriced_calls else ""
    if high.cost == low.cost:
        return f"cost: {usd(high.cost)}{lacking}"
    return f"cost: between {usd(low.cost)} and {about}{usd(high.cost)}{lacking}"


def summary_lines(plan: RunPlan, folder: RunFolder, width: int) -> list[str]:
    """A table of the arms, what failed, and what the run took in all."""
    arms = [arm.name for arm in plan.arms()]
    results = {arm: [one for one in folder.results.values() if one.arm == arm] for arm in arms}
    usages = [sum((one.usage for one in results[arm]), Usage()) for arm in arms]
    answered = [[one for one in results[arm] if one.error is None] for arm in arms]
    failed = [[one for one in results[arm] if one.error is not None] for arm in arms]
    journal = folder.journal
    columns = [
        Column("arm", arms, widest=40),
        Column("answered", [f"{len(one):,}" for one in answered], right=True),
        Column("failed", [f"{len(one):,}" for one in failed], right=True),
        Column("calls", [f"{one.calls:,}" for one in usages], right=True),
        Column("tokens in", [f"{one.prompt_tokens:,}" for one in usages], right=True, spare=2),
        Column("out", [f"{one.completion_tokens:,}" for one in usages], right=True, spare=1),
        Column("cost", [cost_text(one) if one.calls else "$0" for one in usages], right=True),
        Column("s/item", [_seconds(one, journal) for one in answered]),
    ]
    lines = table_lines(columns, width)
    expected = len(plan.items) * len(arms)
    there = sum(map(len, answered)) + sum(map(len, failed))
    if there < expected:
        lines.append(f"partial: {there:,} of {expected:,}")
    lines += _failures([one for group in failed for one in group])
    if journal.spent.calls:
        lines += spent_lines({"spent in all": journal.spent})
    return lines


def _failures(failed: Sequence[Result]) -> Iterator[str]:
    for one in failed[:_MOST_NAMED]:
        assert one.error is not None
        yield one_line(f"failed: {one.arm}, item {one.item}: {one.error.message}")
    if len(failed) > _MOST_NAMED:
        names = ", ".join(f"{one.arm} {one.item}" for one in failed[_MOST_NAMED:])
        yield one_line(f"failed too: {names}", 2000)


def _seconds(results: Sequence[Result], journal: CallJournal) -> str:
    """Seconds an item would take alone, on average: its slowest call in each layer."""
    if not results:
        return ""
    return f"{sum(path_seconds(one, journal) for one in results) / len(results):.1f}"

"""The judge of Arena-Hard, which compares answers with a baseline's in both orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.data.items import Item, text_in
from moa_cli.bench.data.released import ARENA_ANSWERS
from moa_cli.bench.judge.kinds import Asked, JudgedArm, JudgeKind, JudgeQuestion, JudgeTask
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.run.journal import CallRecord, Judgement
from moa_cli.bench.scoring import arena
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric

SCORE: Final = "score"
STYLE_SCORE: Final = "score, style control"
# The prompt of Arena-Hard, word for word; the file names its source.
PROMPT: Final = Path(__file__).with_name("arena_hard.json")


@dataclass(frozen=True)
class ArenaTask(JudgeTask):
    """See `JudgeTask`. baseline: the answers to compare with, by item."""

    prompt: arena.ArenaPrompt
    baseline: Mapping[str, str]

    def turns(self, item: Item) -> int:
        """See `JudgeTask`. An item without a baseline answer is not judged."""
        return int(item.id in self.baseline)

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        item = question.item
        return arena.judge_call(
            self.prompt,
            item.turns[0],
            self.baseline[item.id],
            question.replies[0],
            switched=_is_switched(question.turn),
        )

    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        switched = _is_switched(question.turn)
        strength = arena.parse_verdict(record.text, switched=switched)
        return Judgement(
            *question.name,
            value=None if strength is None else float(strength),
            switched=switched,
            text=record.text,
            key=record.key,
        )


def _is_switched(game: int) -> bool:
    return game % arena.GAMES == 1


def _prompts(run: RunReader, reference: Mapping[str, str]) -> ArenaTask:
    del run
    return ArenaTask((PROMPT,), arena.arena_prompt(text_in(PROMPT)), reference)


def _figures(judged: JudgedArm) -> Figures:
    told = arena.score(
        [
            _battle(verdict, verdict.value)
            for verdict in judged.verdicts
            if verdict.value is not None
        ],
        seed=judged.arm,
    )
    metrics = [Metric(SCORE, told.score, arena.GAMES * judged.asked, "%")]
    notes = []
    if told.interval is not None:
        low, high = told.interval
        notes += [
            "score: a strong verdict counts three times; the intervals are of"
            f" {arena.ROUNDS} bootstrap samples of battles, as upstream has it, and ± takes the"
            " games of one prompt together. Differences of arms are of the mean verdict of an"
            " item's games, from 0 (significantly worse) to 100",
            f"{judged.arm}: score {told.score.value:.1f} %, 95 % interval {low:.1f} to {high:.1f}",
        ]
        controlled = arena.style_controlled(_styled(judged)).scores.get(judged.arm)
        if controlled is not None:
            metrics.append(Metric(STYLE_SCORE, controlled, arena.GAMES * judged.asked, "%"))
    metrics += [
        Metric("both orders agree", told.agreement, judged.asked, "%"),
        Metric("length", judged.length(), judged.asked, "characters"),
    ]
    return Figures(tuple(metrics), {}, tuple(notes))


def _styled(judged: JudgedArm) -> tuple[arena.StyledBattle, ...]:
    """The battles of all arms and anchors. The effect of style is fitted over all of them, because
    it is taken to be the same for all."""
    replies, baseline = judged.run.shown(judged.judge), judged.reference
    return tuple(
        arena.StyledBattle(
            verdict.arm,
            _battle(verdict, verdict.value),
            arena.style_of(baseline[verdict.item].replies[0]),
            arena.style_of(replies[verdict.arm, verdict.item][0]),
        )
        for verdict in judged.judge.judgements
        if verdict.value is not None
        and verdict.item in baseline
        and (verdict.arm, verdict.item) in replies
    )


def _battle(verdict: Judgement, value: float) -> arena.Battle:
    return arena.Battle(verdict.item, int(value), origin_of(verdict.item))


ARENA = JudgeKind(
    name="arena",
    how="pairs in both orders, by five labels",
    unit="mean verdict, %",
    original="gpt-4-1106-preview",
    answers=ARENA_ANSWERS,
    compares=True,
    references=("arena_hard/gpt-4-0314.jsonl",),
    games=arena.GAMES,
    even=0.0,
    prompts=_prompts,
    # From 0 (significantly worse) to 100 (significantly better).
    worth=lambda verdict: None if verdict.value is None else 25 * (verdict.value + 2),
    figures=_figures,
)

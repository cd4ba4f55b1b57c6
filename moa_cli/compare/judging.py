"""Has a model decide what the user has decided: which of two answers is better.

The judge gets the same request as the judge of Arena-Hard: about each pair in both orders, without
knowing which arms answered or what the user chose. Its state is a folder like that of a judge of
`bench` (see `bench.run.folder`), so that the judging can be stopped and continued.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from moa_cli.bench.data.items import Item, text_in
from moa_cli.bench.data.json_lines import Lines, read_lines, to_line
from moa_cli.bench.judge.arena import ARENA, PROMPT, ArenaTask
from moa_cli.bench.judge.judging import JudgedTexts, JudgeFolder, JudgePlan
from moa_cli.bench.judge.kinds import Asked, JudgeQuestion
from moa_cli.bench.run.folder import JUDGE_FILE, JUDGEMENTS, judge_folder, latest, opened
from moa_cli.bench.run.journal import CALLS, Judgement
from moa_cli.bench.scoring import arena
from moa_cli.bench.scoring.agreement import Agreement, cohen_kappa
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.bench.scoring.statistics import ConfidenceInterval
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.store.comparisons import ComparedTexts, Comparison

_DIGEST = 8


def folder_of(model: str) -> Path:
    """The folder of that judge's verdicts on the user's choices."""
    return judge_folder(_all_judges(), model)


def _all_judges() -> Path:
    return paths.data_dir() / "compare"


@dataclass(frozen=True)
class DecidedPair:
    """Two answers of a choice between which the user decided.

    number, texts: the number and the texts of the choice. first, second: the places of the
    contenders that gave the two answers. verdict: 1 if the user found the first better, -1 if the
    second, 0 for a tie.
    """

    number: int
    texts: ComparedTexts
    first: int
    second: int
    verdict: int

    @property
    def item(self) -> str:
        """The number of the choice with a hash of its texts, because another history may have a
        choice with the same number."""
        words = json.dumps(asdict(self.texts), sort_keys=True)
        return f"{self.number}-{hashlib.sha256(words.encode()).hexdigest()[:_DIGEST]}"

    @property
    def name(self) -> tuple[str, str]:
        """The name of the pair in the judge's files, as an arm and an item."""
        return f"{self.first}:{self.second}", self.item


def decided_pairs(comparisons: Iterable[Comparison]) -> list[DecidedPair]:
    """All pairs of different answers for which the user's choice says which is better. Choices
    whose texts were not kept are left out."""
    found = []
    for comparison in comparisons:
        answers = comparison.answers
        places = [answers.index(answer) for answer in dict.fromkeys(answers)]
        if comparison.texts is None or comparison.number is None:
            continue
        for position, first in enumerate(places):
            for second in places[position + 1 :]:
                share = comparison.share_better(first, second)
                if share is not None:
                    verdict = (share > 0.5) - (share < 0.5)
                    pair = DecidedPair(comparison.number, comparison.texts, first, second, verdict)
                    found.append(pair)
    return found


@dataclass(frozen=True)
class ChoiceTask(ArenaTask):
    """See `JudgeTask`. Both answers come from the question, so there is no baseline."""

    def turns(self, item: Item) -> int:
        del item
        return 1

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        first, second = question.replies
        return arena.judge_call(
            self.prompt,
            _asked_text(question.item),
            first,
            second,
            switched=question.turn % arena.GAMES == 1,
        )


def _asked_text(item: Item) -> str:
    """The prompt. If it belongs to a conversation, the earlier messages come before it."""
    if not item.before:
        return item.turns[0]
    said = "\n\n".join(f"[{message.role}]\n{message.content}" for message in item.before)
    return f"{said}\n\n[user]\n{item.turns[0]}"


def plan_of(pairs: Sequence[DecidedPair], model: str, reasoning_tokens: int | None) -> JudgePlan:
    """The plan of what that judge is asked. See `JudgePlan`."""
    items = {
        pair.item: Item(
            id=pair.item,
            turns=(pair.texts.prompt,),
            before=tuple(Message(role, text) for role, text in pair.texts.before),  # type: ignore[arg-type]
        )
        for pair in pairs
    }
    replies: dict[str, dict[str, tuple[str, ...]]] = {}
    for pair in pairs:
        arm, item = pair.name
        texts = pair.texts.answers
        replies.setdefault(arm, {})[item] = texts[pair.first], texts[pair.second]
    return JudgePlan(
        model=model,
        kind=ARENA,
        prompts=ChoiceTask((PROMPT,), arena.arena_prompt(text_in(PROMPT)), {}),
        items=tuple(items.values()),
        judged=JudgedTexts(replies, {}, (), None, None, ()),
        reasoning_tokens=reasoning_tokens,
    )


@dataclass(frozen=True)
class ChoiceAgreement:
    """How far a judge agrees with the user.

    The judge finds an answer better if it says so in both orders; otherwise its verdict is a tie.
    It is arbitrary which answer of a pair is the first one. So for agreement by chance, each pair
    is counted in both directions.

    pairs: how many pairs have the judge's verdicts in both orders. choices: how many choices these
    pairs are from. lacking: how many pairs have no such verdicts. same: the share of pairs on which
    both have the same verdict. chance: the share that chance would give. kappa: Cohen's kappa; None
    if it is undefined. interval: its 95 % interval, by drawing choices again (bootstrap, seeded).
    decided: how many pairs neither finds a tie. decided_same: on how many of these they agree.
    orders_agree: the share of pairs with the same verdict in both orders. first_better: how often
    the judge prefers the answer that it sees first, among its verdicts that prefer one.
    """

    judge: str
    choices: int
    pairs: int
    lacking: int
    same: float | None
    chance: float | None
    kappa: float | None
    interval: ConfidenceInterval | None
    decided: int
    decided_same: int
    orders_agree: Mean
    first_better: Mean

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# By choice: the verdicts of the user and of the judge on each pair.
_Verdicts = Mapping[int, Sequence[tuple[int, int]]]


def agreement_of(
    judge: str, pairs: Sequence[DecidedPair], judgements: Iterable[Judgement]
) -> ChoiceAgreement:
    """How far that judge agrees with the user's decisions.

    judgements: the judge's verdicts; those on other pairs are left out.
    """
    told = {
        verdict.name: verdict.value
        for verdict in judgements
        if verdict.error is None and verdict.value is not None
    }
    by_choice: dict[int, list[tuple[int, int]]] = {}
    orders: list[tuple[float, str]] = []
    first_better: list[tuple[float, str]] = []
    for pair in pairs:
        # The verdicts on the second answer: from the game in which it stood second, and from the
        # one in which it stood first.
        games = [told.get((*pair.name, game)) for game in range(arena.GAMES)]
        known = [(game > 0) - (game < 0) for game in games if game is not None]
        if len(known) < arena.GAMES:
            continue
        agreed = known[0] == known[1]
        by_choice.setdefault(pair.number, []).append((pair.verdict, -known[0] if agreed else 0))
        orders.append((float(agreed), pair.item))
        for preferred, stood in ((known[0], -1), (known[1], 1)):
            if preferred:
                first_better.append((float(preferred == stood), pair.item))
    verdicts = [both for found in by_choice.values() for both in found]
    decided = [(user, other) for user, other in verdicts if user and other]
    count = len(verdicts)
    kappa = _kappa(by_choice)
    return ChoiceAgreement(
        judge=judge,
        choices=len(by_choice),
        pairs=count,
        lacking=len(pairs) - count,
        same=sum(user == other for user, other in verdicts) / count if count else None,
        chance=_chance(verdicts),
        kappa=kappa.value,
        interval=kappa.interval(itemgetter(0)),
        decided=len(decided),
        decided_same=sum(user == other for user, other in decided),
        orders_agree=grouped_mean(orders),
        first_better=grouped_mean(first_better),
    )


def _both_sides(verdicts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [*verdicts, *((-user, -other) for user, other in verdicts)]


def _chance(verdicts: Sequence[tuple[int, int]]) -> float | None:
    if not verdicts:
        return None
    users, judges = (Counter(side) for side in zip(*_both_sides(verdicts), strict=True))
    return sum(users[value] * judges[value] for value in users) / (2 * len(verdicts)) ** 2


def _kappa(by_choice: _Verdicts) -> Agreement[tuple[int, int]]:
    """Cohen's kappa over pairs in both directions. A unit is a choice and a number, so that the
    interval can draw choices: the pairs of one choice are not independent."""
    users: dict[tuple[int, int], float] = {}
    judges: dict[tuple[int, int], float] = {}
    for choice, verdicts in by_choice.items():
        for number, (user, judge) in enumerate(_both_sides(verdicts)):
            users[choice, number], judges[choice, number] = user, judge
    return cohen_kappa(users, judges, "nominal")


def read_agreement(judge: str, comparisons: Iterable[Comparison]) -> ChoiceAgreement | None:
    """The agreement of a judge that has judged the user's choices before; None if it has not.

    comparisons: with their texts. Raises BenchError if a file is damaged.
    """
    file = folder_of(judge) / JUDGEMENTS
    if not file.exists():
        return None
    found = agreement_of(judge, decided_pairs(comparisons), latest(file, Judgement).values())
    return found if found.pairs else None


def forget(numbers: Collection[int]) -> None:
    """Remove the judgements on these choices, because they quote prompts and answers.

    Raises BenchError if a judge is at work, or a file is damaged, OSError.
    """
    for file in sorted(_all_judges().glob(f"*/*/{JUDGE_FILE}")):
        with opened(file.parent, JudgeFolder) as folder:
            kept = [
                verdict
                for verdict in folder.judgements.values()
                if int(verdict.item.partition("-")[0]) not in numbers
            ]
            if len(kept) == len(folder.judgements):
                continue
            keys = {verdict.key for verdict in kept}
            folder.lines.replace(map(to_line, kept))
            folder.journal.close()
            calls = file.parent / CALLS
            lines = read_lines(calls, lambda line: line)
            Lines(calls).replace(line for line in lines if json.loads(line).get("key") in keys)
        if not kept:
            for path in file.parent.iterdir():
                paths.wipe(path)
            shutil.rmtree(file.parent, ignore_errors=True)

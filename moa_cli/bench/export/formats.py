"""Exports a run in the formats of other evaluators, or as our own JSON lines. To add a format,
write a function and its entry in `FORMATS`.

Formats: AlpacaEval's `model_outputs.json`; FastChat's answers and single-answer judgments
(`llm_judge/common.py`); FLASK's answers and reviews (`gpt_review/gpt4_eval.py`); Arena-Hard's
answers and judgments (`gen_answer.py`, `gen_judgment.py`); a folder of prompts, predictions of a
mixture and of a base model, and which of them won. Exporting the same run again gives the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moa_cli.bench.data.epochs import own_id
from moa_cli.bench.data.items import Item
from moa_cli.bench.judge.kinds import JudgedArm, JudgeQuestion
from moa_cli.bench.judge.registry import kind_of
from moa_cli.bench.run.arms import MIXTURE, SINGLE
from moa_cli.bench.run.folder import JudgeReader, RunReader
from moa_cli.bench.run.journal import Judgement, Result
from moa_cli.bench.scoring import arena, flask, mt_bench
from moa_cli.bench.scoring.reasoning import verdict_text
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import meant


@dataclass(frozen=True)
class Exported:
    """The files to write. files: their bytes by name. folder: whether they need a folder of their
    own. asked: how many answers, judgements or the like there should be. missing: how many of these
    are missing.
    """

    files: Mapping[str, bytes]
    asked: int
    missing: int
    folder: bool = False


@dataclass(frozen=True)
class ExportChoice:
    """What to export, as the user typed it. None means that an option was not given.

    arm: see `named_arm`. base: the arm to compare with. judge: the judge's model. name: the name of
    the arm in the export. epoch: only the answers of this epoch are exported; None is all epochs.
    """

    run: RunReader
    judge: str | None = None
    arm: str | None = None
    base: str | None = None
    name: str | None = None
    epoch: int | None = None

    @cached_property
    def items(self) -> list[Item]:
        """The items of the chosen epoch, or of all, in the dataset's order."""
        wanted = self.epoch
        return [item for item in self.run.items if wanted in (None, item.epoch)]

    @cached_property
    def chosen(self) -> str:
        """The arm whose answers are exported."""
        return self.named_arm(self.arm)

    @property
    def called(self) -> str:
        """The name of the chosen arm in the export."""
        return self.name or self.name_of(self.chosen)

    def named_arm(self, typed: str | None) -> str:
        """The arm that the user means: the typed one, else the mixture, else the only one. Raises
        UsageError if there is no such arm, or there are several.
        """
        arms = self.run.settings.arms
        hint = f"there are {', '.join(arms)}"
        if not typed:
            if typed is None and (MIXTURE in arms or len(arms) == 1):
                return MIXTURE if MIXTURE in arms else arms[0]
            raise UsageError("--arm is needed: the run has several arms", hint=hint)
        if typed in arms:
            return typed
        raise UsageError(f"--arm: there is no arm `{typed}`", hint=meant(typed, arms))

    def name_of(self, arm: str) -> str:
        """The name of an arm for other programs: that of the profile or the model."""
        if arm.startswith(SINGLE):
            return arm.removeprefix(SINGLE)
        profile = str(self.run.settings.profile["name"])
        return profile if arm == MIXTURE else f"{profile}-{arm}"

    def answers(self, arm: str | None = None) -> list[tuple[Item, Result]]:
        """The answers of that arm, or of the chosen one, in the dataset's order."""
        found = self.run.answers.get(arm or self.chosen, {})
        return [(item, found[item.id]) for item in self.items if item.id in found]

    def verdicts(self) -> JudgeReader:
        """The judgements of the typed judge, else those of the only one. Raises UsageError if there
        is no such judge, or there are several, BenchError if no judge has judged the run.
        """
        path, judges = self.run.path, self.run.judges
        if not judges:
            raise BenchError(f"{path}: was not judged", hint=f"see `moa bench judge {path}`")
        hint = f"there are {', '.join(judges)}"
        if self.judge is None and len(judges) > 1:
            raise UsageError("--judge is needed: the run has several judges", hint=hint)
        name = next(iter(judges)) if self.judge is None else self.judge
        if name not in judges:
            raise UsageError(f"--judge: there are no judgements by {name}", hint=hint)
        return judges[name]


@dataclass(frozen=True)
class ExportFormat:
    """A format of `moa bench export`.

    write: makes the files for a choice. judged: whether the format includes a judge's verdicts.
    compares: whether it includes a second arm. epochs: whether it can include several answers to an
    item.
    """

    write: Callable[[ExportChoice], Exported]
    judged: bool = False
    compares: bool = False
    epochs: bool = False


def _check_one_turn(run: RunReader, name: str) -> None:
    """Raise UsageError for the format `name` if an item of the run has more than one message."""
    if any(len(item.turns) > 1 or item.before for item in run.items):
        raise UsageError(
            f"--to {name} holds one prompt for each item, but the run has conversations",
            hint="--to jsonl holds them",
        )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "export"


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_json_bytes(json.dumps(row)) for row in rows)


def _json_bytes(made: str) -> bytes:
    """The output of `json.dumps` with a line end."""
    # The other programs read files in the locale's encoding, and ASCII is valid in all of them. DEL
    # is escaped because terminals act on it.
    return made.replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def _predictions(choice: ExportChoice) -> Exported:
    """`prompts.jsonl`, `moa_preds.jsonl`, `base_preds.jsonl` and `results.json`."""
    run, arm = choice.run, choice.chosen
    _check_one_turn(run, "moa")
    base = _base(choice, arm)
    told = choice.verdicts() if choice.judge or run.judges else None
    prompts = [{"id": own_id(item), "prompt": item.turns[0]} for item in choice.items]
    sides = (("moa", arm, choice.called), ("base", base, choice.name_of(base)))
    predictions = {
        side: [
            {"id": own_id(item), "model": name, "prediction": result.replies[0]}
            for item, result in choice.answers(side)
        ]
        for _, side, name in sides
    }
    results = {
        "dataset": run.settings.dataset.name,
        "prompts": len(prompts),
        **{
            role: {"arm": side, "model": name, "predictions": len(predictions[side])}
            for role, side, name in sides
        },
        **_wins(choice, arm, base, told),
    }
    files = {
        "prompts.jsonl": _json_lines(prompts),
        "moa_preds.jsonl": _json_lines(predictions[arm]),
        "base_preds.jsonl": _json_lines(predictions[base]),
        "results.json": _json_bytes(json.dumps(results, indent=2)),
    }
    asked = 2 * len(prompts)
    missing = asked - sum(map(len, predictions.values()))
    return Exported(files, asked, missing, folder=True)


def _base(choice: ExportChoice, arm: str) -> str:
    """The arm to compare with: the one typed, else the aggregator alone, else the first model
    alone, else any other."""
    if choice.base is not None:
        return choice.named_arm(choice.base)
    settings = choice.run.settings
    others = [other for other in settings.arms if other != arm]
    if not others:
        raise UsageError(
            "there is no other arm to compare with",
            hint="run with --arms mixture,single, or export another format",
        )
    aggregator = f"{SINGLE}{settings.aggregator.get('model')}"
    alone = [other for other in others if other.startswith(SINGLE)]
    return aggregator if aggregator in others else (alone or others)[0]


def _wins(choice: ExportChoice, arm: str, base: str, told: JudgeReader | None) -> dict[str, Any]:
    """How often each of the two arms won, over the items whose verdicts decide it.

    If the judge compared `arm` with `base`, its preference decides, else the higher score.
    """
    if told is None:
        return {"judge": None}
    scores: dict[tuple[str, str], list[Judgement]] = {}
    for verdict in told.by_name.values():
        scores.setdefault((verdict.arm, verdict.item), []).append(verdict)
    direct = told.settings.against == base
    margins = []
    for item in choice.items:
        mine = _score(scores.get((arm, item.id), ()))
        theirs = kind_of(told).even if direct else _score(scores.get((base, item.id), ()))
        if mine is not None and theirs is not None:
            margins.append(mine - theirs)
    return {
        "judge": told.settings.model,
        "judged_by": "comparison" if direct else "scores",
        "judged": len(margins),
        "moa_wins": sum(margin > 0 for margin in margins),
        "base_wins": sum(margin < 0 for margin in margins),
        "ties": sum(margin == 0 for margin in margins),
    }


def _score(verdicts: Iterable[Judgement]) -> float | None:
    """The mean of the verdicts over turns or skills; None without verdicts, or if one has no
    value."""
    values: list[float] = []
    for verdict in verdicts:
        if verdict.value is None and not verdict.skills:
            return None
        values += verdict.skills.values() if verdict.value is None else [verdict.value]
    if len(values) < 2:
        return values[0] if values else None
    # Rounded, because two games that contradict each other must give exactly a draw.
    return round(sum(values) / len(values), 9)


def _alpaca(choice: ExportChoice) -> Exported:
    run, called = choice.run, choice.called
    _check_one_turn(run, "alpaca")
    rows = [
        {
            "instruction": item.turns[0],
            "dataset": item.category or run.settings.dataset.name,
            "output": result.replies[0],
            "generator": called,
        }
        for item, result in choice.answers()
    ]
    files = {"model_outputs.json": _json_bytes(json.dumps(rows, indent=2))}
    return Exported(files, len(choice.items), len(choice.items) - len(rows))


def _mt(choice: ExportChoice) -> Exported:
    def row(item: Item, result: Result) -> dict[str, Any]:
        identity, ended = _identity(choice, item, result)
        return {
            "question_id": item.fields["question_id"],
            "answer_id": identity,
            "model_id": choice.called,
            "choices": [{"index": 0, "turns": list(result.replies)}],
            "tstamp": ended,
        }

    return _answers(choice, "mt", row)


def _identity(choice: ExportChoice, item: Item, result: Result) -> tuple[str, float]:
    """An id for an answer, which is a hash of its text with the length of FastChat's ids, and when
    its last call ended (0 if unknown)."""
    said = json.dumps((choice.called, item.id, *result.replies)).encode()
    reply = result.turns[-1].reply if result.turns else None
    record = choice.run.calls.find(reply.key) if reply else None
    return hashlib.sha256(said).hexdigest()[:22], record.when if record else 0.0


def _flask(choice: ExportChoice) -> Exported:
    return _answers(
        choice,
        "flask",
        lambda item, result: {"question_id": item.fields["idx"], "text": result.replies[0]},
    )


def _answers(
    choice: ExportChoice, dataset: str, row: Callable[[Item, Result], dict[str, Any]]
) -> Exported:
    name = _called_of(choice, dataset)
    return _rows(choice, name, [row(item, result) for item, result in choice.answers()])


def _called_of(choice: ExportChoice, dataset: str) -> str:
    """The name of the chosen arm's file, without a suffix. Raises UsageError if the run is of
    another dataset."""
    name, run = _slug(choice.called), choice.run
    if run.dataset is None or run.dataset.name != dataset:
        raise UsageError(
            f"{run.path}: is not a run of `moa bench run {dataset}`",
            hint="--to jsonl holds any run",
        )
    return name


def _rows(
    choice: ExportChoice, name: str, rows: Sequence[Mapping[str, Any]], turns: int | None = None
) -> Exported:
    """An export of one file. It should have a row for each item or, if given, `turns` rows."""
    asked = len(choice.items) if turns is None else turns
    return Exported({f"{name}.jsonl": _json_lines(rows)}, asked, asked - len(rows))


def _mt_judgments(choice: ExportChoice) -> Exported:
    _called_of(choice, "mt")
    told = choice.verdicts()
    model = told.settings.model
    prompts = kind_of(told).prompts(choice.run, {})
    rows = []
    for item, result in choice.answers():
        for turn in range(prompts.turns(item)):
            question = JudgeQuestion(choice.chosen, item, turn, result.replies)
            verdict = told.by_name.get(question.name)
            if verdict is None:
                continue
            record = told.calls.find(verdict.key)
            prompt = mt_bench.prompt_name(item.category or "", turn + 1)
            rows.append(
                {
                    "question_id": item.fields["question_id"],
                    "model": choice.called,
                    "judge": [model, prompt],
                    "user_prompt": prompts.call(question, "text").messages[-1].content,
                    "judgment": verdict.text,
                    "score": -1 if verdict.value is None else _short(verdict.value),
                    "turn": turn + 1,
                    "tstamp": record.when if record else 0.0,
                }
            )
    return _rows(choice, f"{_slug(model)}_single", rows, sum(map(prompts.turns, choice.items)))


def _arena_answers(choice: ExportChoice) -> Exported:
    def row(item: Item, result: Result) -> dict[str, Any]:
        identity, ended = _identity(choice, item, result)
        style = arena.style_of(result.replies[0])
        return {
            "uid": own_id(item),
            "ans_id": identity,
            "model": choice.called,
            "messages": [
                {"role": "user", "content": item.turns[0]},
                {"role": "assistant", "content": {"answer": result.replies[0]}},
            ],
            "tstamp": ended,
            # The values for style control. Arena-Hard counts tokens; here they are estimated.
            "metadata": {
                "token_len": style.tokens,
                "header_count": style.headers,
                "list_count": style.lists,
                "bold_count": style.bold,
            },
        }

    return _answers(choice, "arena_hard", row)


def _arena_judgments(choice: ExportChoice) -> Exported:
    name = _called_of(choice, "arena_hard")
    told = choice.verdicts()
    settings = told.settings
    compared = JudgedArm(choice.run, told, choice.chosen, ()).reference
    texts = {item: result.replies[0] for item, result in compared.items()}
    prompts = kind_of(told).prompts(choice.run, texts)
    source = settings.reference
    baseline = source.name if source else choice.name_of(settings.against or "")
    rows = []
    for item, result in choice.answers():
        games = []
        for number in range(arena.GAMES):
            question = JudgeQuestion(choice.chosen, item, number, result.replies)
            verdict = told.by_name.get(question.name)
            if verdict is None or item.id not in texts:
                continue
            messages = prompts.call(question, "text").messages
            games.append(
                {
                    "score": arena.verdict_label(verdict_text(verdict.text)),
                    "judgment": {"answer": verdict.text},
                    "prompt": [
                        {"role": message.role, "content": message.content} for message in messages
                    ],
                }
            )
        if len(games) == arena.GAMES:
            rows.append(
                {
                    "uid": own_id(item),
                    "category": item.fields.get("category"),
                    "judge": settings.model,
                    "model": choice.called,
                    "baseline": baseline,
                    "games": games,
                }
            )
    return _rows(choice, name, rows)


def _flask_reviews(choice: ExportChoice) -> Exported:
    name = _called_of(choice, "flask")
    told = choice.verdicts()
    rows = []
    for item, result in choice.answers():
        verdict = told.by_name.get((choice.chosen, item.id, 0))
        if verdict is None:
            continue
        record = told.calls.find(verdict.key)
        scores = flask.parse_review(verdict_text(verdict.text))
        rows.append(
            {
                **item.fields,
                "target_txt": result.replies[0],
                "review": verdict.text,
                "score": {
                    skill: "N/A" if score is None else _short(score)
                    for skill, score in scores.items()
                },
                "total_tokens_step4": record.usage.total_tokens if record else 0,
            }
        )
    return _rows(choice, f"{name}_review", rows)


def _jsonl(choice: ExportChoice) -> Exported:
    run = choice.run
    arms = run.settings.arms if choice.arm is None else (choice.chosen,)
    answers = [(arm, item, result) for arm in arms for item, result in choice.answers(arm)]
    rows = [
        {
            "id": own_id(item),
            **({"epoch": item.epoch} if run.settings.epochs > 1 else {}),
            "arm": arm,
            "turn": turn,
            "prompt": prompt,
            "reply": reply,
        }
        for arm, item, result in answers
        for turn, (prompt, reply) in enumerate(zip(item.turns, result.replies, strict=False), 1)
    ]
    asked = len(arms) * len(choice.items)
    files = {f"{_slug(run.settings.dataset.name)}-replies.jsonl": _json_lines(rows)}
    return Exported(files, asked, asked - len(answers))


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number


FORMATS: Mapping[str, ExportFormat] = {
    "alpaca": ExportFormat(_alpaca),
    "mt": ExportFormat(_mt),
    "mt-judgments": ExportFormat(_mt_judgments, judged=True),
    "flask": ExportFormat(_flask),
    "flask-reviews": ExportFormat(_flask_reviews, judged=True),
    "arena": ExportFormat(_arena_answers),
    "arena-judgments": ExportFormat(_arena_judgments, judged=True),
    "moa": ExportFormat(_predictions, judged=True, compares=True),
    "jsonl": ExportFormat(_jsonl, epochs=True),
}

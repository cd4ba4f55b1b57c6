"""The datasets that are known by name. Everything that depends on a dataset is in its entry in
`DATASETS`: where its files come from, how they are read, which kind of judge it has, and what makes
a reply right.

To add a dataset, write a function that reads its file, and an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moa_cli.bench.data.items import DataRow, Item, rows_of_json, rows_of_lines
from moa_cli.bench.scoring.answers import Grader, grade_gsm8k, grade_math
from moa_cli.core import paths
from moa_cli.core.errors import BenchError

# This is added to a question that has a right answer, so that replies end in an answer that can be
# parsed.
ASKING_FOR_ANSWER = "End with a line that says `The answer is …`, with the final answer alone."

_GITHUB = "https://raw.githubusercontent.com"
_ALPACA_CODE = f"{_GITHUB}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_ALPACA_DATA = (
    "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/"
    "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
)
_FASTCHAT = (
    f"{_GITHUB}/lm-sys/FastChat/587d5cfa1609a43d192cedb8441cac3c17db105d/fastchat/llm_judge/data"
)
_ARENA_HARD = (
    f"{_GITHUB}/lmarena/arena-hard-auto/196f6b826783b3da7310e361a805fa36f0be83f3"
    "/data/arena-hard-v0.1"
)
# The copy that the MoA paper's authors used. FLASK's own repository has no licence.
_FLASK = f"{_GITHUB}/togethercomputer/MoA/1b5cab0f0905d9da821e37322ac6df96ba65e1a7/FLASK"
_GSM8K = f"{_GITHUB}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"


@dataclass(frozen=True)
class PublicFile:
    """A file of the dataset's publisher, at one commit. file: its path below the data folder.

    sha256: the hash of its bytes; None if the publisher gives none. Then the file must have
    `lines` lines.
    """

    file: str
    address: str
    sha256: str | None = None
    lines: int | None = None


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A dataset that is known by name.

    measures: what it measures, in one line. licence: the licence of its data. files: paths below
    the data folder; the first file that exists is used. read: reads the items in such a file.
    fetched: the files that `moa bench fetch` gets. why_unfetched: why there are none. judge: the
    kind of judge (a key of `judge.registry.KINDS`); None if the right answers are known, so that
    `grade` decides. answer_format: this is added to a question, so that replies end in an answer
    that can be parsed. parity: what the settings in the MoA authors' scripts apply to, if they
    cover the dataset: the final call, or all calls by the item's category.
    """

    name: str
    measures: str
    licence: str
    files: tuple[str, ...]
    read: Callable[[Path], Iterator[Item]]
    fetched: tuple[PublicFile, ...] = ()
    why_unfetched: str = ""
    judge: str | None = None
    grade: Grader | None = None
    answer_format: str | None = None
    parity: Literal["final", "category"] | None = None

    def file(self, folder: Path) -> Path | None:
        return next((folder / name for name in self.files if paths.is_file(folder / name)), None)


def _items(
    rows: Callable[[Path], Iterator[DataRow]],
    prompt: Sequence[str],
    identity: Callable[[DataRow], str],
    category: Sequence[str],
    answer: Callable[[DataRow], str | None] = lambda row: None,
) -> Callable[[Path], Iterator[Item]]:
    """A reader of files in which each row is an item of one turn.

    prompt, category: the names of the fields; the first one that the row has is used. identity,
    answer: give the id and the right answer of a row.
    """

    def read(path: Path) -> Iterator[Item]:
        for row in rows(path):
            yield Item(
                id=identity(row),
                turns=(row.text(*prompt),),
                category=next(filter(None, map(row.optional, category)), None),
                answer=answer(row),
                fields=row.fields,
            )

    return read


def _mt(path: Path) -> Iterator[Item]:
    for row in rows_of_lines(path):
        turns = row.fields.get("turns")
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise BenchError(f"{row.place}: `turns` is not a list of texts")
        yield Item(
            id=_id(row, "question_id"),
            turns=tuple(turns),
            category=row.text("category"),
            fields=row.fields,
        )


def _place(name: str) -> Callable[[DataRow], str]:
    """A function that gives the id of a row: that in the field, else the row's place in the
    publisher's order, which the publisher's own files use."""
    return lambda row: row.optional(name) or str(row.number - 1)


def _final(row: DataRow) -> str:
    worked, mark, final = row.text("answer").rpartition("####")
    return final.strip() if mark else worked


def _id(row: DataRow, name: str) -> str:
    found = row.optional(name)
    if found is None:
        raise BenchError(f"{row.place}: `{name}` is missing")
    return found


_ALL = (
    KnownDataset(
        name="alpaca",
        measures="AlpacaEval 2: open instructions, pairwise against a reference's answers",
        licence="CC BY-NC 4.0, not for commercial use",
        files=("alpaca_eval/instructions.json", "alpaca_eval/model_outputs.json"),
        read=_items(rows_of_json, ["instruction"], _place("index"), ["dataset"]),
        judge="pairwise",
        parity="final",
        fetched=(
            PublicFile(
                "alpaca_eval/model_outputs.json",
                f"{_ALPACA_DATA}/alpaca_eval_gpt4_baseline.json",
                "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
            ),
            PublicFile(
                "alpaca_eval/instruction_difficulty.csv",
                f"{_ALPACA_DATA}/instruction_difficulty.csv",
                "e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
            ),
            PublicFile(
                "alpaca_eval/df_gamed.csv",
                f"{_ALPACA_DATA}/df_gamed.csv",
                "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
            ),
            PublicFile(
                "alpaca_eval/judge_prompt_alpaca_eval_clf.txt",
                f"{_ALPACA_CODE}/src/alpaca_eval/evaluators_configs/alpaca_eval_clf_gpt4_turbo/"
                "alpaca_eval_clf.txt",
                "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
            ),
        ),
    ),
    KnownDataset(
        name="mt",
        measures="MT-Bench: conversations of two turns in 8 categories, rated from 1 to 10",
        licence="Apache-2.0",
        files=("mt_bench/question.jsonl",),
        read=_mt,
        judge="rating",
        parity="category",
        fetched=(
            PublicFile(
                "mt_bench/question.jsonl",
                f"{_FASTCHAT}/mt_bench/question.jsonl",
                "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
            ),
            PublicFile(
                "mt_bench/judge_prompts.jsonl",
                f"{_FASTCHAT}/judge_prompts.jsonl",
                "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
            ),
            PublicFile(
                "mt_bench/reference_answer_gpt-4.jsonl",
                f"{_FASTCHAT}/mt_bench/reference_answer/gpt-4.jsonl",
                "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
            ),
        ),
    ),
    KnownDataset(
        name="flask",
        measures="FLASK: 12 skills, rated from 1 to 5",
        licence="none told by upstream",
        files=("flask/flask_evaluation.jsonl", "flask/slice60.jsonl"),
        read=_items(
            rows_of_lines,
            ["instruction", "text"],
            lambda row: _id(row, "idx"),
            ["task"],
            lambda row: row.optional("answer"),
        ),
        judge="skills",
        parity="final",
        fetched=(
            PublicFile(
                "flask/flask_evaluation.jsonl",
                f"{_FLASK}/evaluation_set/flask_evaluation.jsonl",
                lines=1740,
            ),
            PublicFile(
                "flask/skillset_description.json",
                f"{_FLASK}/metadata_annotation/skillset/src/skillset_description.json",
                "78f03c29f5a6510b76b8a765cb539c302d69898b7e4d7c68372c9cc2427e595e",
            ),
            PublicFile(
                "flask/prompt.jsonl",
                f"{_FLASK}/gpt_review/src/prompt.jsonl",
                "64836bb1eb6940e7ddbbbf0ea66265191bfd49476036ca15fc2660bbfa326134",
            ),
            PublicFile(
                "flask/reviewer.jsonl",
                f"{_FLASK}/gpt_review/src/reviewer.jsonl",
                "af5b23bfb63125763ad39415cad7bd021473df57a32a11041d3f988e8335104e",
            ),
        ),
    ),
    KnownDataset(
        name="arena_hard",
        measures="Arena-Hard v0.1: hard prompts of users, in both orders against a baseline",
        licence="Apache-2.0",
        files=("arena_hard/question.jsonl",),
        # The published `category` is the same for all items.
        read=_items(rows_of_lines, ["prompt"], lambda row: _id(row, "uid"), ["cluster"]),
        judge="arena",
        fetched=(
            PublicFile(
                "arena_hard/question.jsonl",
                f"{_ARENA_HARD}/question.jsonl",
                "2650242d2883f22b2abd498f273b6a7e02253cce533f5c91a858e1d44aa3002f",
            ),
            PublicFile(
                "arena_hard/gpt-4-0314.jsonl",
                f"{_ARENA_HARD}/model_answer/gpt-4-0314.jsonl",
                "0f6abc84de4600fde987d9db70f838f4ecdbd27a2f1f4058c12aa322a6f791b2",
            ),
        ),
    ),
    KnownDataset(
        name="gsm8k",
        measures="GSM8K: grade-school arithmetic with known answers",
        licence="MIT",
        files=("gsm8k/test.jsonl", "gsm8k/slice50.jsonl"),
        read=_items(rows_of_lines, ["question"], _place("index"), [], _final),
        grade=lambda reply, answer, fields: grade_gsm8k(reply, fields["answer"]),
        answer_format="End with a line that says `The answer is N`, where N is the number alone.",
        fetched=(
            PublicFile(
                "gsm8k/test.jsonl",
                f"{_GSM8K}/grade_school_math/data/test.jsonl",
                "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
            ),
        ),
    ),
    KnownDataset(
        name="math",
        measures="MATH: competition problems with known answers",
        licence="MIT, but disputed",
        files=("math/test.jsonl", "math/math500.jsonl", "math/math500_even.jsonl"),
        # There are the authors' file and copies of 500 of its problems. The copies name fields
        # differently, and some have the final answer beside the solution.
        read=_items(
            rows_of_lines,
            ["problem", "question"],
            _place("unique_id"),
            ["type", "subject"],
            lambda row: row.text("solution", "answer"),
        ),
        grade=lambda reply, answer, fields: grade_math(reply, answer),
        answer_format="Put your final answer within \\boxed{}.",
        why_unfetched="its redistribution is disputed",
    ),
)
DATASETS: Mapping[str, KnownDataset] = {dataset.name: dataset for dataset in _ALL}

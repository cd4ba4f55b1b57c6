"""Where the public datasets come from: their upstreams' own files, each at one commit."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["SOURCES", "Source", "address_of"]

_MIRROR = "MOA_BENCH_MIRROR"
_GITHUB = "https://raw.githubusercontent.com"
_ALPACA_CODE = f"{_GITHUB}/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_ALPACA_DATA = (
    "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/"
    "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
)
_FASTCHAT = (
    f"{_GITHUB}/lm-sys/FastChat/587d5cfa1609a43d192cedb8441cac3c17db105d/fastchat/llm_judge/data"
)
# The copy that the paper's authors evaluated with; upstream's own has no licence.
_FLASK = f"{_GITHUB}/togethercomputer/MoA/1b5cab0f0905d9da821e37322ac6df96ba65e1a7/FLASK"
_GSM8K = f"{_GITHUB}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"


@dataclass(frozen=True)
class Source:
    """A public file. file: its place below the data folder.

    sha256: of its bytes; None where upstream's was never published, then it has so many `lines`.
    """

    file: str
    address: str
    sha256: str | None = None
    lines: int | None = None


SOURCES = {
    "alpaca": (
        Source(
            "alpaca_eval/model_outputs.json",
            f"{_ALPACA_DATA}/alpaca_eval_gpt4_baseline.json",
            "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
        ),
        Source(
            "alpaca_eval/instruction_difficulty.csv",
            f"{_ALPACA_DATA}/instruction_difficulty.csv",
            "e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
        ),
        Source(
            "alpaca_eval/df_gamed.csv",
            f"{_ALPACA_DATA}/df_gamed.csv",
            "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
        ),
        Source(
            "alpaca_eval/judge_prompt_alpaca_eval_clf.txt",
            f"{_ALPACA_CODE}/src/alpaca_eval/evaluators_configs/alpaca_eval_clf_gpt4_turbo/"
            "alpaca_eval_clf.txt",
            "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
        ),
    ),
    "mt": (
        Source(
            "mt_bench/question.jsonl",
            f"{_FASTCHAT}/mt_bench/question.jsonl",
            "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        ),
        Source(
            "mt_bench/judge_prompts.jsonl",
            f"{_FASTCHAT}/judge_prompts.jsonl",
            "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
        ),
        Source(
            "mt_bench/reference_answer_gpt-4.jsonl",
            f"{_FASTCHAT}/mt_bench/reference_answer/gpt-4.jsonl",
            "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        ),
    ),
    "flask": (
        Source(
            "flask/flask_evaluation.jsonl",
            f"{_FLASK}/evaluation_set/flask_evaluation.jsonl",
            lines=1740,
        ),
        Source(
            "flask/skillset_description.json",
            f"{_FLASK}/metadata_annotation/skillset/src/skillset_description.json",
            "78f03c29f5a6510b76b8a765cb539c302d69898b7e4d7c68372c9cc2427e595e",
        ),
        Source(
            "flask/prompt.jsonl",
            f"{_FLASK}/gpt_review/src/prompt.jsonl",
            "64836bb1eb6940e7ddbbbf0ea66265191bfd49476036ca15fc2660bbfa326134",
        ),
        Source(
            "flask/reviewer.jsonl",
            f"{_FLASK}/gpt_review/src/reviewer.jsonl",
            "af5b23bfb63125763ad39415cad7bd021473df57a32a11041d3f988e8335104e",
        ),
    ),
    "gsm8k": (
        Source(
            "gsm8k/test.jsonl",
            f"{_GSM8K}/grade_school_math/data/test.jsonl",
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        ),
    ),
}


def address_of(source: Source) -> str:
    """Where to fetch it: upstream, or below MOA_BENCH_MIRROR, which has upstream's addresses
    without `https://` as paths."""
    mirror = os.environ.get(_MIRROR)
    if not mirror:
        return source.address
    return f"{mirror.rstrip('/')}/{source.address.removeprefix('https://')}"

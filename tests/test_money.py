"""Prices, amounts in words, and guesses at token counts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from moa_cli.conversation import Message, Usage
from moa_cli.money import FREE, Price, cost_text, priced, usd
from moa_cli.tokens import estimate_tokens, prompt_tokens

COUNTED = Usage(prompt_tokens=1000, completion_tokens=500, cached_tokens=400, calls=1)


def test_a_price_is_per_million_and_cached_tokens_may_have_their_own() -> None:
    assert Price(2, 10).of(COUNTED) == pytest.approx(0.007)
    assert Price(2, 10, cached=0.5).of(COUNTED) == pytest.approx(0.0064)
    assert FREE.of(COUNTED) == 0


def test_a_call_without_a_price_is_unpriced_and_not_free() -> None:
    unknown, known = priced(COUNTED, None), priced(COUNTED, Price(2, 10))
    assert (unknown.cost, unknown.unpriced_calls) == (0, 1)
    assert known.cost == pytest.approx(0.007)
    assert known.unpriced_calls == 0
    assert cost_text(unknown) == "cost unknown"
    assert cost_text(known) == "$0.0070"
    assert cost_text(known + unknown) == "$0.0070 + ?"
    assert cost_text(priced(COUNTED, FREE)) == "$0"
    assert cost_text(Usage(calls=1, estimated_calls=1, cost=0.25)) == "~$0.25"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (0.000_004_2, "$0.0000042"),
        (0.000_42, "$0.00042"),
        (0.0999, "$0.100"),
        (0.314, "$0.31"),
        (1, "$1.00"),
        (12.499, "$12.50"),
        (12345.6, "$12,345.60"),
    ],
)
def test_amounts_in_words(amount: float, text: str) -> None:
    assert usd(amount) == text


def test_only_an_empty_text_is_no_token() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(" ") == 1
    assert estimate_tokens("水は冷たい") in range(3, 8)
    assert prompt_tokens([Message("user", "hi")]) > estimate_tokens("hi")


def test_estimates_are_near_the_counts_of_a_real_tokenizer() -> None:
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    data = Path(folder) / "alpaca_eval"
    template = (data / "judge_prompt_alpaca_eval_clf.txt").read_text("utf-8")
    ratios = []
    for file in ("gpt-3.5-turbo-1106", "claude-2", "vicuna-13b-v1.5"):
        for row in json.loads((data / f"slice50/annotations/{file}.json").read_text("utf-8")):
            counted = (row.get("raw_completion") or {}).get("total_tokens")
            if not counted:
                continue
            text = template
            for name in ("instruction", "output_1", "output_2"):
                text = text.replace(f"{{{name}}}", row[name])
            # The system message, the user's; one token of the count was the answer.
            _, system, _, user, _ = re.split(r"<\|im_(?:start|end)\|>", text)
            parts = (Message("system", system), Message("user", user))
            ratios.append(prompt_tokens(parts) / (counted - 1))
    assert len(ratios) > 100
    assert all(0.85 < ratio < 1.15 for ratio in ratios)

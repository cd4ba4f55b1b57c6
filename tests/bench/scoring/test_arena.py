"""Arena-Hard's verdicts and scores, held to upstream's numbers."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.arena import (
    AnswerStyle,
    Battle,
    StyledBattle,
    parse_verdict,
    score,
    style_controlled,
    style_of,
)
from tests.support.bench.tables import csv_rows

STRENGTHS = (2, 1, 0, -1, -2)
BATTLES = st.lists(
    st.builds(Battle, item=st.sampled_from("abcdefgh"), strength=st.sampled_from(STRENGTHS)),
    min_size=1,
    max_size=40,
)


def constructed() -> tuple[StyledBattle, ...]:
    """Verdicts of two models on 300 prompts in which the longer answer wins more often."""
    draw = random.Random(17)
    found = []
    for model, odds in (("better", (10, 30, 20, 25, 15)), ("worse", (5, 20, 15, 35, 25))):
        for item in range(300):
            baseline, answer = (
                AnswerStyle(
                    draw.randint(50, 900),
                    draw.randint(0, 4),
                    draw.randint(0, 20),
                    draw.randint(0, 9),
                )
                for _ in range(2)
            )
            for _ in range(2):
                strength = draw.choices(STRENGTHS, odds)[0]
                if draw.random() < 0.3:
                    strength = 2 if answer.tokens > baseline.tokens else -2
                found.append(StyledBattle(model, Battle(str(item), strength), baseline, answer))
    return tuple(found)


@pytest.mark.parametrize(
    ("text", "said_of_a"),
    [
        ("My final verdict is tie: [[A=B]].", 0),
        ("[[A>>B]]", 2),
        ("Assistant B is slightly better: [[B>A]]", -1),
        ("not [[A>B]], rather [[B>>A]]", -2),
        ("in lower case [[b>>a]]", -2),
        ("single brackets [A>B]", 1),
        ("double ones [[A>B]] come before single ones [B>A]", 1),
        ("turned round: [[B<A]]", 1),
        ("[[A>>>B]]", None),
        ("[[A]]", None),
        ("no verdict", None),
        ("", None),
    ],
)
def test_the_last_label_is_the_verdict(text: str, said_of_a: int | None) -> None:
    # In the second game the model is A.
    assert parse_verdict(text, switched=True) == said_of_a
    turned = None if said_of_a is None else -said_of_a
    assert parse_verdict(text, switched=False) == turned


def test_scores_are_those_of_upstreams_fit() -> None:
    # By `compute_mle_elo` and `fit_bt` of upstream's `utils_math.py` at 0489bf3, over the same
    # battles.
    styled = constructed()
    upstream = {"better": (51.111111, 51.465709), "worse": (38.828904, 37.321930)}
    controlled = style_controlled(styled)
    for model, (plain, equal_style) in upstream.items():
        own = [row.battle for row in styled if row.model == model]
        assert score(own, seed=model).score.value == pytest.approx(plain, abs=1e-5)
        assert controlled.scores[model].value == pytest.approx(equal_style, abs=5e-3)
    assert controlled.weights == pytest.approx((0.76112, 0.16000, -0.08729, 0.03616), abs=1e-3)


def test_the_published_leaderboard_from_constructed_verdicts(data: Path) -> None:
    """Verdicts on 500 prompts that come to a model's published score have its published interval,
    but for what two bootstraps differ by."""
    ratios = []
    for row in csv_rows(data / "arena_hard/leaderboard_20240731.csv"):
        if row["model"] == "gpt-4-0314":
            # The baseline itself.
            continue
        names = ("score", "rating_q025", "rating_q975")
        published, lower, upper = (float(row[name]) for name in names)
        found = score(verdicts_for(published), seed=row["model"])
        assert found.score.value == pytest.approx(published, abs=0.03), row["model"]
        assert found.interval is not None
        low, high = found.interval
        # The ends of 100 samples differ from one bootstrap to the next.
        assert (low, high) == pytest.approx((lower, upper), abs=1.5), row["model"]
        ratios.append((high - low) / (upper - lower))
    assert len(ratios) == 59
    assert statistics.fmean(ratios) == pytest.approx(1, abs=0.05)


def verdicts_for(percent: float) -> list[Battle]:
    """The verdicts of 1,000 games with that score, a third of them strong as in the leaderboard."""
    strong = 350
    total = 3 * strong + 1000 - strong
    wins = round(total * percent / 100)
    strong_wins = min(strong, round(strong * percent / 100))
    weak_wins = wins - 3 * strong_wins
    counts = {
        2: strong_wins,
        -2: strong - strong_wins,
        1: weak_wins,
        -1: 1000 - strong - weak_wins,
    }
    assert min(counts.values()) >= 0
    strengths = [strength for strength, count in counts.items() for _ in range(count)]
    return [Battle(str(place % 500), strength) for place, strength in enumerate(strengths)]


@given(BATTLES)
def test_a_score_is_a_share_and_turns_with_its_verdicts(battles: list[Battle]) -> None:
    known = score(battles, seed="x")
    turned = score([Battle(battle.item, -battle.strength) for battle in battles], seed="x")
    assert known.score.value is not None
    assert turned.score.value is not None
    assert known.score.value + turned.score.value == pytest.approx(100)
    assert known.interval is not None
    assert 0 <= known.interval[0] <= known.interval[1] <= 100
    assert known.score.n == len(battles)
    assert score(battles, seed="x") == known


def test_without_battles_there_is_no_score() -> None:
    assert score([], seed="x").score.value is None
    assert score([], seed="x").interval is None
    assert style_controlled(()).scores == {}


@given(BATTLES)
def test_at_equal_styles_the_control_changes_little(battles: list[Battle]) -> None:
    same = AnswerStyle(10, 1, 2, 3)
    many = [Battle(f"{battle.item}{n}", battle.strength) for battle in battles for n in range(20)]
    controlled = style_controlled(tuple(StyledBattle("m", row, same, same) for row in many))
    plain = score(many, seed="x").score.value
    # Its penalty pulls to a draw.
    assert set(controlled.weights) == {0}
    assert plain is not None
    assert controlled.scores["m"].value == pytest.approx(plain, abs=5)


def test_markup_is_counted_outside_code() -> None:
    text = "# One\n## Two\n####### no header\n- a\n* b\n 1. c\n**bold** and __too__\n"
    code = "```python\n# no header\n- no list\n```\n"
    style = style_of(text + code)
    assert (style.headers, style.lists, style.bold) == (2, 3, 2)
    assert style.tokens > style_of(text).tokens

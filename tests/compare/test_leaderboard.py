"""What blind choices say, and how sure that is."""

from __future__ import annotations

import pytest

from moa_cli.compare.leaderboard import leaderboard, with_pairs
from moa_cli.core.conversation import Usage
from moa_cli.store.comparisons import Comparison, Contender


def choices(*rows: tuple[str, int | None]) -> list[Comparison]:
    """Choices between the arms of these letters; the place of the chosen one, or None."""
    return [
        Comparison(
            float(number),
            tuple(Contender(arm, "one", "5e77", Usage(calls=1, cost=0.5), 2.0) for arm in arms),
            winner,
        )
        for number, (arms, winner) in enumerate(rows)
    ]


def test_each_pair_is_counted_from_both_sides() -> None:
    made = choices(("abc", 0), ("abc", 1), ("ab", 0), ("ab", None), ("ca", 1))
    rows = {row.arm: row for row in with_pairs(leaderboard(made), made)}
    against = {
        name: {pair.other[0]: (pair.wins, pair.losses, pair.ties) for pair in row.against}
        for name, row in rows.items()
    }
    assert against == {
        "a": {"b": (2, 1, 1), "c": (2, 0, 0)},
        "b": {"a": (1, 2, 1), "c": (1, 0, 0)},
        "c": {"a": (0, 2, 0), "b": (0, 1, 0)},
    }
    assert rows["a"].chance == pytest.approx((1 / 3 + 1 / 3 + 1 / 2 + 1 / 2 + 1 / 2) / 5)
    strengths = {name: row.strength for name, row in rows.items()}
    values = [known.value for known in strengths.values() if known is not None]
    assert values == sorted(values, reverse=True)
    for known in strengths.values():
        assert known is not None
        assert known.interval is not None
        assert 0 < known.interval.low <= known.value <= known.interval.high < 1


def test_arms_that_agree_do_not_lose_by_it() -> None:
    """Of three arms, a and b gave the same answer; then all did."""
    arms = choices(("abc", None))[0].contenders
    pair, all_three = (0, 0, 1), (0, 0, 0)
    rows = (0, pair), (2, pair), (None, pair), (None, all_three)
    made = [Comparison(1.0, arms, winner, shown) for winner, shown in rows]
    found = {row.arm: row for row in with_pairs(leaderboard(made), made)}
    assert {name: row.points for name, row in found.items()} == {
        "a": [1.0, 0.0, 0.5, 0.5],
        "b": [1.0, 0.0, 0.5, 0.5],
        "c": [0.0, 1.0, 0.5, 0.5],
    }
    assert {row.chance for row in found.values()} == {0.5}
    assert [(found[name].wins, found[name].shared, found[name].ties) for name in "abc"] == [
        (1, 1, 2),
        (1, 1, 2),
        (1, 0, 2),
    ]
    against = {pair.other[0]: (pair.wins, pair.losses, pair.ties) for pair in found["a"].against}
    assert against == {"b": (0, 0, 4), "c": (1, 1, 2)}


def test_an_arm_that_was_never_chosen_is_not_surely_worthless() -> None:
    made = choices(*[("ab", 0)] * 10)
    first, second = with_pairs(leaderboard(made), made)
    assert (first.win_rate.value, second.win_rate.value) == (1.0, 0.0)
    assert first.interval is not None
    assert second.interval is not None
    assert second.interval.high == pytest.approx(0.2775, abs=1e-4)
    assert first.interval.low == pytest.approx(1 - 0.2775, abs=1e-4)
    assert first.strength is not None
    assert 0.5 < first.strength.value < 1
    [pair] = first.against
    assert pair.p == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("times", [1, 10])
def test_choices_that_are_all_alike_do_not_tell_how_certain_a_strength_is(times: int) -> None:
    made = choices(*[("ab", 0)] * times)
    for row in with_pairs(leaderboard(made), made):
        told = row.to_dict()["strength"]
        assert 0 < told["value"] < 1
        assert (told["low"], told["high"]) == (None, None)


def test_many_choices_make_a_strength_sure() -> None:
    few = choices(*[("ab", place % 4 == 0) for place in range(8)])
    many = choices(*[("ab", place % 4 == 0) for place in range(400)])

    def width(made: list[Comparison]) -> float:
        row = with_pairs(leaderboard(made), made)[0]
        assert row.strength is not None
        assert row.strength.interval is not None
        return row.strength.interval.high - row.strength.interval.low

    assert width(many) < width(few) / 3

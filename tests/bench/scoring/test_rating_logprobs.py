"""The rating that a judge expects is the mean over the ratings that it could have said."""

from __future__ import annotations

import json
import math

import pytest

from moa_cli.bench.scoring.rating_logprobs import expected_rating, number_tokens

Token = tuple[str, dict[str, float]]


def tokens(*told: Token) -> list[str]:
    """As OpenAI tells them; each token with the probabilities of what could have stood there."""
    return [
        json.dumps(
            {
                "token": token,
                "top_logprobs": [
                    {"token": other, "logprob": math.log(likely)} for other, likely in more.items()
                ],
            }
        )
        for token, more in told
    ]


def expected(*told: Token) -> float | None:
    """Of an answer of these tokens whose last number is the rating."""
    text = "".join(token for token, _ in told)
    end = max(place for place, letter in enumerate(text) if letter.isdigit()) + 1
    begin = end
    while begin and (text[begin - 1].isdigit() or text[begin - 1] == "."):
        begin -= 1
    return expected_rating(text, (begin, end), number_tokens(tokens(*told), text))


SURE: dict[str, float] = {}


def test_the_mean_of_what_could_have_been_said() -> None:
    told = {"8": 0.5, "7": 0.3, "9": 0.1, "a": 0.1}
    mean = (8 * 0.5 + 7 * 0.3 + 9 * 0.1) / 0.9
    found = expected(("In 3 points: ", {"4": 1.0}), ("[[", SURE), ("8", told), ("]]", SURE))
    assert found == pytest.approx(mean)
    # Brackets and spaces may be parts of the token.
    told = {" [[8": 0.5, " [[7": 0.3, " [[9": 0.1, " It": 0.1}
    assert expected(("Rating:", SURE), (" [[8", told), ("]]", SURE)) == pytest.approx(mean)


def test_ten_is_one_token_or_two() -> None:
    whole = expected(("[[", SURE), ("10", {"10": 0.5, "1": 0.1, "9": 0.4}), ("]]", SURE))
    assert whole == pytest.approx(10 * 0.5 + 1 * 0.1 + 9 * 0.4)
    first = ("1", {"1": 0.6, "9": 0.4})
    zero = ("0", {"0": 0.9, "]]": 0.1})
    parts = expected(("[[", SURE), first, zero, ("]]", SURE))
    assert parts == pytest.approx(10 * 0.54 + 1 * 0.06 + 9 * 0.4)
    # A 1 that was not said may have become a 10: it is left out.
    near = expected(("[[", SURE), ("9", {"9": 0.6, "1": 0.3, "8": 0.1}), ("]]", SURE))
    assert near == pytest.approx((9 * 0.6 + 8 * 0.1) / 0.7)
    low = expected(("[[", SURE), ("2", {"2": 0.6, "1": 0.4}), ("]]", SURE))
    assert low == pytest.approx(1.6)


@pytest.mark.parametrize(
    "told",
    [
        (("[[", SURE), ("8", SURE), ("]]", SURE)),
        (("[[", SURE), ("8", {"7": 1.0}), ("]]", SURE)),
        (("[[", SURE), ("8", {"8": 1.0}), (".", SURE), ("5", {"5": 1.0}), ("]]", SURE)),
        (("[[", SURE), ("42", {"42": 1.0}), ("]]", SURE)),
    ],
    ids=["no alternatives", "not among them", "a fraction", "no rating"],
)
def test_what_cannot_be_told(told: tuple[Token, ...]) -> None:
    assert expected(*told) is None


def test_tokens_that_are_none() -> None:
    assert number_tokens(["[]"], "8") == ()
    assert number_tokens(['{"token": "8", "top_logprobs": [1, {"token": 2}]}'], "8") == ((1, ()),)


def test_tokens_behind_the_answer_and_before_it() -> None:
    likely = {"8": 0.5, "9": 0.5}
    said = [("1 or 2</think>", SURE), ("It is [[", SURE), ("8", likely), ("]]", SURE)]
    text = "It is [[8]]"
    found = number_tokens(tokens(*said, ("<|eot_id|>", SURE)), text)
    assert expected_rating(text, (8, 9), found) == pytest.approx(8.5)
    # What cannot be found among the tokens ends where they end.
    assert number_tokens(tokens(*said), "other") == number_tokens(tokens(*said), text)

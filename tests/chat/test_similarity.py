"""A reply's passages are found again in the proposals that hold them, and nothing is claimed of
those that none holds; two texts are told apart word by word without losing a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.chat.similarity import PassageMatch, closest, differences, passages, shares

RAIN = """\
## Why it rains

Rain falls when the drops in a cloud grow too heavy for the air to carry. Warm air takes up
more water than cold air does.

- **Evaporation** lifts water from seas and lakes.
- Condensation makes clouds of it!
"""
SNOW = """\
Snow is made of ice crystals which have grown in a cloud below freezing point. No two of them
are quite alike, they say.

1. Temperature decides on the shape of a crystal.
2. Evaporation lifts water from seas and lakes.
"""
CODE = """\
This adds two numbers:

```python
def add(first: int, second: int) -> int:
    return first + second
```

| input | output of the call |
|-------|-------------------:|
| 1, 2  | three, as expected |
"""
PIECES = st.text(st.sampled_from("ab \n\t.,*`é漢字。👍🏽\u200d\u2028"), max_size=60)


def names(found: list[PassageMatch]) -> list[tuple[int, ...]]:
    return [share.indexes for share in found]


def test_sentences_list_items_headings_and_lines_of_code_are_passages() -> None:
    assert passages(RAIN + CODE) == [
        "Rain falls when the drops in a cloud grow too heavy for the air to carry.",
        "Warm air takes up",
        "more water than cold air does.",
        "- **Evaporation** lifts water from seas and lakes.",
        "- Condensation makes clouds of it!",
        "This adds two numbers:",
        "def add(first: int, second: int) -> int:",
        "return first + second",
        "| input | output of the call |",
        "| 1, 2  | three, as expected |",
    ]


def test_a_sentence_of_code_is_not_cut() -> None:
    assert passages("```\nprint('One. Two. Three. Four.')\n```") == [
        "print('One. Two. Three. Four.')"
    ]


def test_sentences_without_spaces_between_them_are_passages() -> None:
    text = "雨は雲から落ちる水です。雪は凍った水です!川を満たします。はい。"
    assert passages(text) == ["雨は雲から落ちる水です。", "雪は凍った水です!川を満たします。"]


@pytest.mark.parametrize("text", ["", "\n\n", "Yes.", "---\n***\n", "```\n```", "| - | - |"])
def test_what_is_too_short_to_tell_is_no_passage(text: str) -> None:
    assert passages(text) == []
    assert closest(text, [RAIN]) == []
    assert shares([], 3) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("reply", [RAIN, SNOW, CODE])
def test_a_copy_stands_closest_to_what_it_was_copied_from(reply: str) -> None:
    texts = [RAIN, SNOW, CODE]
    found = closest(reply, texts)
    own = texts.index(reply)
    assert all(own in share.indexes and share.percent == 100 for share in found)
    parts = shares(found, 3)
    assert max(parts) == parts[own]
    assert sum(parts) == pytest.approx(1)


def test_each_passage_finds_its_own_source_and_a_shared_one_both() -> None:
    reply = (
        "Warm air takes up more water than cold air does. "
        "No two of them are quite alike, they say.\n\n"
        "- Evaporation lifts water from seas and lakes.\n"
    )
    found = closest(reply, [RAIN, SNOW])
    assert names(found) == [(0,), (1,), (0, 1)]
    assert [share.percent for share in found] == [100, 100, 100]


def test_marks_case_and_line_ends_make_no_difference() -> None:
    reply = "> *warm air* takes up `more` water than **COLD air** does."
    [passage] = closest(reply, [SNOW, RAIN])
    assert passage == PassageMatch(reply, (1,), 100)


def test_code_is_found_in_code() -> None:
    reply = "```\ndef add(first: int, second: int) -> int:\n    return first + second\n```"
    found = closest(reply, [RAIN, CODE.replace("python", "py")])
    assert names(found) == [(1,), (1,)]
    assert min(share.percent for share in found) == 100


def test_characters_of_wide_scripts_are_compared_too() -> None:
    texts = ["雨は雲から落ちる水です。川を満たします。", "雪は凍った水です。春に溶けます。"]
    found = closest("雪は凍った水です。雨は雲から落ちる水です。", texts)
    assert names(found) == [(1,), (0,)]


def test_what_was_reworded_is_close_and_what_was_invented_is_far() -> None:
    reply = (
        "Rain falls once drops in a cloud grow too heavy for air to carry. "
        "Quarterly bookkeeping obliges publishers."
    )
    near, far = closest(reply, [SNOW, RAIN])
    assert near.indexes == (1,)
    assert near.percent > 80
    assert far.percent < 60


def test_equal_proposals_share_alike() -> None:
    found = closest(RAIN, [RAIN, RAIN, SNOW])
    assert all(share.indexes[:2] == (0, 1) for share in found)
    first, second, third = shares(found, 3)
    assert first == second > third


@pytest.mark.parametrize("texts", [[], [""], ["", "  \n"]])
def test_where_there_is_nothing_to_compare_to_nothing_is_close(texts: list[str]) -> None:
    found = closest(RAIN, texts)
    assert found
    assert all((share.indexes, share.percent) == ((), 0) for share in found)
    assert shares(found, len(texts)) == [0.0] * len(texts)


@given(reply=PIECES, texts=st.lists(PIECES, max_size=4))
def test_shares_are_parts_of_a_whole(reply: str, texts: list[str]) -> None:
    parts = shares(closest(reply * 3, texts), len(texts))
    assert all(part >= 0 for part in parts)
    assert sum(parts) <= 1 + 1e-9


@given(left=PIECES, right=PIECES)
def test_the_pieces_of_two_texts_join_to_the_texts(left: str, right: str) -> None:
    lefts, rights = differences(left, right)
    assert "".join(text for text, _ in lefts) == left
    assert "".join(text for text, _ in rights) == right
    same = [[text.split() for text, differs in side if not differs] for side in (lefts, rights)]
    assert same[0] == same[1]


@given(text=PIECES)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert not any(differs for side in differences(text, text) for _, differs in side)


def test_what_the_other_text_lacks_is_marked() -> None:
    lefts, rights = differences(
        "Warm air takes up more water,\nthey say.", "Warm air takes up much water, they say."
    )
    assert [text for text, differs in lefts if differs] == ["more "]
    assert [text for text, differs in rights if differs] == ["much "]


def test_white_space_alone_is_no_difference() -> None:
    lefts, rights = differences("one  two\n\nthree", "one two three")
    assert {differs for _, differs in lefts + rights} == {False}


def test_texts_with_nothing_in_common_differ_throughout() -> None:
    lefts, rights = differences("rain", "snow")
    assert [differs for _, differs in lefts + rights] == [True, True]
    assert differences("", "snow") == ([], rights)

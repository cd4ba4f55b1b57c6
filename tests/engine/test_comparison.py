"""What is read from a model's comparison of proposals, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa_cli.core.conversation import Proposal
from moa_cli.core.strategy import Point, Report, report_markdown
from moa_cli.engine.agreement.comparison import COMPARE, comparison_text, read_report
from moa_cli.engine.prompts import merge_text, review_wording
from moa_cli.profile import Aggregator, Profile

NAMES = ("alpha", "beta", "gamma")
PROPOSALS = [
    Proposal(1, index, name, f"lab:{name}", f"It is {name}.") for index, name in enumerate(NAMES)
]
TOLD: dict[str, Any] = {
    "points": [
        {"kind": "consensus", "text": "Paris is in France.", "responses": [1, 2, 3]},
        {"kind": "conflict", "text": "One says 2, one says 3.", "responses": [1, 3]},
        {"kind": "unique", "text": "It floods.", "responses": [2]},
        {"kind": "blind_spot", "text": "No source is named.", "responses": []},
    ],
    "groups": [[1, 2], [3]],
}
REPORT = Report(
    points=(
        Point("consensus", "Paris is in France.", NAMES),
        Point("conflict", "One says 2, one says 3.", ("alpha", "gamma")),
        Point("unique", "It floods.", ("beta",)),
        Point("blind_spot", "No source is named."),
    ),
    groups=(("alpha", "beta"), ("gamma",)),
    consensus=1 / 3,
)


def read(value: object) -> Report | None:
    return read_report(value if isinstance(value, str) else json.dumps(value), PROPOSALS)


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "```json\n{}\n```",
        "Here is the comparison:\n\n{}\n\nI hope that {{this}} helps.",
        'A draft: {{"points": []}}. Now in full:\n{}',
        "\ufeff  {}",
    ],
)
def test_a_report_is_read_from_what_stands_around_it(around: str) -> None:
    assert read(around.replace("{}", json.dumps(TOLD, indent=1), 1)) == REPORT


def test_commas_too_many_and_line_ends_in_texts_are_read() -> None:
    told = json.dumps(TOLD).replace("}]", "},]").replace("floods.", "floods.\n")
    assert read(told) == REPORT


def test_points_may_stand_under_their_kinds() -> None:
    told = {
        "Consensus": [{"text": "Paris is in France."}],
        "contradictions": [{"point": "One says 2, one says 3.", "answers": ["1", "Response 3"]}],
        "unique insights": [{"text": "It floods.", "responses": "2"}],
        "blind-spots": ["No source is named."],
        "groups": {"two": {"responses": [1, 2]}, "three": [3]},
    }
    assert read(told) == REPORT


def test_numbers_that_no_answer_has_are_left_out_and_those_told_twice_count_once() -> None:
    point = {"kind": "conflict", "text": "a", "responses": [0, 3, 1, 1, 99, -7, True, None, 3.0]}
    found = read({"points": [point, point], "groups": [[2, 1, 1, 8], [3, 3]]})
    assert found is not None
    assert found.points == (Point("conflict", "a", ("alpha", "gamma")),)
    assert (found.groups, found.notes) == ((("alpha", "beta"), ("gamma",)), ())


def test_the_kind_fits_those_who_hold_the_point() -> None:
    told = [("consensus", [1, 2]), ("partial", [1, 2, 3]), ("unique", [2, 3]), ("partial", [3])]
    points = [
        {"kind": kind, "text": f"{place}", "responses": numbers}
        for place, (kind, numbers) in enumerate(told)
    ]
    found = read({"points": points})
    assert found is not None
    assert [point.kind for point in found.points] == ["partial", "consensus", "partial", "unique"]
    assert (found.consensus, found.notes) == (None, ("the answers were not grouped",))


@pytest.mark.parametrize(
    ("groups", "read_as", "consensus"),
    [
        ([[1, 2, 3]], [["alpha", "beta", "gamma"]], 1.0),
        ([[1], [2], [3]], [["alpha"], ["beta"], ["gamma"]], 0.0),
        ([[1, 2], [3]], [["alpha", "beta"], ["gamma"]], 1 / 3),
    ],
)
def test_the_consensus_is_the_share_of_pairs_in_the_same_group(
    groups: list[list[int]], read_as: list[list[str]], consensus: float
) -> None:
    found = read({"groups": groups})
    assert found is not None
    assert [list(group) for group in found.groups] == read_as
    assert found.consensus == pytest.approx(consensus)


def test_an_answer_in_two_groups_counts_in_the_first_and_one_in_none_as_its_own() -> None:
    found = read({"groups": [[1, 2], [2]]})
    assert found == Report(
        groups=(("alpha", "beta"), ("gamma",)),
        consensus=1 / 3,
        notes=(
            "beta is in 2 groups and counts in the first",
            "gamma is in no group and counts as its own",
        ),
    )


@pytest.mark.parametrize(
    "told",
    [
        "",
        "I cannot compare them.",
        "{}",
        "[1, 2]",
        '{"points": 3, "groups": "none"}',
        '{"points": [null, 7, {"kind": "big", "text": "x"}, {"kind": "unique"}], "groups": [[9]]}',
        '{"points": [{"kind": "unique", "text": "breaks o',
    ],
)
def test_what_holds_no_report_gives_none(told: str) -> None:
    assert read(told) is None


@pytest.mark.parametrize(
    "told",
    [
        '{"a":' * 100_000,
        '{"points": ' + "[" * 100_000,
        '{"groups": [[' + "9" * 100_000 + "]]}",
        '{"' * 300_000,
        '{"points": [' + '{"kind": "unique", "text": "x"}, ' * 100_000,
    ],
)
def test_hostile_answers_are_read_in_bounds(told: str) -> None:
    assert read(told) is None


def test_a_report_is_bounded_and_holds_nothing_that_controls_a_terminal() -> None:
    points = [{"kind": "unique", "text": f"{place} \x1b[2J" + "x" * 3000} for place in range(99)]
    found = read({"points": points})
    assert found is not None
    assert len(found.points) == 50
    assert all(len(point.text) <= 2000 and "\x1b" not in point.text for point in found.points)


def test_holders_have_names_of_their_own() -> None:
    found = read_report(json.dumps(TOLD), ["a", PROPOSALS[0], PROPOSALS[0]])
    assert found is not None
    assert found.groups == (("response 1", "alpha #1"), ("alpha #2",))


def test_a_report_in_words_names_the_proposers_or_the_numbers_that_a_model_knows() -> None:
    assert report_markdown(REPORT) == (
        "Consensus:\n- Paris is in France. (alpha, beta, gamma)\n\n"
        "Conflicts:\n- One says 2, one says 3. (alpha, gamma)\n\n"
        "Said by one alone:\n- It floods. (beta)\n\n"
        "Blind spots:\n- No source is named.\n\n"
        "Agreement: 33% of the pairs of answers take the same of 2 positions\n"
        "- alpha, beta\n- gamma"
    )
    numbered = comparison_text(REPORT, PROPOSALS)
    assert "- It floods. (response 2)\n" in numbered
    assert numbered.endswith("- responses 1, 2\n- response 3")
    assert not any(name in numbered for name in NAMES)


def test_a_model_is_asked_to_compare_anonymous_answers_between_borders() -> None:
    profile = Profile(name="p", aggregator=Aggregator(model="lab:judge"), reference_names=True)
    text = merge_text(review_wording(profile, COMPARE), PROPOSALS, "Where is Paris?")
    assert "Their 3 responses follow" in text
    assert "[response 2 begins: " in text
    assert '{"points": [{"kind": "…"' in text
    assert "lab:" not in text

"""What real providers answered, byte for byte, for either use of the client, in any pieces."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from tests.support.command import Moa
from tests.support.recordings import (
    CHUNKINGS,
    OUTCOMES,
    Recording,
    changed,
    differences,
    observe,
    recordings,
    served,
)

USES = {"one user": False, "many calls": True}
RECORDINGS = recordings()

needs_data = pytest.mark.skipif(not RECORDINGS, reason="MOA_TEST_DATA names no recordings")
each_recording = pytest.mark.parametrize(
    "recording", RECORDINGS, ids=[recording.name for recording in RECORDINGS]
)


@needs_data
@each_recording
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_recording_is_read_as_its_provider_means_it(
    recording: Recording, use: str, chunking: str
) -> None:
    pieces = CHUNKINGS[chunking]
    observed = asyncio.run(observe(recording, pieces, many_calls=USES[use]))
    assert differences(recording.expected, observed) == []


@needs_data
@each_recording
def test_every_field_that_is_expected_is_compared(recording: Recording) -> None:
    observed = asyncio.run(observe(recording, CHUNKINGS["whole"]))
    for name, expected in changed(recording.expected):
        assert differences(expected, observed), f"a change of {name} goes unnoticed"


TROUBLE = [
    recording
    for recording in RECORDINGS
    if recording.expected["kind"] == "error" or not recording.expected["text"]
]
EXIT_CODES = {
    "authentication": 76,
    "model_not_found": 77,
    "no_credit": 75,
    "rate_limited": 75,
}


@needs_data
@pytest.mark.parametrize("recording", TROUBLE, ids=[recording.name for recording in TROUBLE])
def test_the_user_is_told_why_there_is_no_answer(recording: Recording, moa: Moa) -> None:
    expected = recording.expected
    words = OUTCOMES.get(expected.get("outcome", "tool calls, no text"))
    if expected["kind"] == "error":
        words = expected["must_say"] or "failed"
    with served(recording) as url:
        moa.configure(providers={"lab": {"base_url": url, "api_key_env": "LAB_KEY"}})
        moa.profile("lab")
        ran = moa.run("ask", "hello")
    assert ran.code == EXIT_CODES.get(expected.get("error", ""), 1)
    assert ran.text.strip() == expected.get("text_before", "").strip()
    [line] = ran.err.splitlines()[1:]
    assert words is not None
    assert words.lower() in line.lower()
    assert expected.get("refusal", "") in line
    assert line.count("lab:") <= 2
    # Nothing of the wrapping is left.
    assert "{" not in line
    assert "Provider returned error" not in line


PRICED = [recording for recording in RECORDINGS if recording.expected.get("cost_usd") is not None]


@needs_data
@pytest.mark.parametrize("recording", PRICED, ids=[recording.name for recording in PRICED])
def test_a_turn_costs_what_its_provider_says(recording: Recording, moa: Moa) -> None:
    with served(recording) as url:
        moa.configure(providers={"lab": {"base_url": url, "api_key_env": "LAB_KEY"}})
        moa.profile("lab", "a", "b", aggregator="c")
        told = json.loads(moa.run("ask", "hello", "--json").out)
    cost = Decimal(repr(float(recording.expected["cost_usd"]))).quantize(Decimal("1e-12"))
    calls = [*told["proposals"][0], told]
    assert [Decimal(repr(call["usage"]["known_cost"])) for call in calls[:2]] == [cost, cost]
    # To the last digit, also of the sum.
    assert Decimal(repr(told["usage"]["known_cost"])) == told["usage"]["calls"] * cost

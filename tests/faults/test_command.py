"""A few faults of each kind, as whoever runs `moa ask` meets them: what is on standard output,
what is read on standard error, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.endpoint import Endpoint
from tests.faults.fault import Fault
from tests.faults.places import place_of
from tests.faults.playing import SOUND, Case, normal, script_of
from tests.faults.script import UNFINISHED
from tests.faults.table import FAULTS
from tests.support.command import KEY, Moa, Ran

NAMES = (
    *("401", "400 context", "404", "429", "429 hour", "402", "503", "200 page"),
    *("no HTTP", "closes", "closes after text", "ends at once", "silent", "silent after text"),
    *("308 loop", "bad JSON after text", "deep", "error after text", "broken gzip", "nothing"),
    *("refusal", "cut while thinking", "refused", "unknown host", "self-signed", "dead proxy"),
)
ANSWERED = ("controls", "bad UTF-8", "closes after finish", "huge count", "cut")
CODES = {"RateLimited": 75, "NoCredit": 75, "AuthenticationFailed": 76, "ModelNotFound": 77}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(script_of) as running:
        yield running


def named(name: str) -> Fault:
    return next(fault for fault in FAULTS if fault.name == name)


def asked(case: Case, endpoint: Endpoint, folder: Path) -> tuple[Ran, list[str]]:
    """What came of `moa ask`, and what it said behind its first line."""
    fault = case.fault
    faulty = {"model": f"lab:{case.key}", **fault.settings}
    sound = {"model": f"sound:{case.key}-sound1"}
    with place_of(fault.at, endpoint, folder) as place:
        moa = Moa(folder / case.key, endpoint.url)
        moa.configure(
            providers={
                "lab": {"base_url": place.url, "api_key_env": "LAB_KEY"},
                "sound": {"base_url": endpoint.url, "api_key_env": "LAB_KEY"},
            }
        )
        if case.position == "aggregator":
            moa.profile("lab", sound, aggregator=faulty)
        else:
            moa.profile("lab", sound, faulty, aggregator=sound)
        ran = moa.run("ask", "What is rain?", env=place.environment)
        lines = [normal(line, place) for line in ran.err.splitlines()]
    assert KEY not in ran.err
    assert "Traceback" not in ran.err
    assert lines[0].startswith("moa: profile lab: ")
    return ran, lines[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_proposer_is_lost_and_the_reply_comes(
    name: str, endpoint: Endpoint, tmp_path: Path
) -> None:
    fault = named(name)
    ran, lines = asked(Case(fault, "round 1"), endpoint, tmp_path)
    assert (ran.code, ran.text) == (0, f"{SOUND}\n")
    assert lines == [f"moa: degraded, lost lab:m-1: {fault.reads}"]


@pytest.mark.parametrize("name", NAMES)
def test_an_aggregator_is_lost_and_says_why(name: str, endpoint: Endpoint, tmp_path: Path) -> None:
    fault = named(name)
    ran, lines = asked(Case(fault, "aggregator"), endpoint, tmp_path)
    assert ran.code == CODES.get(fault.error, 1)
    assert ran.text == (f"{UNFINISHED} rain \n" if fault.begun else "")
    why, kept = lines
    assert fault.reads in why
    assert kept.startswith("moa: 1 proposal is kept: ")


@pytest.mark.parametrize("name", ANSWERED)
def test_what_can_be_read_is_read(name: str, endpoint: Endpoint, tmp_path: Path) -> None:
    fault = named(name)
    ran, lines = asked(Case(fault, "aggregator"), endpoint, tmp_path)
    assert ran.code == 0
    assert fault.answer is not None
    assert "\x1b" not in ran.text
    assert ran.text.split() == fault.answer.replace("\x1b[2J\x1b]0;x\x07", "").split()
    # What was cut is said.
    assert bool(lines) == (name == "cut")

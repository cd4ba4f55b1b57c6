"""`moa ask --report`: where the proposals disagree, below the reply."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Upstream

TOLD = {
    "points": [
        {"kind": "consensus", "text": "Rain is water.", "responses": [1, 2, 3]},
        {"kind": "unique", "text": "It may be acid.", "responses": [2]},
    ],
    "groups": [[1, 3], [2]],
}
SHOWN = """\
report on the proposals:

Consensus:
- Rain is water. (lab:a, lab:b, lab:c)

Said by one alone:
- It may be acid. (lab:b)

Agreement: 33% of the pairs of answers take the same of 2 positions
- lab:a, lab:c
- lab:b
"""


@pytest.fixture
def lab(moa: Moa, upstream: Upstream) -> Moa:
    """Three proposers, and a judge who gives a report."""
    moa.profile("lab", "a", "b", "c", judge="lab:judge")
    for model in ("a", "b", "c", "agg"):
        upstream.always(model, Reply(text=f"from {model}"))
    upstream.always("judge", Reply(text=f"Here it is:\n```json\n{json.dumps(TOLD)}\n```"))
    return moa


def test_the_report_is_printed_beside_the_reply_with_those_who_hold_a_point(
    lab: Moa, upstream: Upstream
) -> None:
    ran = lab.run("ask", "--report", "-q", "hi")
    assert (ran.code, ran.text, ran.err) == (0, "from agg\n", SHOWN)
    assert len(upstream.chats()) == 5


def test_json_has_the_report(lab: Moa) -> None:
    told = json.loads(lab.run("ask", "--report", "--json", "hi").out)
    assert told["report"] == {
        "points": [
            {
                "kind": "consensus",
                "text": "Rain is water.",
                "proposers": ["lab:a", "lab:b", "lab:c"],
            },
            {"kind": "unique", "text": "It may be acid.", "proposers": ["lab:b"]},
        ],
        "groups": [["lab:a", "lab:c"], ["lab:b"]],
        "consensus": pytest.approx(1 / 3),
        "notes": [],
    }
    assert [review["purpose"] for review in told["reviews"]] == ["report"]


def test_without_the_option_there_is_none(lab: Moa, upstream: Upstream) -> None:
    ran = lab.run("ask", "-q", "hi")
    assert (ran.code, ran.err) == (0, "")
    assert "report" not in json.loads(lab.run("ask", "--json", "hi").out)
    assert upstream.chats("judge") == []


def test_at_a_terminal_the_report_stands_below_the_reply(lab: Moa) -> None:
    with lab.terminal("ask", "--report", "hi", rows=40) as terminal:
        assert terminal.wait() == 0
        shown = "\n".join(line.rstrip() for line in terminal.lines())
    assert shown.index("from agg") < shown.index("report on the proposals:")
    assert "- It may be acid. (lab:b)" in shown


def test_a_report_that_cannot_be_read_is_told_and_the_exit_code_is_0(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.always("judge", Reply(text="no"))
    ran = lab.run("ask", "--report", "hi")
    assert (ran.code, ran.text) == (0, "from agg\n")
    assert "degraded, lost judge (report): its answer cannot be read" in ran.err


def test_ctrl_c_while_the_report_is_made_keeps_the_reply(lab: Moa, upstream: Upstream) -> None:
    upstream.always("judge", Reply(stall_after=0))
    with lab.start("ask", "--report", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats("judge")) == 1)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"from agg\n")
    assert b"judge (report): not waited for" in err


def test_the_report_is_kept_with_its_turn(lab: Moa) -> None:
    lab.run("ask", "--report", "hi")
    [turn] = json.loads(lab.run("history", "show", "--json").out)["turns"]
    assert turn["report"]["groups"] == [["lab:a", "lab:c"], ["lab:b"]]
    assert (turn["reply"], turn["status"]) == ("from agg", "finished")
    assert turn["usage"]["calls"] == 5


def test_a_merged_turn_is_reported_on_without_a_proposer(lab: Moa, upstream: Upstream) -> None:
    lab.run("ask", "hi")
    ran = lab.run("ask", "--remerge", "--report", "-q")
    assert (ran.code, ran.err) == (0, SHOWN)
    assert [len(upstream.chats(model)) for model in ("a", "b", "c")] == [1, 1, 1]
    [turn] = json.loads(lab.run("history", "show", "--json").out)["turns"]
    assert [review["purpose"] for review in turn["reviews"]] == ["report"]
    assert turn["usage"]["calls"] == 2

"""`moa ask --report`: where the proposals disagree, below the reply."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Request, Upstream

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


def test_what_became_of_a_turn_is_not_called_lost(lab: Moa) -> None:
    said = "the report was skipped: there are fewer than two proposals to compare"
    ran = lab.run("ask", "--report", "-m", "lab:a", "-a", "lab:agg", "hi")
    assert ran.err.endswith(f"moa: degraded: {said}\n")
    exported = lab.run("history", "export", "--all")
    assert f"*degraded: {said}*" in exported.text
    assert f">degraded: {said}<" in lab.run("history", "export", "--all", "--format", "html").text


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


def test_a_turn_is_written_again_by_other_strategies_and_nothing_is_paid_twice(
    lab: Moa, upstream: Upstream
) -> None:
    def ranked(request: Request) -> str:
        asked = "Rank the responses" in str(request.messages[-1]["content"])
        return "Ranking: 2 > 1" if asked else f"from {request.model}"

    for model in ("a", "b", "c"):
        upstream.always(model, Reply(text=ranked))
    lab.run("ask", "--strategy", "synthesize", "hi")

    def paid(*options: str) -> list[str]:
        before = len(upstream.chats())
        ran = lab.run("ask", "--remerge", "--json", *options)
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        models = sorted(request.model for request in upstream.chats()[before:])
        assert sorted(charge["model"].removeprefix("lab:") for charge in told["ledger"]) == models
        assert told["lost"] == []
        return models

    assert paid("--strategy", "fusion") == ["agg", "judge"]
    assert paid("--strategy", "council") == ["a", "agg", "b", "c"]
    # The comparison is a report already.
    assert paid("--strategy", "synthesize", "--report") == ["agg"]
    assert paid("--strategy", "council", "--report") == ["agg"]
    assert paid("--strategy", "fusion") == ["agg"]
    [turn] = json.loads(lab.run("history", "show", "--json").out)["turns"]
    assert turn["report"]["groups"] == [["lab:a", "lab:c"], ["lab:b"]]
    assert [review["purpose"] for review in turn["reviews"]] == ["compare", *["rank"] * 3]


def test_exports_and_the_history_show_the_report(lab: Moa) -> None:
    lab.run("ask", "--report", "hi")
    for arguments in (("show",), ("export", "--all"), ("export", "--all", "--format", "html")):
        told = lab.run("history", *arguments).text
        assert "It may be acid." in told, arguments
        assert "33%" in told, arguments


def test_the_words_of_a_judge_are_no_marks_in_an_export(lab: Moa, upstream: Upstream) -> None:
    hostile = "- <b>bold</b> [x](https://x.example) \u001b[2J"
    point = {"kind": "unique", "text": hostile, "responses": [1]}
    upstream.always("judge", Reply(text=json.dumps({"points": [point], "groups": [[1, 2, 3]]})))
    lab.run("ask", "--report", "hi")
    page = lab.run("history", "export", "--all", "--format", "html").text
    assert "<li>- &lt;b&gt;bold&lt;/b&gt; [x](https://x.example) (lab:a)</li>" in page
    text = lab.run("history", "export", "--all").text
    assert r"- \- \<b\>bold\</b\> \[x\](https://x.example) (lab:a)" in text
    for told in (page, text, lab.run("history", "show").text):
        assert "\x1b" not in told

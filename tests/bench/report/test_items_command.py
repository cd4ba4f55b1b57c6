"""`moa bench items`: each item with all that was said about it, as lines and as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.bench.scores import write_judgements, write_questions, write_run
from tests.support.browser import browser, opened
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream
from tests.support.web_pages import closed

HOSTILE = "</pre><script>document.title='taken'</script><img src=x onerror=alert(1)>\x1b]52;c;x\x07"


@pytest.fixture
def run(moa: Moa, upstream: Upstream) -> str:
    """A run of three questions by the mixture and its models: right, wrong, and no answer."""

    def reply(request: Request) -> str:
        asked = str(request.messages[-1]["content"])
        if request.model != "agg":
            return f"{HOSTILE} The answer is (B)."
        return {"f": "The answer is (B).", "s": "The answer is (A).", "t": "I cannot say."}[
            asked[0]
        ]

    upstream.always("*", Reply(text=reply))
    lines = [
        {"id": "one", "prompt": "first <b>", "answer": "B", "category": "x"},
        {"id": "two", "prompt": "second", "answer": "B", "category": "y"},
        {"id": "three", "prompt": "third", "answer": "C"},
    ]
    write_lines(moa.folder / "mine.jsonl", lines)
    ran = moa.run("bench", "run", "mine.jsonl", "-y", "-o", "run")
    assert ran.code == 0, ran.err
    return "run"


def lines_of(moa: Moa, *arguments: str) -> list[dict[str, Any]]:
    ran = moa.run("bench", "items", *arguments)
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.text.splitlines()]


def test_each_item_tells_what_was_asked_proposed_answered_and_found(moa: Moa, run: str) -> None:
    rows = lines_of(moa, run)
    assert [(row["item"], row["outcome"]) for row in rows] == [
        ("one", "right"),
        ("two", "wrong"),
        ("three", "unanswered"),
    ]
    first = rows[0]
    assert first["prompt"] == ["first <b>"]
    assert (first["expected"], first["reply"]["answer"], first["reply"]["score"]) == ("B", "B", 1.0)
    [layer] = first["layers"]
    assert [(answer["model"], answer["score"]) for answer in layer] == [
        ("lab:a", 1.0),
        ("lab:b", 1.0),
        ("lab:c", 1.0),
    ]
    assert first["seconds"] >= 0
    assert "cost" in first


def test_wrong_ones_and_arms_are_picked_out(moa: Moa, run: str) -> None:
    assert [row["item"] for row in lines_of(moa, run, "--wrong")] == ["two", "three"]
    assert lines_of(moa, run, "--arm", "mixture") == lines_of(moa, run)
    ran = moa.run("bench", "items", run, "--arm", "mixtur")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "did you mean `mixture`?" in ran.err


def test_the_cost_of_an_item_is_told_however_small(moa: Moa, upstream: Upstream) -> None:
    prices = {"lab:agg": {"prompt": 0.0002, "completion": 0.0004}}
    moa.configure(providers=moa.settings()["providers"], prices=prices)
    upstream.always("*", Reply(usage=(1000, 500)))
    write_lines(moa.folder / "mine.jsonl", [{"id": "one", "prompt": "first"}])
    assert moa.run("bench", "run", "mine.jsonl", "--rounds", "0", "-y", "-o", "small").code == 0
    [row] = lines_of(moa, "small")
    assert row["cost"] == 4e-07
    assert moa.run("bench", "items", "small", "-o", "items.html").code == 0
    assert " · $0.00000040 · " in (moa.folder / "items.html").read_text("utf-8")


def test_judged_items_have_a_value(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "mt", 2)
    judged = write_run(moa.folder / "runs" / "judged", file, {"mixture": []})
    write_judgements(judged, {"mixture": [9.0, None]})
    rows = lines_of(moa, str(judged))
    assert {(row["outcome"], row["value"]) for row in rows} == {("judged", 9.0), ("unjudged", None)}
    told = [row["verdicts"] for row in rows]
    assert [[(said["value"], said["turn"]) for said in row] for row in told] == [
        [(9.0, 1), (9.0, 2)],
        [(None, 1), (None, 2)],
    ]
    assert {said["judge"] for row in told for said in row} == {"lab:judge"}
    assert [said["unreadable"] for said in told[1]] == [True, True]
    ran = moa.run("bench", "items", str(judged), "-o", "items.html")
    assert ran.code == 0, ran.err
    page = (moa.folder / "items.html").read_text("utf-8")
    assert "judge lab:judge, turn 2: 9 rating, of 10" in page
    assert "judge lab:judge: unreadable verdict" in page
    ran = moa.run("bench", "items", str(judged), "--wrong")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_the_page_shows_all_as_text_and_runs_no_script_but_its_own(
    moa: Moa, run: str, tmp_path: Path
) -> None:
    ran = moa.run("bench", "items", run, "-o", "items.html")
    assert ran.code == 0, ran.err
    page = (moa.folder / "items.html").read_text("utf-8")
    text = closed(page)
    assert "first &lt;b&gt;" in text
    assert "3 answers: 1 right, 1 wrong, 1 unanswered" in text
    assert page.count("<script>") == 1
    assert "\x1b" not in page
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]+'", page)
    if not browser():
        pytest.skip("there is no browser")
    shown, trouble = opened(page, tmp_path)
    assert "<title>Items</title>" in shown
    assert trouble == []

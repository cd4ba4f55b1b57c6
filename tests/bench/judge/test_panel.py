"""A panel of judges, and how far they agree with each other and with the user's choices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from moa_cli.core.conversation import Usage
from moa_cli.store.comparisons import Comparison, Contender
from tests.support.bench.own_runs import write_lines
from tests.support.bench.scores import write_judgements, write_questions, write_run
from tests.support.command import Moa
from tests.support.kept import open_store
from tests.support.upstream import Reply, Request, Upstream

FIRST = {"mixture": (9, 8, 7, 6, None), "self": (5, 4, 9, 6, 7)}
SECOND = {"mixture": (8, 8, 6, 6, 9), "self": (5, 3, 9, 7, 7)}


@pytest.fixture
def run(moa: Moa) -> Path:
    """A run of MT-Bench by two arms, rated by two judges."""
    file = write_questions(moa.folder / "data", "mt", 5)
    folder = write_run(moa.folder / "runs/mt", file, {"mixture": (), "self": ()})
    write_judgements(folder, FIRST, "lab:first")
    write_judgements(folder, SECOND, "lab:second")
    return folder


def test_judges_of_a_run(moa: Moa, run: Path) -> None:
    ran = moa.run("bench", "agreement", "runs/mt")
    assert ran.code == 0, ran.err
    head, _, names, row, whole, *_ = ran.text.splitlines()
    assert head == "2 judges: ratings; 18 answers judged by all"
    assert names.split("  ")[0] == "judge"
    # 5 of 9 items have the same rating, each twice.
    assert row.split()[:5] == ["lab:first", "lab:second", "55.6", "%", "0.920"]
    assert re.fullmatch(
        r"all together: Krippendorff's alpha 0\.9\d\d \(-?[01]\.\d{3} to 0\.9\d\d\)", whole
    )
    told = json.loads(moa.run("bench", "agreement", "runs/mt", "--json").out)
    [pair] = told["pairs"]
    assert pair["units"] == 18
    for value, interval in (
        (pair["kappa"], pair["interval"]),
        (told["krippendorff_alpha"], told["krippendorff_alpha_interval"]),
    ):
        assert interval["low"] < value < interval["high"] < 1
    assert f"{pair['interval']['low']:.3f} to {pair['interval']['high']:.3f}" in row
    assert (told["fleiss_kappa"], told["fleiss_kappa_interval"]) == (None, None)
    arms = {row["arm"]: row for row in told["arms"]}
    assert arms["mixture"]["panel"]["value"] == pytest.approx((30 + 28) / 8)
    assert arms["mixture"]["by_judge"]["lab:first"]["value"] == pytest.approx(7.5)
    assert told["choices"] == []


def test_one_judge_has_nobody_to_agree_with(moa: Moa, run: Path) -> None:
    ran = moa.run("bench", "agreement", "runs/mt", "--judge", "lab:first")
    assert ran.code == 0
    assert "there is one judge: `moa bench judge runs/mt --judge MODEL` asks another" in ran.err
    ran = moa.run("bench", "agreement", "runs/mt", "--judge", "lab:third")
    assert (ran.code, ran.out) == (1, b"")
    assert "there are no judgements by lab:third" in ran.err


def test_judges_without_a_common_answer_have_no_table_of_arms(moa: Moa, run: Path) -> None:
    write_judgements(run, {"mixture": (None,) * 5, "self": (None,) * 5}, "lab:third")
    ran = moa.run("bench", "agreement", "runs/mt", "--judge", "lab:first", "--judge", "lab:third")
    assert (ran.code, ran.err) == (0, "")
    head, *_, last = ran.text.splitlines()
    assert head == "2 judges: ratings; 0 answers judged by all"
    assert last == "all together: Krippendorff's alpha –"


def test_judges_by_different_measures(moa: Moa, run: Path) -> None:
    file = run / "judges/lab-second/judge.json"
    settings = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**settings, "kind": "pairwise", "against": "self"}), "utf-8")
    ran = moa.run("bench", "agreement", "runs/mt")
    assert (ran.code, ran.out) == (1, b"")
    assert "lab:first and lab:second have judged by different measures" in ran.err


def test_your_choices_are_the_yardstick(moa: Moa, run: Path) -> None:
    table = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**table, "profile": {"name": "lab"}}), "utf-8")

    def choice(winner: int | None, profile: str = "lab") -> Comparison:
        shown = [
            Contender(arm, profile, "abc", Usage(), 1.0) for arm in ("self", "single:x", "mixture")
        ]
        return Comparison(1.0, tuple(shown), winner)

    store = open_store(moa.state.parent / "data" / "conversations.db")
    for winner in (2, 2, 0, None, 1):
        store.comparisons.add(choice(winner))
    store.comparisons.add(choice(0, "other"))
    store.close()
    ran = moa.run("bench", "agreement", "runs/mt")
    assert ran.code == 0, ran.err
    told = json.loads(moa.run("bench", "agreement", "runs/mt", "--json").out)
    [pair] = told["choices"]
    assert (pair["first"], pair["second"]) == ("mixture", "self")
    # Two of three, and a tie; the choice of another arm says nothing of these.
    assert (pair["chosen"]["value"], pair["chosen"]["n"]) == (2.5 / 4, 4)
    assert pair["by_judge"]["lab:first"]["value"] == (1 + 1 + 0 + 0.5) / 4
    assert "62.5 % (n 4)" in ran.text
    assert "lab:first prefers the arm that you prefer in 1 of 1 pair" in ran.text


def test_a_panel_judges(moa: Moa, upstream: Upstream) -> None:
    moa.profile("one", "m", aggregator="m")
    rows = [{"prompt": f"say {n}", "answer": str(n)} for n in range(4)]
    write_lines(moa.folder / "mine.jsonl", rows)
    assert moa.run("bench", "run", "mine.jsonl", "-p", "one", "--arms", "single", "-y").code == 0

    def rating(request: Request) -> str:
        kind = request.model == "kind"
        return f"Rating: [[{9 if kind or 'say 1' in str(request.messages) else 2}]]"

    upstream.always("kind", Reply(text=rating))
    upstream.always("strict", Reply(text=rating))
    start = ("bench", "judge", "runs/mine-one", "-y", "--judge", "lab:kind")
    ran = moa.run(*start, "--judge", "lab:strict")
    assert ran.code == 0, ran.err
    assert len(upstream.chats("kind")) == len(upstream.chats("strict")) == 4
    assert "judged by lab:kind" in ran.text
    assert "judged by lab:strict" in ran.text
    assert "2 judges: ratings; 4 answers judged by all" in ran.text
    assert "25.0 %" in ran.text
    calls = len(upstream.chats())
    assert moa.run(*start, "--judge", "lab:strict").text == ran.text
    assert len(upstream.chats()) == calls


def test_a_cap_holds_for_the_whole_panel(moa: Moa, upstream: Upstream) -> None:
    price = {"prompt": 0.0, "completion": 10_000.0}
    moa.configure(
        providers=moa.settings()["providers"], prices={"lab:kind": price, "lab:strict": price}
    )
    moa.profile("one", "m", aggregator="m")
    write_lines(moa.folder / "mine.jsonl", [{"prompt": f"say {n}", "answer": "x"} for n in "ab"])
    assert moa.run("bench", "run", "mine.jsonl", "-p", "one", "--arms", "single", "-y").code == 0
    # A call costs 0.10 USD, and may take 20.48.
    for name in ("kind", "strict"):
        upstream.always(name, Reply(text="Rating: [[7]]", usage=(30, 10)))
    start = ("bench", "judge", "runs/mine-one", "-y", "--judge", "lab:kind", "--judge")
    ran = moa.run(*start, "lab:strict", "--max-cost", "20.65", "--concurrency", "1")
    assert ran.code == 3, ran.err
    assert len(upstream.chats("kind")) == 2
    assert upstream.chats("strict") == []
    assert moa.run(*start, "lab:strict", "--max-cost", "30").code == 0
    assert len(upstream.chats("strict")) == 2

"""What a run will cost is told first, held to its caps, and written down."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest

from tests.support.bench.own_runs import ANSWER, answered_twice, call_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

# A call of 100 tokens in and 10 out costs $0.12.
PRICE = {"prompt": 1000.0, "completion": 2000.0}
COUNTED = Reply(text=ANSWER.text, usage=(100, 10))


@pytest.fixture
def priced(moa: Moa, upstream: Upstream) -> Moa:
    """Models of known price; their answers have 50 tokens at most."""
    models = ("a", "b", "c", "agg")
    moa.configure(
        providers=moa.settings()["providers"], prices={f"lab:{name}": PRICE for name in models}
    )
    moa.profile("lab", "a", "b", "c", max_tokens=50)
    upstream.always("*", COUNTED)
    return moa


def spent(run: Path) -> float:
    """USD in a run's journal."""
    return math.fsum(row["usage"]["cost"] for row in call_lines(run))


def band(err: str, before: str) -> tuple[float, float]:
    """The two numbers of `between … and …` behind some words."""
    found = re.search(rf"{before}: between \$?([\d,.]+) and \$?([\d,.]+)", err)
    assert found, err
    low, high = (float(group.rstrip(".,").replace(",", "")) for group in found.groups())
    return low, high


def test_the_estimate_s_band_holds_what_was_counted(priced: Moa, upstream: Upstream) -> None:
    upstream.always("*", ANSWER)
    arguments = ("-y", "--arms", "mixture,self,single", "--rounds", "2")
    ran = priced.run("bench", "run", write_prompts(priced, 12), *arguments)
    assert ran.code == 0, ran.err
    calls = re.search(r"([\d,]+) calls;", ran.err)
    assert calls
    assert int(calls[1]) == len(upstream.chats())
    prompt, completion = upstream.usage_total
    low, high = band(ran.err, "tokens in")
    assert low <= prompt <= high
    most = re.search(r"out: up to ([\d,]+)", ran.err)
    assert most
    assert completion <= int(most[1].replace(",", "")) == 50 * len(upstream.chats())
    low, high = band(ran.err, "moa: cost")
    assert low <= spent(priced.folder / "runs" / "mine-lab") <= high


def test_a_run_whose_calls_are_all_there_costs_nothing_more(priced: Moa) -> None:
    start = ["bench", "run", write_prompts(priced, 2), "-o", "run", "-y"]
    assert priced.run(*start).code == 0
    (priced.folder / "run" / "items.jsonl").unlink()
    told = priced.run(*start).err.splitlines()
    assert "moa: 0 calls; tokens in: between 0 and 0, out: up to 0" in told
    assert "moa: cost: $0" in told


def test_what_the_journal_holds_is_not_estimated_again(priced: Moa, upstream: Upstream) -> None:
    failed = Reply(status=500, error={"error": {"message": "no"}})
    upstream.always("agg", failed)
    start = ["bench", "run", write_prompts(priced, 5), "-y"]
    assert "20 calls;" in priced.run(*start).err
    upstream.always("agg", COUNTED)
    ran = priced.run(*start)
    assert ran.code == 0
    assert "moa: 5 calls;" in ran.err
    # The references are there by now: nothing is unknown but the reply.
    low, high = band(ran.err, "tokens in")
    assert high < 2.2 * low


def test_a_cap_ends_the_run_and_a_higher_one_goes_on(priced: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(priced, 10), "-y", "--max-cost"]
    run = priced.folder / "runs" / "mine-lab"
    ran = priced.run(*start, "2.5")
    assert ran.code == 3, ran.err
    assert "partial: " in ran.text
    last = ran.err.splitlines()[-1]
    assert last.startswith("moa: --max-cost $2.50 would be exceeded: ")
    assert "run the same command with a higher cap" in last
    # It goes as far as it can: one more item might have gone beyond.
    assert 1.5 < spent(run) <= 2.5
    assert spent(run) == pytest.approx(0.12 * len(upstream.chats()))

    ran = priced.run(*start, "9")
    assert ran.code == 0, ran.err
    assert answered_twice(upstream) == []
    assert len(upstream.chats()) == 40
    assert spent(run) == pytest.approx(4.8)


def test_an_unknown_price_keeps_no_cap(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("bench", "run", write_prompts(moa, 1), "-y", "--max-cost", "1")
    assert ran.code == 3
    assert "--max-cost cannot be kept: the prices of lab:a, lab:b," in ran.err
    # What it offers can be done: there is no cap in tokens here.
    assert "set it under [prices] in the config file, or run without the cap" in ran.err
    assert upstream.chats() == []
    assert not list((moa.folder / "runs").iterdir())


def test_a_cap_shortens_no_answer(priced: Moa, upstream: Upstream) -> None:
    priced.profile("lab", "a", "b", "c")
    ran = priced.run("bench", "run", write_prompts(priced, 2), "-y", "--max-cost", "60")
    assert ran.code == 0, ran.err
    assert {request.body.get("max_tokens") for request in upstream.chats()} == {None}


def test_the_day_s_budget_counts(priced: Moa, upstream: Upstream) -> None:
    settings = priced.settings()
    del settings["retries"]
    priced.configure(**settings, budget={"day": 2.0})
    start = ["bench", "run", write_prompts(priced, 10), "-y"]
    ran = priced.run(*start)
    assert ran.code == 3, ran.err
    assert "budget.day $2.00 would be exceeded" in ran.err
    asked = len(upstream.chats())
    assert 0 < 0.12 * asked <= 2.0
    # What was spent is spent for others, too.
    assert priced.run("ask", "--max-tokens", "500", "hi").code == 3
    assert len(upstream.chats()) == asked


def test_what_was_spent_is_in_the_statistics(priced: Moa, upstream: Upstream) -> None:
    priced.run("bench", "run", write_prompts(priced, 3), "-y")
    rows = json.loads(priced.run("history", "stats", "--json").text)
    assert json.dumps(rows).count(time.strftime("%Y-%m"))
    told = priced.run("history", "stats").text
    assert "$1.44" in told
    assert len(upstream.chats()) == 12


def test_without_a_terminal_yes_must_be_said_first(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("bench", "run", write_prompts(moa, 1))
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err == "moa: cannot confirm: standard input is not a terminal; pass --yes\n"
    assert upstream.chats() == []


@pytest.mark.parametrize(("key", "code", "calls"), [("n", 1, 0), ("y", 0, 8)])
def test_at_a_terminal_it_asks_first(
    moa: Moa, upstream: Upstream, key: str, code: int, calls: int
) -> None:
    with moa.terminal("bench", "run", write_prompts(moa, 2), columns=100) as terminal:
        terminal.wait_for("Go on? [y/N]")
        assert upstream.chats() == []
        terminal.send(f"{key}\r")
        assert terminal.wait() == code
        assert terminal.modes_after == terminal.modes_before
    assert len(upstream.chats()) == calls
    if not calls:
        # Nothing came of it, and nothing is left of it.
        assert not list((moa.folder / "runs").iterdir())


def test_at_a_terminal_the_progress_moves_in_one_line(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with moa.terminal("bench", "run", write_prompts(moa, 4), "-y", columns=120) as terminal:
        terminal.wait_for(lambda: upstream.in_flight == 12)
        terminal.wait_for("0 of 4 results, 12 in flight")
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.shows_cursor()
        lines = terminal.lines()
    assert lines[-1].startswith("moa: interrupted at 0 of 4 results")
    assert not any("━" in line for line in lines)

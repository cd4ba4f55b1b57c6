"""What turns cost, and caps on it, from the command line."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import PATIENCE, Moa, Ran
from tests.support.upstream import Reply, Upstream

# Together's way of telling prices, OpenRouter's, and none.
LISTED: list[dict[str, object]] = [
    {"id": "a", "context_length": 8192, "pricing": {"input": 1.0, "output": 2.0}},
    {"id": "b", "pricing": {"prompt": "0.000003", "completion": "0.000004"}},
    {"id": "agg", "pricing": {"input": 10.0, "output": 20.0}},
    {"id": "mystery"},
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(models=LISTED) as running:
        running.always("*", Reply(text="one two three", usage=(1000, 100)))
        yield running


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    machine = Moa(tmp_path, upstream.url)
    machine.profile("lab", "a", "b", max_tokens=100)
    return machine


# A thousand tokens in, a hundred out, at the prices above.
COST = {"lab:a": 0.0012, "lab:b": 0.0034, "lab:agg": 0.012}
WHOLE = sum(COST.values())


def told(ran: Ran) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(ran.text)
    return result


def spent_today(moa: Moa) -> dict[str, float]:
    values = told(moa.run("history", "stats", "--json"))
    return {model["model"]: model["known_cost"] for model in values["models"]}


def lists(upstream: Upstream) -> int:
    return sum(request.route == "/models" for request in upstream.requests)


def test_the_usage_line_tells_calls_tokens_cost_and_the_dearest_model(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "-u")
    assert (ran.code, ran.text) == (0, "one two three\n")
    line = ran.err.splitlines()[-1]
    assert re.fullmatch(
        r"moa: 3 calls, 3,000 tokens in, 300 out, \$0\.017, \d+\.\d s; dearest: lab:agg \$0\.012",
        line,
    )
    assert "tokens in" not in moa.run("ask", "hi").err
    assert "3 calls" in moa.run("ask", "hi", "-u", "-q").err


def test_the_usage_line_marks_an_estimated_cost_of_the_dearest_model(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="one two three", usage=None))
    moa.profile("lab", "a", "agg", max_tokens=100)
    upstream.always("a", Reply(usage=(1, 1)))
    assert re.search(r", ~\$0\S+, \d+\.\d s; dearest: lab:agg ~\$0", moa.run("ask", "hi", "-u").err)


def test_the_ledger_in_the_json_is_the_upstreams(moa: Moa, upstream: Upstream) -> None:
    turn = told(moa.run("ask", "hi", "--json"))
    assert turn["usage"]["cost"] == pytest.approx(WHOLE)
    assert {row["model"]: row["usage"]["cost"] for row in turn["ledger"]} == pytest.approx(COST)
    assert [call["layer"] for call in turn["ledger"]] == [1, 1, 2]
    usage = turn["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == upstream.usage_total


def test_a_price_that_nobody_tells_is_unknown_and_not_zero(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "-m", "lab:mystery", "-a", "lab:mystery", "-u")
    assert "cost unknown" in ran.err
    mixed = moa.run("ask", "hi", "-m", "lab:mystery", "-u")
    assert "$0.012 + ?" in mixed.err
    usage = told(moa.run("ask", "hi", "-m", "lab:mystery", "--json"))["usage"]
    assert usage["cost"] is None
    assert usage["known_cost"] == pytest.approx(0.012)
    assert usage["unpriced_calls"] == 1


def test_prices_of_the_settings_come_before_the_lists(moa: Moa, upstream: Upstream) -> None:
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        prices={
            "lab:mystery": {"prompt": 100, "completion": 0},
            "lab:agg": {"prompt": 0, "completion": 0},
        },
    )
    ran = moa.run("ask", "hi", "-m", "lab:mystery", "-u")
    assert "$0.10" in ran.err


@pytest.mark.parametrize(
    ("prices", "complaint"),
    [
        ({"lab:a": 3}, "`prices.lab:a` must be a table"),
        ({"lab:a": {"prompt": 3}}, "`prices.lab:a.completion` is missing"),
        (
            {"lab:a": {"prompt": -3, "completion": 1}},
            "`prices.lab:a.prompt` must be between 0 and 1000000",
        ),
        ({"lab:a": {"input": 3}}, "unknown key `prices.lab:a.input`"),
    ],
)
def test_wrong_prices_are_refused_by_name(moa: Moa, prices: Any, complaint: str) -> None:
    moa.configure(prices=prices)
    ran = moa.run("ask", "hi", "-p", "local", "--dry-run")
    assert ran.code == 2
    assert complaint in ran.err


def test_the_list_of_prices_is_read_once_a_day_and_kept_with_its_date(
    moa: Moa, upstream: Upstream
) -> None:
    moa.run("ask", "hi")
    moa.run("ask", "hi")
    assert lists(upstream) == 1
    (kept,) = (moa.state.parent / "cache" / "prices").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    table = json.loads(kept.read_text())
    table["as_of"] -= 25 * 3600
    kept.write_text(json.dumps(table))
    assert "$0.017" in moa.run("ask", "hi", "-u").err
    assert lists(upstream) == 2
    kept.write_text("no list")
    assert "$0.017" in moa.run("ask", "hi", "-u").err


def test_a_provider_without_a_list_costs_no_time_and_no_reply(tmp_path: Path) -> None:
    with Upstream(api_key="another") as strict:
        ran = Moa(tmp_path, strict.url).run("ask", "hi", "-u")
    assert ran.code == 76
    assert "Traceback" not in ran.err


def test_the_embedded_models_calls_are_free_in_the_estimate(moa: Moa) -> None:
    ran = moa.run("ask", "-p", "local", "--estimate", "hi")
    assert (ran.code, ran.err) == (0, "")
    assert ran.text.splitlines()[-1].endswith(", $0")


def test_an_estimate_is_told_by_layer_and_sends_no_prompt(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "--estimate", "hello there", "-r", "2")
    assert ran.code == 0
    lines = ran.text.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "round 1",
        "round 2",
        "aggregator",
        "in all",
    ]
    assert "5 calls" in lines[3]
    assert lines[4].startswith("(prices as listed on 20")
    assert upstream.chats() == []
    values = told(moa.run("ask", "--estimate", "--json", "hello there", "-r", "2"))
    assert [value["calls"] for value in values["layers"]] == [2, 2, 1]
    first, second, last = values["layers"]
    assert first["completion_tokens"] == 200
    # The answers of a layer are prompt tokens of each model of the next.
    assert second["prompt_tokens"] > first["prompt_tokens"] + 2 * 200
    assert last["cost"] == pytest.approx(
        (last["prompt_tokens"] * 10 + last["completion_tokens"] * 20) / 1e6
    )
    assert values["total"]["cost"] == pytest.approx(
        sum(value["cost"] for value in values["layers"])
    )


def test_an_estimate_says_what_it_assumes_and_does_not_know(moa: Moa) -> None:
    moa.profile("open", "mystery")
    ran = moa.run("ask", "-p", "open", "--estimate", "hi")
    assert "(an answer without max_tokens is counted as 1,000 tokens)" in ran.text
    assert "(the price of lab:mystery is unknown)" in ran.text
    assert "about 1,000 out, cost unknown" in ran.text
    values = told(moa.run("ask", "-p", "open", "--estimate", "--json", "hi"))
    assert values["total"]["cost"] is None


def test_a_dry_run_tells_the_estimate_and_asks_nobody(moa: Moa, upstream: Upstream) -> None:
    before = moa.run("ask", "--dry-run", "hi").text
    assert "cost unknown" in before
    assert upstream.requests == []
    moa.run("ask", "hi")
    seen = len(upstream.requests)
    after = moa.run("ask", "--dry-run", "hi").text
    assert "up to $0.00" in after
    assert "3 calls in all: about" in after
    assert len(upstream.requests) == seen


def test_a_cap_stops_before_the_first_layer(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "--max-cost", "0.0001")
    assert (ran.code, ran.out) == (3, b"")
    assert "--max-cost $0.00010 would be exceeded: $0 spent, up to $0.00" in ran.err
    assert upstream.chats() == []


def test_a_turn_that_is_certain_to_break_a_cap_later_tells_that_nothing_is_spent(
    moa: Moa, upstream: Upstream
) -> None:
    # Room for the proposers, but not for the aggregator.
    ran = moa.run("ask", "hi", "--max-cost", "0.002")
    assert (ran.code, upstream.chats()) == (3, [])
    assert "--max-cost $0.0020 would be exceeded: $0 spent, up to $0.00" in ran.err


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_cap_stops_before_the_layer_that_would_break_it(
    moa: Moa, upstream: Upstream, rounds: int
) -> None:
    # Each round takes 0.0046; the aggregator's hundred tokens alone are 0.002.
    limit = str(rounds * 0.0046 + 0.001)
    ran = moa.run("ask", "hi", "-r", str(rounds), "--max-cost", limit)
    assert (ran.code, ran.out) == (3, b"")
    assert [request.model for request in upstream.chats()].count("agg") == 0
    assert len(upstream.chats()) == 2 * rounds
    # What was paid for is shown.
    assert f"── lab:a (round {rounds})" in ran.err
    assert ran.err.count("one two three") == 2
    assert "would be exceeded" in ran.err
    (identity,) = {line.split()[0] for line in moa.run("history", "list").text.splitlines()}
    assert "one two three" in moa.run("history", "show", identity, "--proposals").text


def test_a_cap_reached_is_told_in_the_json_too(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "--max-cost", "0.005", "--json")
    assert ran.code == 3
    turn = told(ran)
    assert turn["error"]["kind"] == "BudgetReached"
    assert (turn["reply"], turn["status"]) == (None, "failed")
    assert [proposal["text"] for proposal in turn["proposals"][0]] == ["one two three"] * 2


def test_a_cap_that_is_not_reached_changes_nothing(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "--max-cost", "1", "--max-total-tokens", "100000")
    assert (ran.code, ran.text) == (0, "one two three\n")


def test_a_cap_on_tokens_needs_no_price(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "-m", "lab:mystery", "--max-total-tokens", "1110")
    assert ran.code == 3
    assert "--max-total-tokens 1,110 tokens would be exceeded: 1,100 tokens spent" in ran.err
    assert [request.model for request in upstream.chats()] == ["mystery"]


def test_a_cap_on_cost_cannot_be_kept_without_a_price(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "hi", "-m", "lab:mystery", "--max-cost", "5")
    assert ran.code == 3
    assert "the price of lab:mystery is unknown" in ran.err
    assert "[prices]" in ran.err
    assert upstream.chats() == []


def test_a_fallback_that_would_break_the_cap_is_not_asked(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", aggregator={"model": "lab:a", "fallbacks": ["lab:agg"]}, max_tokens=100)
    upstream.enqueue("a", Reply(status=400))
    ran = moa.run("ask", "-p", "two", "hi", "--max-cost", "0.001")
    assert ran.code == 3
    assert [request.model for request in upstream.chats()] == ["a"]


@pytest.mark.parametrize("wrong", ["-1", "nan", "much"])
def test_a_cap_is_an_amount(moa: Moa, wrong: str) -> None:
    assert moa.run("ask", "hi", "--max-cost", wrong).code == 2


def budget(moa: Moa, upstream: Upstream, **limits: float) -> None:
    provider = {"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}
    moa.configure(providers=provider, budget=limits)


def test_the_days_budget_counts_all_processes_and_deleted_turns(
    moa: Moa, upstream: Upstream
) -> None:
    budget(moa, upstream, day=2 * WHOLE)
    assert moa.run("ask", "hi").code == 0
    assert moa.run("ask", "hi", "--no-save").code == 0
    moa.run("history", "delete", "--older-than", "0h", "-y")
    asked = len(upstream.chats())
    ran = moa.run("ask", "hi")
    assert ran.code == 3
    assert "budget.day $0.033 would be exceeded: $0.033 spent" in ran.err
    assert len(upstream.chats()) == asked


def test_what_is_not_saved_leaves_no_costs_where_no_budget_needs_them(moa: Moa) -> None:
    moa.run("ask", "hi", "--no-save")
    assert "nothing has been spent yet" in moa.run("history", "stats").err


def test_a_sessions_budget_holds_for_a_chat(moa: Moa, upstream: Upstream) -> None:
    budget(moa, upstream, session=WHOLE + 0.0001)
    ran = moa.run("chat", stdin=b"one\ntwo\n/usage\n")
    assert ran.text.count("one two three") == 1
    assert "budget.session $0.017 would be exceeded: $0.017 spent" in ran.err
    assert len(upstream.chats()) == 3
    assert re.search(r"lab:agg +1 call, 1,000 tokens in, 100 out, \$0\.012", ran.err)
    assert re.search(r"in all +3 calls, 3,000 tokens in, 300 out, \$0\.017", ran.err)


@pytest.mark.parametrize("then", ["/report", "two\n/compact", "/remerge vote\n/report"])
def test_the_costs_of_another_reply_are_counted_once(
    moa: Moa, upstream: Upstream, then: str
) -> None:
    moa.run("chat", stdin=f"one\n/remerge\n{then}\n".encode())
    [row] = json.loads(moa.run("history", "list", "--json").text)
    assert row["usage"]["calls"] == len(upstream.chats())
    assert row["usage"]["known_cost"] == pytest.approx(sum(spent_today(moa).values()))


def test_usage_as_json_in_a_chat(moa: Moa) -> None:
    ran = moa.run("chat", stdin=b"one\n/usage --json\n")
    table = json.loads(ran.err[ran.err.index("{\n") : ran.err.rindex("}") + 1])
    assert table["lab:agg"]["cost"] == pytest.approx(0.012)


def test_statistics_by_month_and_model_outlive_their_conversations(moa: Moa) -> None:
    moa.run("ask", "hi")
    moa.run("ask", "ho")
    assert spent_today(moa) == pytest.approx({model: 2 * cost for model, cost in COST.items()})
    moa.run("history", "delete", "--older-than", "0h", "-y")
    table = moa.run("history", "stats").text
    assert re.search(r"lab:a +2 +2 +2,000 +200 +\$0\.0024", table)
    assert re.search(r"in all +2 +6 +6,000 +600 +\$0\.033", table)


def test_the_costs_of_a_fork_are_counted_once(moa: Moa) -> None:
    moa.run("chat", stdin=b"one\n/fork\n")
    assert spent_today(moa) == pytest.approx(COST)


def test_the_books_are_right_after_a_kill(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["x "] * 9, stall_after=3))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: any(request.sent == 3 for request in upstream.chats("agg")))
        process.kill()
        process.wait()
    # What had ended is written down as it was told; the call in flight with an answer as long
    # as it could become, since nobody knows how far it came.
    spent = spent_today(moa)
    assert spent.pop("lab:agg") >= 100 * 20 / 1e6
    assert spent == pytest.approx({k: v for k, v in COST.items() if k != "lab:agg"})
    assert spent_today(moa).keys() == COST.keys()


def test_an_interrupted_turn_is_charged_for_the_calls_that_were_cut_off(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(chunks=["x "] * 9, stall_after=3))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: any(request.sent == 3 for request in upstream.chats("agg")))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    values = told(moa.run("history", "stats", "--json"))
    (cut_off,) = [model for model in values["models"] if model["model"] == "lab:agg"]
    assert (cut_off["calls"], cut_off["estimated_calls"]) == (1, 1)
    assert cut_off["known_cost"] > 0


def test_statistics_tell_no_sum_that_is_not_kept(moa: Moa) -> None:
    moa.run("ask", "hi")
    for model in told(moa.run("history", "stats", "--json"))["models"]:
        assert (model["prompt_tokens"], model["total_tokens"]) == (1000, 1100)
        unknown = {name for name, value in model.items() if value is None}
        assert unknown == {
            "reasoning_tokens",
            "cached_tokens",
            "estimated_prompt_tokens",
            "estimated_completion_tokens",
        }


def test_the_list_tells_what_each_conversation_cost(moa: Moa) -> None:
    moa.run("ask", "one")
    moa.run("ask", "-c", "two")
    moa.run("ask", "-m", "lab:mystery", "-a", "lab:mystery", "three")
    moa.run("ask", "-m", "lab:mystery", "four")
    lines = moa.run("history", "list").text.splitlines()
    costs = [re.split(r"  +", line)[4] for line in lines]
    assert costs == ["$0.012 + ?", "?", "$0.033"]
    rows = json.loads(moa.run("history", "list", "--json").text)
    assert [row["usage"]["cost"] for row in rows[:2]] == [None, None]
    assert rows[2]["usage"]["cost"] == pytest.approx(2 * WHOLE)
    assert rows[2]["usage"]["calls"] == 6


def test_the_list_counts_the_proposals_of_a_turn_that_was_killed(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
        process.kill()
        process.wait()
    (row,) = json.loads(moa.run("history", "list", "--json").text)
    assert (row["usage"]["calls"], row["usage"]["estimated_calls"]) == (3, 1)
    known = COST["lab:a"] + COST["lab:b"]
    # A hundred tokens of the aggregator's are 0.002.
    assert known + 0.002 < row["usage"]["cost"] < known + 0.004
    assert "~$0.00" in moa.run("history", "list").text


def test_a_store_of_the_first_version_is_brought_up_to_date(moa: Moa) -> None:
    moa.run("ask", "what was kept?")
    path = moa.run("history", "path").text.strip()
    with closing(sqlite3.connect(path)) as database, database:
        younger = ("contenders", "comparisons", "spending", "days", "reserved", "booked")
        for table in (*younger, "tags", "unfinished"):
            database.execute(f"DROP TABLE {table}")
        database.execute("ALTER TABLE turns DROP COLUMN lease")
        for table, column in (("turns", "rest"), ("proposals", "proposal")):
            database.execute(
                f"UPDATE {table} SET {column} = "
                f"replace({column}, '\"estimated_calls\": ', '\"unknown_calls\": ')"
            )
        database.execute("PRAGMA user_version = 1")
    database.close()
    ran = moa.run("ask", "-c", "more")
    assert ran.code == 0
    assert (
        "what was kept?"
        in moa.run("history", "search", "kept").text + moa.run("history", "list").text
    )


def test_a_price_told_by_the_endpoint_itself_is_believed(moa: Moa, upstream: Upstream) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.5}
    chunk = {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage}
    upstream.always("agg", Reply(events=[chunk, "[DONE]"]))
    assert "$0.50" in moa.run("ask", "-r", "0", "hi", "-u").err


def test_processes_at_once_do_not_spend_more_than_the_days_budget(
    moa: Moa, upstream: Upstream
) -> None:
    # A turn may take 0.0041, and takes 0.0027.
    budget(moa, upstream, day=0.0045)
    upstream.always("*", Reply(text="one two three", usage=(10, 100), delay=0.5))
    with ExitStack() as stack:
        running = [stack.enter_context(moa.start("ask", "hi")) for _ in range(6)]
        codes = [process.wait(60) for process in running]
    assert set(codes) <= {0, 3}
    assert codes.count(0) == 1
    assert sum(spent_today(moa).values()) <= 0.0045


def test_what_is_certain_to_break_a_cap_is_known_before_anything_is_paid(
    moa: Moa, upstream: Upstream
) -> None:
    # The aggregator's hundred tokens alone are 0.002.
    ran = moa.run("ask", "hi", "--max-cost", "0.0019")
    assert ran.code == 3
    unknown = moa.run("ask", "hi", "-a", "lab:mystery", "--max-cost", "1")
    assert unknown.code == 3
    assert "the price of lab:mystery is unknown" in unknown.err
    assert upstream.chats() == []


def test_under_a_cap_no_answer_may_be_endless(moa: Moa, upstream: Upstream) -> None:
    moa.profile("open", "a", "b")
    assert moa.run("ask", "-p", "open", "hi", "--max-total-tokens", "9000").code == 0
    limits = {request.model: request.body["max_tokens"] for request in upstream.chats()}
    assert all(1000 < limit < 9000 for limit in limits.values())
    assert limits["a"] + limits["b"] < 9000
    assert moa.run("ask", "-p", "open", "hi", "--max-cost", "50").code == 0
    assert all("max_tokens" not in request.body for request in upstream.chats()[3:])


def test_a_key_that_is_refused_is_told_where_a_cap_needs_the_prices(tmp_path: Path) -> None:
    with Upstream(api_key="another") as strict:
        ran = Moa(tmp_path, strict.url).run("ask", "hi", "--max-cost", "1")
    assert ran.code == 3
    assert (
        "the prices of lab:a, lab:b, lab:c, lab:agg are unknown (lab refused the API key" in ran.err
    )


@pytest.mark.parametrize(
    "kept",
    [
        '{"as_of": 1, "models": ["a"]}',
        '{"as_of": NaN, "models": []}',
        '{"as_of": 1e18, "models": []}',
        '{"as_of": 1e9, "models": [{"id": "a", "context_length": "8k", "price": null}]}',
        '{"as_of": 1e9, "models": [{"id": "a", "context_length": 1,'
        ' "price": {"prompt": -1, "completion": 1}}]}',
        "[" * 100_000,
    ],
)
def test_a_list_of_prices_that_is_none_is_read_again(moa: Moa, kept: str) -> None:
    moa.run("ask", "hi")
    (file,) = (moa.state.parent / "cache" / "prices").iterdir()
    file.write_text(kept)
    ran = moa.run("ask", "hi", "-u")
    assert (ran.code, ran.text) == (0, "one two three\n")
    assert "$0.017" in ran.err


def test_calls_that_waited_for_others_are_not_charged(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(chunks=["x "] * 9, stall_after=3))
    moa.profile("many", {"model": "lab:a", "samples": 5}, max_tokens=100)
    with moa.start("ask", "-p", "many", "hi", "--concurrency", "1", "--json") as process:
        upstream.wait_for(lambda: any(request.sent == 3 for request in upstream.chats()))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    turn = json.loads(out)
    assert process.returncode == 130
    assert (turn["status"], turn["usage"]["calls"]) == ("interrupted", 1)
    assert spent_today(moa).keys() == {"lab:a"}


def test_an_answer_with_an_unreadable_count_is_estimated(moa: Moa, upstream: Upstream) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    chunk = {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage}
    upstream.always("agg", Reply(events=[chunk, "[DONE]"]))
    ran = moa.run("ask", "-r", "0", "hi", "-u")
    assert re.search(r"1 call, ~\d+ tokens in, ~1 out, ~\$0\.000", ran.err)


def test_a_killed_turn_shows_what_its_proposals_took(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
        process.kill()
        process.wait()
    (turn,) = told(moa.run("history", "show", "--json"))["turns"]
    assert turn["status"] == "interrupted"
    assert turn["usage"]["cost"] > COST["lab:a"] + COST["lab:b"] + 0.002
    assert {call["model"] for call in turn["ledger"]} == {"lab:a", "lab:b", "lab:agg"}
    assert sum(row["usage"]["estimated_calls"] for row in turn["ledger"]) == 1


def test_a_slow_list_of_prices_does_not_hold_up_the_answer(moa: Moa, upstream: Upstream) -> None:
    """Told by the order of things: the aggregator is asked while the list is still to come."""
    upstream.models_reply = Reply(error={"data": LISTED}, delay=30)
    ran = moa.run("ask", "hi", "-u")
    assert (ran.code, ran.text) == (0, "one two three\n")
    assert "cost unknown" in ran.err

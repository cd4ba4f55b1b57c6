"""Numbers that can be no count and no amount enter nowhere, wherever they come from."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

# As JSON, in Python's way of writing it: most readers take these.
ABSURD = ["NaN", "Infinity", "1e308", "-1", "true", "9" * 400]
FEW = ["NaN", "1e308", "-1"]
LISTED: list[dict[str, object]] = [
    {"id": name, "pricing": {"input": 1.0, "output": 2.0}} for name in ("a", "b", "agg")
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(models=LISTED) as running:
        running.always("*", Reply(text="one two three", usage=(10, 3)))
        yield running


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    machine = Moa(tmp_path, upstream.url)
    machine.profile("lab", max_tokens=100)
    assert machine.run("ask", "--estimate", "hi").code == 0
    return machine


def database(moa: Moa) -> sqlite3.Connection:
    return sqlite3.connect(moa.run("history", "path").text.strip())


def with_cost(text: str, value: str) -> str:
    """JSON with another value for the first cost in it."""
    changed, times = re.subn(r'"cost": ?[^,}]+', f'"cost": {value}', text, count=1)
    assert times == 1
    return changed


def row(moa: Moa) -> dict[str, Any]:
    (found,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    result: dict[str, Any] = found
    return result


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("completion_tokens", value) for value in ABSURD),
        *(("prompt_tokens", value) for value in FEW),
        *(("cost", value) for value in ABSURD),
    ],
)
def test_an_endpoint_that_tells_what_can_be_no_count(
    moa: Moa, upstream: Upstream, key: str, value: str
) -> None:
    usage = '{"prompt_tokens": 10, "completion_tokens": 3, "%s": %s}' % (key, value)  # noqa: UP031
    choice = '{"delta": {"content": "one two three"}, "finish_reason": "stop"}'
    event = f'data: {{"choices": [{choice}], "usage": {usage}}}\n\ndata: [DONE]\n\n'
    upstream.always("agg", Reply(raw=event.encode()))
    assert moa.run("ask", "hi", "--max-cost", "1").code == 0
    found = row(moa)
    assert 0 < found["prompt_tokens"] < 30
    assert 0 < found["completion_tokens"] < 10
    assert found["estimated_calls"] == (0 if key == "cost" else 1)
    assert found["cost"] == pytest.approx(
        (found["prompt_tokens"] + 2 * found["completion_tokens"]) / 1e6
    )
    # All the tables can be read by any reader of JSON.
    for command in (["history", "list", "--json"], ["history", "show", "--json"]):
        json.loads(moa.run(*command).text, parse_constant=pytest.fail)


@pytest.mark.parametrize("value", FEW)
@pytest.mark.parametrize("kept", [False, True], ids=["live", "from the cache"])
def test_a_list_of_prices_that_tells_what_can_be_no_price(
    moa: Moa, upstream: Upstream, value: str, kept: bool
) -> None:
    (file,) = (moa.state.parent / "cache" / "prices").iterdir()
    if kept:
        table = json.loads(file.read_text())
        for model in table["models"]:
            model["price"]["completion"] = "ABSURD"
        file.write_text(json.dumps(table).replace('"ABSURD"', value))
        upstream.models_reply = Reply(status=500)
    else:
        file.unlink()
        listed = json.dumps({"data": [{"id": "agg", "pricing": {"input": 1, "output": "X"}}]})
        upstream.models_reply = Reply(error=json.loads(listed.replace('"X"', value)))
    ran = moa.run("ask", "hi", "--max-cost", "1")
    assert ran.code == 3
    assert "the price of lab:agg is unknown" in ran.err
    assert "nan" not in ran.err.lower()


@pytest.mark.parametrize("fee", ["-1", "nan", "abc"])
def test_a_list_that_tells_no_readable_fee_for_a_request_tells_no_price(
    moa: Moa, upstream: Upstream, fee: str
) -> None:
    (file,) = (moa.state.parent / "cache" / "prices").iterdir()
    file.unlink()
    pricing = {"prompt": "0.000001", "completion": "0.000002", "request": fee}
    upstream.models_reply = Reply(error={"data": [{"id": "agg", "pricing": pricing}]})
    ran = moa.run("ask", "hi", "--max-cost", "1")
    assert ran.code == 3
    assert "the price of lab:agg is unknown" in ran.err


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        *((["ask", "hi"], value) for value in ("nan", "inf", "-inf", "1e308", "-1", "1e10")),
        *((["chat"], value) for value in ("nan", "inf")),
        *((["serve"], value) for value in ("nan", "inf")),
        *((["batch", "in.txt", "out.jsonl"], value) for value in ("nan", "inf")),
        *((["compare", "hi"], value) for value in ("nan", "inf")),
        *((["bench", "run", "in.jsonl"], value) for value in ("nan", "inf")),
    ],
)
def test_a_cap_that_would_be_none(moa: Moa, value: str, arguments: list[str]) -> None:
    ran = moa.run(*arguments, f"--max-cost={value}")
    assert ran.code == 2
    assert "--max-cost" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("day", value) for value in ("nan", "inf", "1e308", "-1", "true", '"1"', "9" * 400)),
        *(("session", value) for value in ("nan", "1e308")),
    ],
)
def test_a_budget_that_would_be_none(moa: Moa, upstream: Upstream, key: str, value: str) -> None:
    file = moa.config / "config.toml"
    file.write_text(f"{file.read_text()}\n[budget]\n{key} = {value}\n")
    ran = moa.run("ask", "hi")
    assert ran.code == 2
    assert f"`budget.{key}`" in ran.err or "not valid TOML" in ran.err
    assert upstream.chats() == []


def test_a_number_of_tokens_beyond_all(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "--max-total-tokens", "9" * 30)
    assert ran.code == 2
    assert "--max-total-tokens" in ran.err


@pytest.mark.parametrize(
    ("key", "value"),
    [*(("cost", value) for value in ABSURD), *(("prompt_tokens", value) for value in FEW)],
)
def test_an_import_that_tells_what_cannot_be(moa: Moa, key: str, value: str) -> None:
    moa.run("ask", "hi")
    moa.run("history", "export", "--all", "-o", "all.json")
    exported = json.loads((moa.folder / "all.json").read_text())
    exported["conversations"][0]["turns"][0]["usage"][key] = "ABSURD"
    text = json.dumps(exported).replace('"ABSURD"', value)
    (moa.folder / "bad.json").write_text(text)
    moa.run("history", "delete", "--all", "--yes")
    ran = moa.run("history", "import", "bad.json")
    assert "bad.json" in ran.err or "1 number out of bounds" in ran.err
    assert "Traceback" not in ran.err
    # Refused, or taken without that number, which is told.
    rows = json.loads(moa.run("history", "list", "--json").text or "[]", parse_constant=pytest.fail)
    assert ran.code == 1 or len(rows) == 1
    for each_row in rows:
        assert all(0 <= count < 1000 for count in each_row["usage"].values() if count is not None)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", '"much"'])
def test_a_kept_usage_that_cannot_be_spoils_no_list(moa: Moa, value: str) -> None:
    moa.run("ask", "first")
    moa.run("ask", "second")
    connection = database(moa)
    (rest,) = connection.execute("SELECT rest FROM turns WHERE id = 1").fetchone()
    connection.execute("UPDATE turns SET rest = ? WHERE id = 1", (with_cost(rest, value),))
    connection.execute(
        "INSERT INTO spending VALUES ('2026-01-01', 'lab:x', 1, 1, 1, 1, 0, 0, 9e999)"
    )
    connection.commit()
    connection.close()
    ran = moa.run("history", "list", "--json")
    assert ran.code == 0
    newer, older = json.loads(ran.text, parse_constant=pytest.fail)
    assert newer["usage"]["cost"] > 0
    assert (older["usage"]["cost"], older["usage"]["unpriced_calls"]) == (None, 1)
    stats = moa.run("history", "stats", "--json")
    assert "1 row of the ledger with invalid values left out" in stats.err
    json.loads(stats.text, parse_constant=pytest.fail)


def test_a_journal_of_a_batch_that_tells_what_cannot_be_is_damaged(
    moa: Moa, upstream: Upstream
) -> None:
    (moa.folder / "in.txt").write_text("one\ntwo\n")
    upstream.enqueue("agg", Reply(text="fine", usage=(10, 3)))
    upstream.always("agg", Reply(status=400))
    moa.run("batch", "in.txt", "out.jsonl")
    journal = moa.folder / "out.jsonl.state" / "calls.jsonl"
    text = journal.read_text()
    assert '"cost": ' in text
    journal.write_text(with_cost(text, "NaN"))
    ran = moa.run("batch", "in.txt", "out.jsonl", "--max-cost", "1")
    assert ran.code == 1
    assert "is damaged" in ran.err

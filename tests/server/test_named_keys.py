"""Keys with names: their budgets, limits and profiles."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.test_tool_loops import messages
from tests.support.command import PATIENCE, Moa
from tests.support.server import QUESTION, Server, serving
from tests.support.tool_calls import TOOLS, calling
from tests.support.upstream import Reply, Upstream

LAB, TEAM, PLAIN = "sk-lab-0123456789", "sk-team-0123456789", "sk-plain-0123456789"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def keyed(moa: Moa, upstream: Upstream, keys: dict[str, Any], **settings: Any) -> None:
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        server={"keys": keys},
        **settings,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"lab: {LAB}\n{PLAIN}\n")
    return path


def test_names_are_in_the_log_and_in_figures_and_keys_are_not(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    (moa.config / "team").write_text(f"# of the team\n{TEAM}\n")
    keyed(moa, upstream, {"env": {"key_env": "ENV_KEY"}, "team": {"key_file": "team"}})
    given = ("--api-key-file", str(file), "--log-format", "json")
    with serving(moa, *given, env={"ENV_KEY": "sk-env-0123456789"}) as server:
        keys = {LAB: "lab", TEAM: "team", "sk-env-0123456789": "env", PLAIN: None}
        for key in keys:
            assert server.ask(headers=bearer(key)).status_code == 200
        figures = server.get("/metrics", headers=bearer(PLAIN)).text
        assert server.end() == 0
        rows = [json.loads(line) for line in server.log]
    answered = [row.get("key") for row in rows if row.get("path") == "/v1/chat/completions"]
    assert answered == list(keys.values())
    assert 'moa_key_turns_total{key="lab",status="finished"} 1.0' in figures
    assert not any(key in "\n".join(server.log) + figures for key in keys)


def test_figures_of_all_clients_are_not_for_named_keys(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    file.write_text(f"lab: {LAB}\nteam: {TEAM}\nbare: {PLAIN}-2\n{PLAIN}\n")
    keyed(moa, upstream, {"lab": {"rpm": 50}, "team": {"metrics": True}})
    with serving(moa, "--api-key-file", str(file)) as server:
        # A name without a table is a client, too.
        for key, name in ((LAB, "lab"), (f"{PLAIN}-2", "bare")):
            refused = server.get("/metrics", headers=bearer(key))
            assert refused.status_code == 403
            error = refused.json()["error"]
            assert (error["type"], error["code"]) == ("permission_error", "metrics_not_allowed")
            assert f"`{name}`" in error["message"]
            assert f"server.keys.{name}.metrics" in error["message"]
            assert "moa_" not in refused.text
            assert server.ask(headers=bearer(key)).status_code == 200
        for key in (TEAM, PLAIN):
            assert "moa_turns_total" in server.get("/metrics", headers=bearer(key)).text
        assert server.get("/metrics").status_code == 401
        keyed(moa, upstream, {"lab": {"metrics": True}, "team": {"metrics": False}})
        server.wait_for_log("reloaded: the settings")
        assert server.get("/metrics", headers=bearer(LAB)).status_code == 200
        assert server.get("/metrics", headers=bearer(TEAM)).status_code == 403


def test_a_budget_holds_over_turns_side_by_side_and_over_a_restart(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    # A turn takes $0.20.
    prices = {"lab:agg": {"prompt": 0, "completion": 1e5}}
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="two words", delay=0.3))
    keyed(moa, upstream, {"lab": {"budget": 1.1}}, prices=prices)

    def ask(server: Server, key: str = LAB) -> httpx.Response:
        body = {"model": "moa", "messages": QUESTION, "max_tokens": 2}
        url = f"{server.url}/chat/completions"
        return httpx.post(url, json=body, headers=bearer(key), timeout=PATIENCE)

    with serving(moa, "--api-key-file", str(file)) as server:
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: ask(server), range(64)))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 5, 402: 59}
        refused = next(answer for answer in answers if answer.status_code == 402)
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "budget_reached")
        assert "server.keys.lab.budget $1.10 would be exceeded" in error["message"]
        assert refused.headers["x-should-retry"] == "false"
        # Another key is not touched by it.
        assert ask(server, PLAIN).status_code == 200
        figures = server.get("/metrics", headers=bearer(PLAIN)).text
        assert 'moa_key_cost_usd_total{key="lab"} 1.0' in figures
        assert server.end() == 0
    [kept] = moa.config.parent.rglob("*.db")
    with closing(sqlite3.connect(kept)) as database, database:
        assert database.execute("SELECT key, cost FROM key_spending").fetchall() == [
            ("lab", pytest.approx(1.0))
        ]
        assert database.execute("SELECT total(cost) FROM spending").fetchall() == [
            (pytest.approx(1.2),)
        ]
        assert database.execute("SELECT count(*) FROM reserved").fetchall() == [(0,)]
    with serving(moa, "--api-key-file", str(file)) as server:
        assert ask(server).status_code == 402
        keyed(moa, upstream, {"lab": {"budget": 1.3}}, prices=prices)
        server.wait_for_log("reloaded: the settings, the keys of clients")
        assert ask(server).status_code == 200
        assert ask(server).status_code == 402


def test_a_named_key_is_not_told_what_others_have_spent(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    prices = {"lab:agg": {"prompt": 0, "completion": 1e5}}
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="two words"))
    keyed(moa, upstream, {}, prices=prices, budget={"session": 0.5})
    with serving(moa, "--api-key-file", str(file)) as server:
        for _ in range(2):
            assert server.ask(headers=bearer(PLAIN), max_tokens=2).status_code == 200
        refused = server.ask(headers=bearer(LAB), max_tokens=2)
        assert refused.status_code == 402
        told = refused.json()["error"]["message"]
        assert "budget.session $0.50 leaves no room for up to $0.20 more" in told
        assert "0.40" not in told
        assert "$0.40 spent" in server.ask(headers=bearer(PLAIN), max_tokens=2).text


def test_calls_of_a_server_that_is_killed_count_for_their_key(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    prices = {"lab:agg": {"prompt": 0, "completion": 1e5}}
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="two words", stall_after=1))
    keyed(moa, upstream, {"lab": {"budget": 0.3}}, prices=prices)
    with (
        serving(moa, "--api-key-file", str(file), key=LAB) as server,
        server.streaming(max_tokens=2) as response,
    ):
        # Held: one that nothing refers to closes the stream, and with it the call.
        lines = response.iter_lines()
        next(line for line in lines if '"two "' in line)
        server.process.kill()
        server.process.wait()
    with serving(moa, "--api-key-file", str(file), key=LAB) as server:
        refused = server.ask(max_tokens=2)
        assert refused.status_code == 402
        assert "$0.20 spent today" in refused.json()["error"]["message"]


def test_limits_of_a_key_are_429_with_its_name_and_a_time(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    keyed(moa, upstream, {"lab": {"rpm": 2}, "team": {"key_file": "team", "concurrency": 1}})
    (moa.config / "team").write_text(TEAM)
    with serving(moa, "--api-key-file", str(file)) as server:
        # A request that begins no turn does not count.
        for _ in range(3):
            assert server.ask(headers=bearer(LAB), model="none").status_code == 404
        statuses = [server.ask(headers=bearer(LAB)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = server.ask(headers=bearer(LAB))
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "key_limit_exceeded")
        assert "`lab` may have 2 turns in any minute (server.keys.lab.rpm)" in error["message"]
        # Lists and figures are no turns.
        assert server.get("/v1/models", headers=bearer(LAB)).status_code == 200
        upstream.always("agg", Reply(text="one two", stall_after=1))
        body = {"model": "moa", "messages": QUESTION, "stream": True}
        url = f"{server.url}/chat/completions"
        with httpx.stream("POST", url, json=body, headers=bearer(TEAM), timeout=PATIENCE) as first:
            # Held: one that nothing refers to closes the stream.
            lines = first.iter_lines()
            next(lines)
            refused = server.ask(headers=bearer(TEAM))
            assert refused.status_code == 429
            assert "1 turn at the same time" in refused.json()["error"]["message"]
        upstream.always("agg", Reply())
        upstream.wait_for(lambda: server.ask(headers=bearer(TEAM)).status_code == 200)
        keyed(moa, upstream, {"lab": {"rpm": 9}})
        server.wait_for_log("reloaded: the settings, the keys of clients")
        assert server.ask(headers=bearer(LAB)).status_code == 200
        assert server.ask(headers=bearer(TEAM)).status_code == 401


def test_a_key_may_be_for_some_profiles_only(moa: Moa, upstream: Upstream, file: Path) -> None:
    moa.profile("other", "x", aggregator="y")
    keyed(moa, upstream, {"lab": {"profiles": ["other"]}})
    with serving(moa, "--api-key-file", str(file)) as server:
        listed = server.get("/v1/models", headers=bearer(LAB)).json()["data"]
        assert [row["id"] for row in listed] == ["other", "other:solo"]
        assert server.get("/v1/models/other", headers=bearer(LAB)).status_code == 200
        assert server.get("/v1/models/moa", headers=bearer(LAB)).status_code == 404
        described = server.get("/openapi.json", headers=bearer(LAB)).text
        assert '"lab"' not in described
        for model in ("other", "other:solo"):
            assert server.ask(headers=bearer(LAB), model=model).status_code == 200
        for model in ("moa", "moa:solo", "lab", "none"):
            refused = server.ask(headers=bearer(LAB), model=model)
            assert refused.status_code == 404
            assert refused.json()["error"]["code"] == "model_not_found"
        own = {"proposers": ["lab:y"], "aggregator": "lab:x"}
        assert server.ask(headers=bearer(LAB), model="other", moa=own).status_code == 200
        for fields in ({"aggregator": "lab:agg"}, {"proposers": ["lab:a"]}):
            refused = server.ask(headers=bearer(LAB), model="other", moa=fields)
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "model_not_allowed"
        assert server.ask(headers=bearer(PLAIN), moa={"aggregator": "lab:q"}).status_code == 200


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"lab": {"key_env": "NOT_SET"}}, "the variable NOT_SET is not set"),
        ({"lab": {"key_env": LAB}}, "is not the name of a variable"),
        ({"lab": {"key_file": "none"}}, "server.keys.lab.key_file"),
        ({"lab": {"budget": 1.0}}, "`server.keys.lab`: there is no key of that name"),
        ({"lab": {"key_env": "LAB_KEY"}, "b": {"key_env": "LAB_KEY"}}, "have the same key"),
        ({"a b": {"key_env": "LAB_KEY"}}, "cannot be the name of a key"),
        ({"lab": {"key": LAB}}, "unknown key `server.keys.lab.key`"),
        ({"lab": {"key_env": "LAB_KEY", "profiles": []}}, "profiles` must not be empty"),
    ],
)
def test_what_is_wrong_with_named_keys_is_one_line(
    moa: Moa, upstream: Upstream, keys: dict[str, Any], told: str
) -> None:
    keyed(moa, upstream, keys)
    ran = moa.run("serve", "--port", "0")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    assert told in ran.err
    assert LAB not in ran.err


def test_the_env_file_of_a_project_lets_nobody_in(moa: Moa, upstream: Upstream) -> None:
    keyed(moa, upstream, {"lab": {"key_env": "ENV_KEY"}})
    (moa.folder / ".env").write_text(f"ENV_KEY={TEAM}\n")
    assert moa.run("serve", "--port", "0").code == 2
    (moa.config / ".env").write_text(f"ENV_KEY={LAB}\n")
    with serving(moa, key=LAB) as server:
        assert server.ask().status_code == 200
        assert server.ask(headers=bearer(TEAM)).status_code == 401


def test_proposals_that_one_key_paid_for_serve_no_other(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    file.write_text(f"lab: {LAB}\nlab: {LAB}-2\nteam: {TEAM}\n{PLAIN}\n{PLAIN}-2\n")
    moa.profile("lab", "a", "b")
    upstream.always("agg", calling("read"))
    keyed(moa, upstream, {})
    with serving(moa, "--api-key-file", str(file)) as server:

        def reused(key: str, steps: int) -> bool:
            answer = server.ask(headers=bearer(key), messages=messages(steps), tools=TOOLS)
            return "fan_out" in answer.json()["moa"]

        # Nor do those of one key without a name serve another; keys of one name are one client's.
        for asked, key in enumerate((LAB, TEAM, PLAIN, f"{PLAIN}-2"), 1):
            assert not reused(key, 1)
            assert reused(key, 2)
            assert len(upstream.chats("a")) == asked
        assert reused(f"{LAB}-2", 3)


def test_two_keys_that_ask_the_same_at_once_share_no_fan_out(
    moa: Moa, upstream: Upstream, file: Path
) -> None:
    moa.profile("lab", "a", "b")
    all_asked = threading.Event()
    upstream.always("a", Reply(text="one", after=all_asked))
    upstream.always("agg", calling("read"))
    keyed(moa, upstream, {})
    with serving(moa, "--api-key-file", str(file)) as server:
        body = {"model": "moa", "messages": messages(1), "tools": TOOLS}

        def ask(key: str) -> httpx.Response:
            url = f"{server.url}/chat/completions"
            return httpx.post(url, json=body, headers=bearer(key), timeout=PATIENCE)

        def in_flight() -> bool:
            figures = server.get("/metrics", headers=bearer(PLAIN)).text
            return "\nmoa_turns_in_flight 4.0\n" in figures and len(upstream.chats("a")) == 2

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, key) for key in (LAB, LAB, PLAIN, PLAIN)]
            upstream.wait_for(in_flight)
            all_asked.set()
            answers = [asked.result() for asked in asking]
    calls = sorted(answer.json()["moa"]["calls"] for answer in answers)
    assert calls == [1, 1, 3, 3]
    assert len(upstream.chats("a")) == 2

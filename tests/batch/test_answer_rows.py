"""`answer_rows`: the rows of a table, as Ray Data hands them over, in this process."""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from moa_cli.batch import answer_rows
from moa_cli.core.errors import UsageError
from tests.support.bench.own_runs import ANSWER
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

BUSY = Reply(status=400, error={"error": {"message": "out of order"}})


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Moa:
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.configure(profile="one", providers=moa.settings()["providers"])
    for name, value in moa.environment.items():
        monkeypatch.setenv(name, value)
    return moa


class Column(list[Any]):
    """A column as numpy has it."""

    def tolist(self) -> list[Any]:
        return list(self)


@pytest.mark.parametrize("shape", ["columns", "rows"])
def test_rows_get_the_columns_of_a_batch(moa: Moa, upstream: Upstream, shape: str) -> None:
    table: Any = {"id": Column(["x", "y"]), "text": Column(["one", "two"])}
    if shape == "rows":
        table = [{"id": "x", "text": "one"}, {"id": "y", "text": "two"}]
    found = answer_rows(table, prompt="text", profile="one", processes=2)
    assert found["id"] == ["x", "y"]
    assert found["text"] == ["one", "two"]
    assert all(reply.startswith("agg says ") for reply in found["reply"])
    assert [json.loads(usage)["calls"] for usage in found["usage"]] == [2, 2]
    asked = {request.messages[-1]["content"] for request in upstream.chats("a")}
    assert asked == {"one", "two"}


def test_a_failed_row_tells_why_and_keeps_its_place(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", lambda request: BUSY if "bad" in str(request.messages) else ANSWER)
    found = answer_rows({"prompt": ["good", "bad"]})
    assert found["reply"][0]
    assert found["reply"][1] is None
    assert found["error"][0] is None
    assert "out of order" in json.loads(found["error"][1])["message"]
    # Nothing is stored.
    assert moa.run("history", "list").out == b""
    assert not any(moa.folder.rglob("*.db"))


def test_a_row_has_a_prompt_or_messages(moa: Moa, upstream: Upstream) -> None:
    messages = [{"role": "user", "content": "two"}]
    answer_rows({"text": ["one", None], "messages": [None, messages]}, prompt="text")
    answer_rows({"prompt": ["one", math.nan], "messages": [None, messages]})
    assert {request.messages[-1]["content"] for request in upstream.chats("a")} == {"one", "two"}


def test_values_that_json_lacks_stay_what_they_are(moa: Moa) -> None:
    when, raw = datetime(2026, 1, 1, tzinfo=UTC), b"\xff"
    nested = {"when": when, "numbers": Column([1, 2])}
    table = {"prompt": ["one"], "when": [when], "raw": [raw], "nested": [nested], "x": [math.nan]}
    found = answer_rows(table)
    assert (found["when"], found["raw"]) == ([when], [raw])
    assert json.loads(found["nested"][0]) == {"when": str(when), "numbers": [1, 2]}
    assert math.isnan(found["x"][0])


def test_no_rows_and_rows_without_a_prompt(moa: Moa, upstream: Upstream) -> None:
    assert answer_rows({"prompt": []}) == {}
    with pytest.raises(UsageError, match="row 1 has no column `prompt`"):
        answer_rows({"text": ["one"]})
    for missing in (None, math.nan):
        with pytest.raises(UsageError, match="row 2 has nothing in its column `text`"):
            answer_rows({"text": ["one", missing]}, prompt="text")
    moa.configure(profile="one", providers=moa.settings()["providers"], budget={"day": 1})
    with pytest.raises(UsageError, match="keeps no budget"):
        answer_rows({"prompt": ["one"]})
    assert upstream.chats() == []


def test_a_cluster_that_cannot_be(moa: Moa) -> None:
    (moa.folder / "in.txt").write_text("p\n")
    for where in ("spark", "ray:/x", "RAY"):
        ran = moa.run("batch", "in.txt", "out.jsonl", "--on", where)
        assert ran.code == 2
        assert f"--on: `{where}` is no cluster" in ran.err
    ran = moa.run("batch", "in.txt", "out.jsonl", "--workers", "2")
    assert ran.code == 2
    assert "--workers needs --on" in ran.err


def test_without_the_extra_it_tells_how_to_install_it(moa: Moa) -> None:
    (moa.folder / "in.txt").write_text("p\n")
    hidden = moa.folder / "hidden"
    hidden.mkdir()
    for package in ("ray", "fsspec"):
        (hidden / f"{package}.py").write_text("raise ImportError\n")
    env = {"PYTHONPATH": f"{hidden}{os.pathsep}{moa.environment['PYTHONPATH']}"}
    for source, more in (("in.txt", ["--on", "ray"]), ("s3://bucket/in.txt", [])):
        ran = moa.run("batch", source, "out.jsonl", *more, env=env, fresh=True)
        assert ran.code == 2
        [told] = ran.err.splitlines()
        assert "install it with: " in told
        assert "moa-chat[ray]" in told


_FAKE_RAY = """
import json, os, pathlib, types, sys
sys.modules["ray.job_config"] = types.SimpleNamespace(JobConfig=object)
variables = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

def init(address, **options):
    told = {"address": address, "dashboard": options.get("include_dashboard"), **variables}
    pathlib.Path("given.json").write_text(json.dumps(told))
    raise Exception("the node timed out during startup")

def shutdown():
    pass
"""


def test_a_cluster_of_its_own_is_open_to_nobody_else(moa: Moa) -> None:
    (moa.folder / "in.txt").write_text("p\n")
    hidden = moa.folder / "hidden"
    hidden.mkdir()
    (hidden / "ray.py").write_text(_FAKE_RAY)
    shared = moa.folder / "tmp" / "ray"
    shared.mkdir(parents=True)
    env = {
        "PYTHONPATH": f"{hidden}{os.pathsep}{moa.environment['PYTHONPATH']}",
        "RAY_TMPDIR": str(shared.parent),
    }

    def given(**more: str) -> dict[str, Any]:
        ran = moa.run(
            "batch", "in.txt", "out.jsonl", "-y", "--on", "ray", env=env | more, fresh=True
        )
        assert ran.code == 1
        why = "the node timed out during startup"
        assert ran.err.endswith(f"moa: --on ray: the cluster cannot be reached: {why}\n"), ran.err
        told: dict[str, Any] = json.loads((moa.folder / "given.json").read_text())
        return told

    first, second = given(), given()
    for told in (first, second):
        assert (told["address"], told["dashboard"]) == ("local", False)
        # Its processes listen on loopback only.
        assert told["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert told["RAY_AUTH_MODE"] == "token"
    token = first["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    assert token != second["RAY_AUTH_TOKEN"]
    assert "RAY_AUTH_TOKEN" not in given(RAY_AUTH_TOKEN_PATH="/some/token")
    # A cluster of the user that runs on this machine has its own token and addresses.
    current = shared / "ray_current_cluster"
    current.write_text("127.0.0.1:9")
    told = given()
    assert told["address"] is None
    assert not told.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_MODE"}
    if os.getuid() == 0:
        # Another user's cluster would get the keys.
        os.chown(current, 12345, -1)
        assert given()["address"] == "local"

"""`moa batch --on ray`: workers, nodes and the driver are killed, and no row is lost."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

ROWS = 400
ROOM = 12
# Calls of a row: two proposers and the aggregator.
CALLS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    slow = Reply(text=ANSWER.text, delay=0.02)
    upstream.always("*", slow)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("mix", "a", "b")
    moa.configure(profile="mix", providers=moa.settings()["providers"])
    write_lines(
        moa.folder / "in.jsonl", [{"id": f"q{n}", "prompt": f"thing {n}"} for n in range(ROWS)]
    )
    return moa


@pytest.fixture
def cluster(moa: Moa, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of three nodes on this machine, in which a key is known as it is in the shell."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `ray`")
    for name, value in moa.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def lines_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in lines_of(path)]


def workers_of(node: Any) -> list[int]:
    """The processes on that node that answer rows."""
    [raylet] = node.all_processes["raylet"]
    parents, answering = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if b"ray::_Worker" in (entry / "cmdline").read_bytes():
                answering.append(int(entry.name))
        except (OSError, ValueError):
            continue

    def is_below(process: int) -> bool:
        while process in parents and process != raylet.process.pid:
            process = parents[process]
        return bool(process == raylet.process.pid)

    return [process for process in answering if is_below(process)]


def repeated(upstream: Upstream) -> int:
    """Calls that were made again."""
    asked = Counter(json.dumps(request.body, sort_keys=True) for request in upstream.chats())
    return sum(times - 1 for times in asked.values())


def test_workers_a_node_and_the_driver_are_killed(
    moa: Moa, upstream: Upstream, cluster: Any
) -> None:
    whole = moa.run("batch", "in.jsonl", "whole.jsonl", "-y", "--concurrency", str(ROOM))
    assert whole.code == 0, whole.err
    upstream.requests.clear()
    chance = random.Random(17)
    out = moa.folder / "out.jsonl"
    command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", "ray", "--concurrency", str(ROOM))
    env = {"RAY_ADDRESS": cluster.address}

    def wait_for_rows(count: int) -> None:
        upstream.wait_for(lambda: len(lines_of(out)) >= count, 300)

    with moa.start(*command, env=env) as process:
        wait_for_rows(chance.randrange(20, 60))
        # Ray puts a worker on each node as a rule, and sometimes two on one.
        node = next(node for node in cluster.worker_nodes if workers_of(node))
        os.kill(workers_of(node)[0], signal.SIGKILL)
        wait_for_rows(chance.randrange(80, 140))
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = len(lines_of(out))
    assert there < ROWS
    with moa.start(*command, env=env) as process:
        wait_for_rows(there + 40)
        cluster.remove_node(node, allow_graceful=False)
        assert process.wait() == 0
    assert without_seconds(out) == without_seconds(moa.folder / "whole.jsonl")
    # A worker, the driver and a node: what each had in flight.
    assert repeated(upstream) <= CALLS * 3 * ROOM
    assert not (moa.folder / "out.jsonl.state" / "calls.jsonl").exists()


def test_prompts_of_columns_are_answered_several_times(
    moa: Moa, upstream: Upstream, cluster: Any
) -> None:
    (moa.folder / "in.csv").write_text("name,text\nx,one\ny\nz,three\n")
    options = ("--id-field", "name", "--prompt", "Sum up: {text}", "--answers", "2", "--skip-bad")
    assert moa.run("batch", "in.csv", "whole.jsonl", "-y", *options).code == 0
    asked = len(upstream.chats())
    command = ("batch", "in.csv", "out.jsonl", "-y", *options, "--on", "ray", "--shard", "1/1")
    ran = moa.run(*command, env={"RAY_ADDRESS": cluster.address})
    assert ran.code == 0, ran.err
    assert "1 bad row left out" in ran.err
    assert without_seconds(moa.folder / "out.jsonl") == without_seconds(moa.folder / "whole.jsonl")
    assert len(lines_of(moa.folder / "out.jsonl")) == 4
    assert len(upstream.chats()) == 2 * asked
    card = json.loads((moa.folder / "out.jsonl.card.json").read_text())
    assert sum(model["calls"] for model in card["models"].values()) == asked

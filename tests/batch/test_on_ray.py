"""`moa batch --on ray`: workers, nodes and the driver are killed, and no row is lost."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import KEY, Moa
from tests.support.upstream import Reply, Request, Upstream

ROWS = 300
ROOM = 12
NODES = 3
# Calls of a row: two proposers and the aggregator.
CALLS = 3
# Seconds in which what is waited for happens, also where the machine is busy.
PATIENCE = 400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Nodes:
    """A cluster of three nodes on this machine, none of which knows anything of the user.

    environment: that leads `moa` to it. client: its `ray://` address.
    """

    def __init__(self) -> None:
        utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `ray`")
        port = free_port()
        head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": port}
        self.cluster = utils.Cluster(initialize_head=True, head_node_args=head)
        self.client = f"ray://127.0.0.1:{port}"
        self.environment = {"RAY_ADDRESS": self.cluster.address}
        for _ in range(NODES - 1):
            self.cluster.add_node(num_cpus=1)

    @property
    def logs(self) -> Path:
        """Where Ray writes down what it does."""
        return Path(self.cluster.head_node.get_session_dir_path())

    @staticmethod
    def workers_of(node: Any) -> list[int]:
        """The processes on a node that answer rows."""
        [raylet] = node.all_processes["raylet"]
        parents, answering = {}, []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(status[1])
                if b"ray::_Worker" in (entry / "cmdline").read_bytes():
                    answering.append(int(entry.name))
            except (OSError, ValueError):
                continue

        def is_below(process: int) -> bool:
            while process in parents and process != raylet.process.pid:
                process = parents[process]
            return bool(process == raylet.process.pid)

        return [process for process in answering if is_below(process)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("node")
        patch.setenv("HOME", str(home))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
            patch.setenv(f"MOA_{kind}_DIR", str(home / kind))
        with warnings.catch_warnings():
            # Ray leaves the log files of its processes open.
            warnings.simplefilter("ignore", ResourceWarning)
            made = Nodes()
            gc.collect()
        try:
            yield made
        finally:
            made.cluster.shutdown()


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    upstream.always("*", Reply(text=ANSWER.text, delay=0.02))
    moa = Moa(tmp_path, upstream.url)
    moa.profile("mix", "a", "b")
    moa.configure(profile="mix", providers=moa.settings()["providers"])
    return moa


def write_rows(moa: Moa, count: int) -> None:
    rows = [{"id": f"q{number}", "prompt": f"thing {number}."} for number in range(count)]
    write_lines(moa.folder / "in.jsonl", rows)


def lines_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def without_seconds(path: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0} for line in lines_of(path)]


def repeated(upstream: Upstream) -> dict[str, int]:
    """By row, how many of its calls were made again."""
    asked = Counter(
        (row_of(request), json.dumps(request.body, sort_keys=True)) for request in upstream.chats()
    )
    found: Counter[str] = Counter()
    for (row, _), times in asked.items():
        found[row] += times - 1
    return +found


def row_of(request: Request) -> str:
    """The prompt, which is the last of what an aggregator is told, too."""
    return str(request.messages[-1]["content"])


def test_workers_a_node_and_the_driver_are_killed(
    moa: Moa, upstream: Upstream, nodes: Nodes
) -> None:
    write_rows(moa, ROWS)
    whole = moa.run("batch", "in.jsonl", "whole.jsonl", "-y", "--concurrency", str(ROOM))
    assert whole.code == 0, whole.err
    assert len({row_of(request) for request in upstream.chats()}) == ROWS
    upstream.requests.clear()
    chance = random.Random(17)
    out = moa.folder / "out.jsonl"
    command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", "ray", "--concurrency", str(ROOM))

    def wait_for_rows(count: int) -> None:
        upstream.wait_for(lambda: len(lines_of(out)) >= count, PATIENCE)

    with moa.start(*command, env=nodes.environment) as process:
        wait_for_rows(chance.randrange(20, 60))
        node = next(node for node in nodes.cluster.worker_nodes if nodes.workers_of(node))
        os.kill(nodes.workers_of(node)[0], signal.SIGKILL)
        wait_for_rows(chance.randrange(80, 140))
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = len(lines_of(out))
    assert there < ROWS
    with moa.start(*command, env=nodes.environment) as process:
        wait_for_rows(there + 40)
        lost_with_node = len(nodes.workers_of(node))
        nodes.cluster.remove_node(node, allow_graceful=False)
        told = process.communicate()[1].decode()
        assert process.returncode == 0, told
    nodes.cluster.add_node(num_cpus=1)
    assert without_seconds(out) == without_seconds(moa.folder / "whole.jsonl")
    assert all(line.startswith("moa: ") for line in told.splitlines()), told
    # Each kill repeats what was in flight there, and no row more: a worker has its part of the
    # room, and the driver has all of it.
    again, part = repeated(upstream), ROOM // NODES
    kills = [part, ROOM, *[part] * lost_with_node]
    assert len(again) <= sum(kills)
    assert max(again.values(), default=0) <= CALLS * len(kills)
    assert not (moa.folder / "out.jsonl.state" / "calls.jsonl").exists()


@pytest.mark.parametrize("by_client", [False, True])
def test_all_that_workers_need_comes_with_the_rows_and_no_key_shows(
    moa: Moa, upstream: Upstream, nodes: Nodes, by_client: bool
) -> None:
    del moa.environment["LAB_KEY"]
    (moa.config / ".env").write_text(f"LAB_KEY={KEY}\nTEAM=some-secret-team\n")
    lab = {**moa.settings()["providers"]["lab"], "headers": {"X-Team": "${TEAM}"}}
    moa.configure(profile="mix", providers={"lab": lab})
    (moa.folder / "in.csv").write_text("name,text\nx,one\ny\nz,three\n")
    options = ("--id-field", "name", "--prompt", "Sum up: {text}", "--answers", "2", "--skip-bad")
    assert moa.run("batch", "in.csv", "whole.jsonl", "-y", *options).code == 0
    asked = len(upstream.chats())
    where = nodes.client if by_client else "ray"
    command = ("batch", "in.csv", "out.jsonl", "-y", *options, "--on", where, "--shard", "1/1")
    seen: set[bytes] = set()

    def look(request: Request) -> Reply:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if b"ray" in (told := process.read_bytes()):
                    seen.add(told)
                    seen.add(process.with_name("environ").read_bytes())
            except OSError:
                continue
        return ANSWER

    upstream.always("agg", look)
    ran = moa.run(*command, env={} if by_client else nodes.environment)
    assert ran.code == 0, ran.err
    assert "1 bad row left out" in ran.err
    assert all(line.startswith("moa: ") for line in ran.err.splitlines()), ran.err
    assert without_seconds(moa.folder / "out.jsonl") == without_seconds(moa.folder / "whole.jsonl")
    assert len(lines_of(moa.folder / "out.jsonl")) == 4
    assert len(upstream.chats()) == 2 * asked
    for request in upstream.chats():
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-team"] == "some-secret-team"
    card = json.loads((moa.folder / "out.jsonl.card.json").read_text())
    assert sum(model["calls"] for model in card["models"].values()) == asked
    assert any(b"ray::_Worker" in told for told in seen)
    logs = [path.read_bytes() for path in nodes.logs.rglob("*") if path.is_file()]
    for told in (*seen, *logs):
        assert KEY.encode() not in told
        assert b"some-secret-team" not in told


def test_workers_share_limits_and_stop_for_a_dead_model(
    moa: Moa, upstream: Upstream, nodes: Nodes
) -> None:
    write_rows(moa, 40)
    lab = {**moa.settings()["providers"]["lab"], "concurrency": 2}
    moa.configure(profile="mix", providers={"lab": lab})
    command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", "ray")
    upstream.always("agg", Reply(status=404, error={"error": {"message": "no such model"}}))
    ran = moa.run(*command, env=nodes.environment)
    assert ran.code == 1
    assert "2 workers, not 3: they share `providers.lab.concurrency`" in ran.err
    assert "stopped: lab:agg failed for 3 items in a row" in ran.err
    assert len(upstream.chats("agg")) < 40
    # The same command goes on, and what has been answered is not asked again.
    upstream.always("agg", ANSWER)
    ran = moa.run(*command, env=nodes.environment)
    assert ran.code == 0, ran.err
    assert len(lines_of(moa.folder / "out.jsonl")) == 40
    assert len(upstream.chats("a")) == 40
    assert max(request.in_flight_at_start for request in upstream.chats()) < 2


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_and_goes_on(
    moa: Moa, upstream: Upstream, nodes: Nodes, end: signal.Signals
) -> None:
    write_rows(moa, 60)
    slow: Callable[[Request], Reply] = lambda _: Reply(text=ANSWER.text, delay=0.1)  # noqa: E731
    upstream.always("*", slow)
    command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", "ray", "--concurrency", "6")
    with moa.start(*command, env=nodes.environment) as process:
        upstream.wait_for(lambda: len(lines_of(moa.folder / "out.jsonl")) >= 5, PATIENCE)
        process.send_signal(end)
        told = process.communicate()[1].decode()
    assert process.returncode == (130 if end == signal.SIGINT else 143), told
    assert "Traceback" not in told
    assert all(line.startswith("moa: ") for line in told.splitlines()), told
    upstream.wait_for(lambda: upstream.open_connections == 0, PATIENCE)
    ran = moa.run(*command, env=nodes.environment)
    assert ran.code == 0, ran.err
    assert [line["id"] for line in lines_of(moa.folder / "out.jsonl")] == [
        f"q{number}" for number in range(60)
    ]
    assert len(repeated(upstream)) <= 6


def test_a_cluster_that_is_not_there(moa: Moa, upstream: Upstream) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    write_rows(moa, 1)
    port = free_port()
    for where, address in (("ray", f"127.0.0.1:{port}"), (f"ray://127.0.0.1:{port}", "")):
        command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", where)
        ran = moa.run(*command, env={"RAY_ADDRESS": address})
        assert ran.code == 1
        told = ran.err.splitlines()[-1]
        assert f"the cluster at {address or where} cannot be reached: " in told
        assert "Traceback" not in ran.err
    assert upstream.chats() == []

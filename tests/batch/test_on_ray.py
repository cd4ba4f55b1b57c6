"""`moa batch --on ray`: workers, nodes and the driver are killed, and no row is lost."""

from __future__ import annotations

import gc
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import KEY, Moa
from tests.support.s3 import serving_s3
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


_CRASH = """
import os, sys
from pathlib import Path
crashed = Path({!r})
if "--mode=specific-server" in sys.orig_argv and not crashed.exists():
    crashed.touch()
    os._exit(1)
"""


class Nodes:
    """A cluster of three nodes on this machine, none of which knows anything of the user.

    home: the folder of their user. environment: that leads `moa` to the cluster. client: its
    `ray://` address. config: the folder of settings on the nodes.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.config = home / "CONFIG"
        utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra `ray`")
        port = free_port()
        head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": port}
        # The process that the head starts for a connection crashes once, as some do by themselves.
        self.crashed = home / "crashed"
        (home / "sitecustomize.py").write_text(_CRASH.format(str(self.crashed)))
        with self._own_environment():
            self.cluster = utils.Cluster(initialize_head=True, head_node_args=head)
        self.client = f"ray://127.0.0.1:{port}"
        self.environment = {"RAY_ADDRESS": self.cluster.address}
        for _ in range(NODES - 1):
            self.add()

    def add(self) -> None:
        """One more node."""
        with self._own_environment():
            self.cluster.add_node(num_cpus=1)

    @contextmanager
    def _own_environment(self) -> Iterator[None]:
        """A node inherits the environment of this process, which is that of the test that runs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self._home))
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            patch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "15")
            patch.setenv("PYTHONPATH", str(self._home))
            # A real cluster does not run below the `uv run` of these tests.
            patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
            for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
                patch.setenv(f"MOA_{kind}_DIR", str(self._home / kind))
            yield

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
    with warnings.catch_warnings():
        # Ray leaves the log files of its processes open.
        warnings.simplefilter("ignore", ResourceWarning)
        made = Nodes(tmp_path_factory.mktemp("node"))
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

    # All lines wait for the first row, whose worker may start last or be killed. Few others are to
    # be answered meanwhile, so that the batch does not end early.
    upstream.always("*", Reply(text=ANSWER.text, delay=0.3))
    with moa.start(*command, env=nodes.environment) as process:
        wait_for_rows(chance.randrange(20, 60))
        every = nodes.cluster.list_all_nodes()
        upstream.wait_for(lambda: all(len(nodes.workers_of(node)) == 1 for node in every), PATIENCE)
        node = every[-1]
        os.kill(nodes.workers_of(node)[0], signal.SIGKILL)
        wait_for_rows(chance.randrange(80, 140))
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = len(lines_of(out))
    assert there < ROWS
    with moa.start(*command, env=nodes.environment) as process:
        wait_for_rows(there + 40)
        lost_with_node = len(nodes.workers_of(node))
        assert lost_with_node == 1
        nodes.cluster.remove_node(node, allow_graceful=False)
        upstream.always("*", Reply(text=ANSWER.text, delay=0.02))
        printed, errors = process.communicate()
        told = errors.decode()
        assert process.returncode == 0, told
    nodes.add()
    assert without_seconds(out) == without_seconds(moa.folder / "whole.jsonl")
    # Ray's own words on the loss stand in its log files alone.
    assert printed == b""
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
    moa: Moa,
    upstream: Upstream,
    nodes: Nodes,
    by_client: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Processes of other tests have keys in their environment, and names of Ray in their commands.
    here = os.fsencode(tmp_path_factory.getbasetemp())
    del moa.environment["LAB_KEY"]
    (moa.config / ".env").write_text(f"LAB_KEY={KEY}\nTEAM=some-secret-team\n")
    lab = {**moa.settings()["providers"]["lab"], "headers": {"X-Team": "${TEAM}"}}
    moa.configure(profile="mix", providers={"lab": lab})
    (moa.folder / "in.csv").write_text("name,text\nx,one\ny\nz,three\n")
    # Below `uv run`, as these tests are, Ray by itself copies this folder to the nodes.
    (moa.folder / ".env").write_text("ANOTHER_KEY=a-key-of-this-folder\n")
    # By itself, Ray lets the workers import modules of this folder before all others.
    (moa.folder / "moa_cli.py").write_text("raise ImportError('of this folder')\n")
    moa.environment["PYTHONSAFEPATH"] = "1"
    options = ("--id-field", "name", "--prompt", "Sum up: {text}", "--answers", "2", "--skip-bad")
    assert moa.run("batch", "in.csv", "whole.jsonl", "-y", *options).code == 0
    asked = len(upstream.chats())
    where = nodes.client if by_client else "ray"
    command = ("batch", "in.csv", "out.jsonl", "-y", *options, "--on", where, "--shard", "1/1")
    seen: set[bytes] = set()

    def look(request: Request) -> Reply:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                told, around = process.read_bytes(), process.with_name("environ").read_bytes()
                if b"ray" in told and here in around:
                    seen.update((told, around))
            except OSError:
                continue
        return ANSWER

    upstream.always("agg", look)
    ran = moa.run(*command, env={} if by_client else nodes.environment)
    assert ran.code == 0, ran.err
    assert nodes.crashed.exists() or not by_client
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
        assert b"a-key-of-this-folder" not in told


def test_prompts_and_answers_in_an_object_store(moa: Moa, upstream: Upstream, nodes: Nodes) -> None:
    with serving_s3() as s3:
        write_rows(moa, 20)
        assert moa.run("batch", "in.jsonl", "whole.jsonl", "-y").code == 0
        lines = (moa.folder / "in.jsonl").read_bytes().splitlines(keepends=True)
        s3.objects |= {
            "bucket/in/1.jsonl": b"".join(lines[:12]),
            "bucket/in/2.jsonl": b"".join(lines[12:]),
        }
        command = ("batch", "s3://bucket/in/", "s3://bucket/out.jsonl", "-y", "--on", "ray")
        ran = moa.run(*command, env={**nodes.environment, **s3.environment})
        assert ran.code == 0, ran.err
        (moa.folder / "copy.jsonl").write_bytes(s3.objects["bucket/out.jsonl"])
    assert without_seconds(moa.folder / "copy.jsonl") == without_seconds(moa.folder / "whole.jsonl")


_PIPELINE = """
import sys
import pyarrow, pyarrow.fs, ray
from moa_cli.batch import answer_rows

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
ray.data.DataContext.get_current().enable_progress_bars = False
store = pyarrow.fs.S3FileSystem(
    access_key="some-id", secret_key="some-secret", endpoint_override=sys.argv[2], scheme="http"
)
answers = ray.data.read_json("bucket/in/", filesystem=store).map_batches(
    answer_rows,
    fn_kwargs={"profile": sys.argv[3], "prompt": "text", "processes": 2},
    batch_size=4,
    concurrency=2,
    num_cpus=0.5,
)
answers.write_parquet("bucket/out/", filesystem=store)
"""


def test_a_pipeline_of_ray_data(moa: Moa, upstream: Upstream, nodes: Nodes) -> None:
    import pyarrow.parquet

    # Of a pipeline of one's own, the nodes have the settings and the keys.
    shutil.copytree(moa.config, nodes.config)
    (nodes.config / ".env").write_text(f"LAB_KEY={KEY}\n")
    rows = [{"id": f"q{number}", "text": f"thing {number}."} for number in range(10)]
    with serving_s3() as s3:
        for part in range(2):
            lines = "".join(json.dumps(row) + "\n" for row in rows[part * 5 : part * 5 + 5])
            s3.objects[f"bucket/in/{part}.json"] = lines.encode()
        environment = {**moa.environment, **s3.environment}
        endpoint = s3.environment["AWS_ENDPOINT_URL"].removeprefix("http://")
        command = [sys.executable, "-c", _PIPELINE, nodes.cluster.address, endpoint, "mix"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        tables = [
            pyarrow.parquet.read_table(io.BytesIO(data))
            for name, data in s3.objects.items()
            if name.startswith("bucket/out/") and name.endswith(".parquet")
        ]
    found = [row for table in tables for row in table.to_pylist()]
    assert sorted(row["id"] for row in found) == [row["id"] for row in rows]
    assert all(row["reply"].startswith("agg says ") for row in found)
    assert {json.loads(row["usage"])["calls"] for row in found} == {CALLS}
    assert len(upstream.chats()) == CALLS * len(rows)
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_cap_holds_for_all_workers_together(moa: Moa, upstream: Upstream, nodes: Nodes) -> None:
    write_rows(moa, 60)
    prices = {f"lab:{model}": {"prompt": 10, "completion": 10} for model in ("a", "b", "agg")}
    moa.configure(profile="mix", providers=moa.settings()["providers"], prices=prices)
    command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", "ray")
    caps = ("--max-tokens", "20", "--max-cost", "0.02")
    ran = moa.run(*command, *caps, env=nodes.environment)
    assert ran.code == 3, ran.err
    lines = lines_of(moa.folder / "out.jsonl")
    assert 0 < len(lines) < 60
    assert 0 < sum(line["cost"] for line in lines) <= 0.02


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
    for where in ("ray://me:some-secret@head:1", "ray"):
        command = ("batch", "in.jsonl", "out.jsonl", "-y", "--on", where)
        ran = moa.run(*command, env={"RAY_ADDRESS": "me:some-secret@head:1"})
        assert ran.code == 2
        assert "holds no user or password" in ran.err
        assert "some-secret" not in ran.err
    assert upstream.chats() == []

"""`moa batch --on ray` on a cluster that loses parts of itself: no row is lost, few are repeated.

Ray runs here as a cluster of three nodes, each with one worker. At random moments a worker and a
node (with all its processes) are killed, and once `moa` itself, which is then started again. Rows
are answered by two proposers and an aggregator; the endpoint takes 20 ms for a call, is a process
of its own, and tells what it was asked. What comes out is compared with that of the same batch
without a cluster. Everything shares this machine's cores with whatever else runs there, so that the
rates tell little. The processor time of `moa`, which hands out the rows, tells what a cluster can
gain. It needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.report import environment_line, table
from benchmarks.slow_upstream import Behaviour, calls, serving

_ROOT = Path(__file__).parents[1]
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_PROFILE = """\
[[proposers]]
model = "lab:a"
[[proposers]]
model = "lab:b"
[aggregator]
model = "lab:agg"
"""
_CALLS = 3
_NODES = 3
# On paper: of a row, and rows at each worker.
_SECONDS, _PLACES = 20, 32
# Where in a batch something is killed, as shares of its rows: a worker, a node, and the driver.
_KILLS = {"a worker": (0.1, 0.25), "a node": (0.3, 0.5), "the driver": (0.6, 0.8)}


class _Home:
    """A user's machine with a batch of so many rows."""

    def __init__(self, folder: Path, url: str, rows: int, concurrency: int) -> None:
        self.folder, self.rows = folder, rows
        (folder / "profiles").mkdir(parents=True)
        (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")
        (folder / "profiles" / "mix.toml").write_text(_PROFILE, "utf-8")
        with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
            for number in range(rows):
                file.write(json.dumps({"id": f"row-{number}", "prompt": f"number {number}"}) + "\n")
        kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        self.environment = {**os.environ, **kinds, "HOME": str(folder), "LAB_KEY": "some-key"}
        self._concurrency = concurrency

    def start(self, out: str, *options: str, **environment: str) -> subprocess.Popen[str]:
        """`moa batch` into that file."""
        command = [sys.executable, "-m", "moa_cli", "batch", "in.jsonl", out, "-p", "mix", "-y"]
        return subprocess.Popen(
            [*command, "--concurrency", str(self._concurrency), *options],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(_ROOT), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(self, out: str) -> list[dict[str, Any]]:
        """What stands in the file, without the time that it took."""
        with (self.folder / out).open(encoding="utf-8") as file:
            return [{**json.loads(line), "seconds": 0} for line in file]

    def written(self, out: str) -> int:
        """How many lines there are."""
        path = self.folder / out
        return path.read_bytes().count(b"\n") if path.exists() else 0


def _finished(running: subprocess.Popen[str]) -> None:
    told = running.communicate()[1]
    assert running.returncode == 0, told[-2000:]


class _Cluster:
    """Three nodes on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head = {"num_cpus": 1, "include_dashboard": False}
            self._made = Cluster(initialize_head=True, head_node_args=head)
            for _ in range(_NODES - 1):
                self._made.add_node(num_cpus=1)
        self.address: str = self._made.address

    def kill_worker(self) -> bool:
        """Kill a process of this cluster that answers rows; whether there was one."""
        raylets = {
            node.all_processes["raylet"][0].process.pid for node in self._made.list_all_nodes()
        }
        parents, answering = {}, []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(status[1])
                if b"ray::_Worker" in (folder / "cmdline").read_bytes():
                    answering.append(int(folder.name))
            except OSError:
                continue
        for process in answering:
            above = process
            while above in parents and above not in raylets:
                above = parents[above]
            if above in raylets:
                os.kill(process, signal.SIGKILL)
                return True
        return False

    def kill_node(self) -> None:
        """Kill a node with all its processes; another one joins."""
        node = random.choice(list(self._made.worker_nodes))
        self._made.remove_node(node, allow_graceful=False)
        self._made.add_node(num_cpus=1)

    def close(self) -> None:
        """End all of it."""
        self._made.shutdown()


def _run_with_kills(home: _Home, cluster: _Cluster, seed: int) -> list[list[str]]:
    """Answer all rows through kills; a row of the table for each: at which row it was."""
    chance = random.Random(seed)
    random.seed(seed)
    moments = {what: int(chance.uniform(*between) * home.rows) for what, between in _KILLS.items()}
    options = ("--on", "ray")
    running = home.start("out.jsonl", *options, RAY_ADDRESS=cluster.address)
    told: list[list[str]] = []
    for what, moment in moments.items():
        while home.written("out.jsonl") < moment:
            assert running.poll() is None, running.communicate()[1][-2000:]
            time.sleep(0.1)
        at = home.written("out.jsonl")
        if what == "a worker":
            assert cluster.kill_worker()
        elif what == "a node":
            cluster.kill_node()
        else:
            running.send_signal(signal.SIGKILL)
            running.communicate()
            running = home.start("out.jsonl", *options, RAY_ADDRESS=cluster.address)
        told.append([what, f"{at:,}"])
    _finished(running)
    return told


def _repeated(url: str, since: int) -> tuple[int, int]:
    """Rows of which a call was made again, and how many such calls."""
    asked = Counter((call.prompt, call.model) for call in calls(url)[since:])
    again = {name: times - 1 for name, times in asked.items() if times > 1}
    return len({prompt for prompt, _ in again}), sum(again.values())


class _Peak:
    """The most memory, in MB, and the processor time, in seconds, of a process while it runs."""

    def __init__(self, process: int) -> None:
        self.megabytes = self.seconds = 0.0
        self._process = process
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        folder = Path(f"/proc/{self._process}")
        while True:
            try:
                status = (folder / "status").read_text("utf-8")
                stat = (folder / "stat").read_text("utf-8").rpartition(")")[2].split()
            except OSError:
                return
            found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            if not found:
                return
            self.megabytes = int(found[0]) / 1024
            self.seconds = (int(stat[11]) + int(stat[12])) / ticks
            time.sleep(0.2)


def main() -> None:
    """Run the batch without a cluster, on it, and on it with kills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_cluster")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=48)
    parser.add_argument("--seed", type=int, default=17)
    given = parser.parse_args()
    models = {name: Behaviour(first=0.02, tokens=5) for name in ("a", "b", "agg")}
    figures, kills = [], []
    with serving(models) as url, tempfile.TemporaryDirectory() as folder:
        home = _Home(Path(folder) / "home", url, given.rows, given.concurrency)
        cluster = None
        try:
            for what, out in (
                ("one machine", "whole.jsonl"),
                ("three nodes", "calm.jsonl"),
                ("three nodes, three kills", "out.jsonl"),
            ):
                if what != "one machine" and cluster is None:
                    cluster = _Cluster()
                since, began, peak = len(calls(url)), time.perf_counter(), None
                if cluster is None:
                    running = home.start(out)
                    peak = _Peak(running.pid)
                    _finished(running)
                elif out == "calm.jsonl":
                    running = home.start(out, "--on", "ray", RAY_ADDRESS=cluster.address)
                    peak = _Peak(running.pid)
                    _finished(running)
                else:
                    kills = _run_with_kills(home, cluster, given.seed)
                took = time.perf_counter() - began
                assert home.lines(out) == home.lines("whole.jsonl"), f"{what}: another output"
                rows, repeated = _repeated(url, since)
                cells = [what, f"{given.rows:,}", f"{given.rows / took:.0f}"]
                cells += [f"{1000 * peak.seconds / given.rows:.1f}"] if peak else ["-"]
                cells += [f"{peak.megabytes:.0f}"] if peak else ["-"]
                figures.append([*cells, str(rows), str(repeated)])
                print(" | ".join(figures[-1]), file=sys.stderr, flush=True)
        finally:
            if cluster is not None:
                cluster.close()
    part = given.concurrency // _NODES
    print(environment_line(f"{given.concurrency} rows in flight, {_CALLS} calls a row"))
    heads = ["", "rows", "rows/s", "moa's CPU a row, ms", "its peak, MB"]
    print(table([*heads, "rows asked again", "calls of them"], figures))
    print()
    print(table(["killed", "after rows"], kills))
    print(
        f"\nIn flight were {part} rows at each worker, and {given.concurrency} in all, which is"
        f" what the driver's end repeats: at most {2 * part + given.concurrency} rows.\n"
    )
    print(_on_paper(figures))


def _on_paper(figures: list[list[str]]) -> str:
    """What the figures mean for a cluster of machines."""
    engine, driver = (float(cells[3]) for cells in figures[:2])
    rate = 1000 / driver
    in_flight = rate * _SECONDS
    drivers = math.ceil(1000 * _PLACES / in_flight)
    busy, on_a_core = in_flight / _PLACES, 1000 / engine * _SECONDS
    calls_a_minute, megabytes = rate * _CALLS * 60, rate * 20 / 1000
    return f"""\
What this means for 1,000 workers, on paper, for rows that take {_SECONDS} s and {_PLACES} rows in
flight at each worker (`--concurrency {1000 * _PLACES}`):

- **The driver** is what does not divide. It takes {driver:.1f} ms of a core for a row: at most
  {rate:,.0f} rows/s, or {in_flight:,.0f} rows in flight. That keeps {busy:,.0f} workers busy. For
  1,000 workers it takes {drivers} drivers, each with a `--shard` and its own workers and limits.
- **A worker** takes about {engine:.1f} ms of a core for a row, as `moa` does on one machine. It is
  nearly idle with {_PLACES} rows in flight, since a core has room for {on_a_core:,.0f} of them:
  few workers with many rows each do the same as many workers.
- **Limits of providers** end sooner than that: {rate:,.0f} rows/s are {calls_a_minute:,.0f} calls
  a minute. The parts of a limit make up the whole. A worker needs one call at once of each
  provider, so that a limit of 500 calls has room for 500 workers.
- **Caps** are held by the driver alone. It keeps free what each row may cost at most, so that with
  many rows in flight no more are handed out some time before the cap is reached.
- **Checkpoints** are the driver's journal and index on its own disk. Workers write none, and no
  store has to be listed to go on. A lost worker repeats its {_PLACES} rows, a lost driver all that
  were in flight.
- **Ray's object store** holds prompts and answers of more than 100 kB only. All others, and the
  profile, travel with the calls: at 20 kB a row these are {megabytes:,.0f} MB/s at the driver."""


if __name__ == "__main__":
    main()

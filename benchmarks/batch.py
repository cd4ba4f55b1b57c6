"""`moa batch` at sizes that do not fit in memory: its peak memory, its rate, and how soon it goes
on after a kill.

The upstream answers at once, and is a process of its own. The profile is an aggregator alone, so
that a line is a call: what grows with the number of lines is the batch's, not the mixture's. Each
size is killed once at 60 % of its lines and goes on; nothing may be lost, or paid twice but for
what was in flight. `--proposers` adds proposers.

Upstream and batch share the machine with whatever else runs on it, which the load tells: the
processes that want to run, on average over the run. What does not depend on it is the CPU time of
the batch's process: for a line, among the first and the last lines of the run, and until the first
line, at the start and after the kill.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from benchmarks.report import environment_line, table
from benchmarks.serve import module, process

_ROOT = Path(__file__).parents[1]
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_SHARE = 0.6
# So many lines at the begin and at the end are looked at alone. Before the first ones, code and
# connections are cold.
_COLD, _WINDOW = 500, 5000
# From so many lines on, a look a second is enough.
_MANY = 50_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class _Part:
    """One start: seconds until its first line and until its end, the CPU seconds of the first, MB
    at most, and lines of the output, seconds and CPU seconds, about once a second."""

    first: float = 0.0
    first_cpu: float = 0.0
    took: float = 0.0
    peak: float = 0.0
    looks: list[tuple[int, float, float]] = field(default_factory=list)

    def cpu_of_line(self, begin: int, end: int) -> float:
        """CPU milliseconds for a line, of those from about `begin` to about `end`."""
        inside = [look for look in self.looks if begin <= look[0] <= end]
        (first, _, before), (last, _, after) = inside[0], inside[-1]
        return (after - before) * 1000 / (last - first)


class _Batch:
    """A batch of so many lines in a folder."""

    def __init__(self, folder: Path, url: str, lines: int, proposers: int) -> None:
        self.lines, self._calls = lines, proposers + 1
        (folder / "profiles").mkdir(parents=True)
        (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")
        profile = f"rounds = {min(proposers, 1)}\n" + "".join(
            f'[[proposers]]\nmodel = "lab:p{number}"\n' for number in range(proposers)
        )
        profile += '[aggregator]\nmodel = "lab:m"\n'
        (folder / "profiles" / "mix.toml").write_text(profile, "utf-8")
        source, self.out = folder / "in.jsonl", folder / "out.jsonl"
        with source.open("w", encoding="utf-8") as file:
            for number in range(lines):
                prompt = f"Tell me in one sentence what is special about the number {number}."
                file.write(json.dumps({"id": f"row-{number}", "prompt": prompt}) + "\n")
        kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        self._environment = {**os.environ, **kinds, "HOME": str(folder), "LAB_KEY": "some-key"}
        self._command = [sys.executable, "-m", "moa_cli", "batch", str(source), str(self.out)]
        self._command += ["-p", "mix", "-y", "--concurrency", "32"]

    def written(self) -> int:
        """Bytes of the output."""
        return self.out.stat().st_size if self.out.exists() else 0

    def answered(self) -> int:
        """How many lines are there: they stand in order, and their ids are numbers."""
        with self.out.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 14)))
            whole = file.read().rpartition(b"\n")[0]
        return int(json.loads(whole.rpartition(b"\n")[2])["id"].removeprefix("row-")) + 1

    def run(self, until: float | None = None) -> _Part:
        """One start. until: the share of lines at which it is killed."""
        before, began, part = self.written(), time.perf_counter(), _Part()
        running = subprocess.Popen(
            self._command, cwd=_ROOT, env=self._environment, stderr=subprocess.PIPE
        )
        assert running.stderr is not None
        told: list[bytes] = []
        reader = Thread(target=lambda stream: told.extend(stream), args=(running.stderr,))
        reader.start()
        while running.poll() is None:
            cpu, part.peak = _cpu(running.pid), max(part.peak, _memory(running.pid))
            now = time.perf_counter() - began
            if self.written() > before and not part.first:
                part.first, part.first_cpu = now, cpu
            if part.first and cpu:
                lines = self.answered()
                if not part.looks or lines > part.looks[-1][0]:
                    part.looks.append((lines, now, cpu))
                if until is not None and lines >= self.lines * until:
                    running.send_signal(signal.SIGKILL)
            time.sleep(1.0 if self.lines > _MANY and part.first else 0.05)
        reader.join()
        part.took = time.perf_counter() - began
        text = b"".join(told).decode()
        assert running.returncode == (0 if until is None else -signal.SIGKILL), text[-2000:]
        return part

    def check(self) -> int:
        """Every line is there once, in its place; how many calls were paid for in vain."""
        calls = number = 0
        with self.out.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                values = json.loads(line)
                assert values["id"] == f"row-{number - 1}", number
                calls += values["usage"]["calls"]
        assert number == self.lines, number
        return calls - self.lines * self._calls


def _memory(pid: int) -> float:
    """The most MB that the process ever had in memory."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0


def _cpu(pid: int) -> float:
    """CPU seconds that the process took; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _measure(folder: Path, upstream: str, lines: int, proposers: int) -> list[str]:
    """The cells of a size."""
    batch = _Batch(folder, upstream, lines, proposers)
    loads = [os.getloadavg()[2]]
    before = batch.run(_SHARE)
    loads.append(os.getloadavg()[2])
    after = batch.run()
    loads.append(os.getloadavg()[2])
    twice = batch.check()
    rate = lines / (before.took + after.took - before.first - after.first)
    window = min(_WINDOW, lines // 4)
    early = before.cpu_of_line(min(_COLD, lines // 10), min(_COLD, lines // 10) + window)
    late = after.cpu_of_line(lines - window, lines)
    return [
        f"{lines:,}",
        f"{rate:.0f}",
        f"{early:.2f}",
        f"{late:.2f}",
        f"{max(before.peak, after.peak):.0f}",
        f"{before.first:.1f} ({before.first_cpu:.1f})",
        f"{after.first:.1f} ({after.first_cpu:.1f})",
        str(twice),
        f"{sum(loads) / len(loads):.0f}",
    ]


_HEADS = (
    "lines",
    "lines/s",
    "CPU for one of the first, ms",
    "of the last, ms",
    "peak, MB",
    "first line, s (CPU)",
    "goes on after, s (CPU)",
    "paid twice",
    "load",
)


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    parser.add_argument("--lines", type=int, nargs="*", default=[5_000, 100_000])
    parser.add_argument("--proposers", type=int, default=0)
    given = parser.parse_args()
    rows = []
    with process(module("fast_upstream")) as upstream:
        for lines in given.lines:
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder) / "home"
                rows.append(_measure(home, upstream, lines, given.proposers))
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(environment_line(f"{given.proposers} proposers, 32 calls in flight"))
    print(table(_HEADS, rows))


if __name__ == "__main__":
    main()

"""`moa batch` at sizes that do not fit in memory: its peak memory, its rate, and how soon it goes
on after a kill.

The upstream answers at once, and is a process of its own. The profile is an aggregator alone, so
that a line is a call: what grows with the number of lines is the batch's, not the mixture's. Each
size is killed once at 60 % of its lines and goes on; nothing may be lost, or paid twice but for
what was in flight. `--proposers` adds proposers.
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
from pathlib import Path

from benchmarks.report import environment_line, table
from benchmarks.serve import module, process

_ROOT = Path(__file__).parents[1]
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_SHARE = 0.6


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

    def run(self, until: float | None = None) -> tuple[float, float, float]:
        """Seconds to its first line, seconds from there to its end, and the most MB that it had.

        until: the share of lines at which it is killed.
        """
        before, began = self.written(), time.perf_counter()
        first = 0.0
        running = subprocess.Popen(
            self._command, cwd=_ROOT, env=self._environment, stderr=subprocess.PIPE
        )
        peak, size = 0.0, 0
        while running.poll() is None:
            peak = max(peak, _memory(running.pid))
            written = self.written()
            if not first and written > before:
                first = time.perf_counter() - began
                with self.out.open("rb") as file:
                    size = len(file.readline())
            if until is not None and size and written > size * self.lines * until:
                running.send_signal(signal.SIGKILL)
            time.sleep(0.05)
        took = time.perf_counter() - began
        assert running.stderr is not None
        told = running.stderr.read().decode()
        assert running.returncode == (0 if until is None else -signal.SIGKILL), told[-2000:]
        return first, took - first, peak

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
                batch = _Batch(Path(folder) / "home", upstream, lines, given.proposers)
                began, first_part, peak = batch.run(_SHARE)
                again, second_part, peak_again = batch.run()
                twice = batch.check()
                rate = lines / (first_part + second_part)
                cells = [f"{lines:,}", f"{rate:.0f}", f"{max(peak, peak_again):.0f}"]
                rows.append([*cells, f"{began:.1f}", f"{again:.1f}", str(twice)])
                print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(environment_line(f"{given.proposers} proposers, 32 calls in flight"))
    heads = ["lines", "lines/s", "peak, MB", "first line, s", "goes on after, s", "paid twice"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()

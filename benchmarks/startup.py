"""Wall time of short commands, beside that of a bare interpreter."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.upstream import Reply, Upstream

_ROOT = Path(__file__).parents[1]
_MOA = ["-m", "moa_cli"]
# The arguments of the interpreter.
COMMANDS: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "moa --version": [*_MOA, "--version"],
    "moa --help": [*_MOA, "--help"],
    "moa ask --dry-run": [*_MOA, "ask", "--dry-run", "-p", "one", "hi"],
    "python -c 'import together'": ["-c", "from together import AsyncTogether"],
    "moa ask": [*_MOA, "ask", "-p", "one", "hi"],
}
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_PROFILE = """\
rounds = 0
[aggregator]
model = "lab:agg"
"""


def home(folder: Path, url: str) -> dict[str, str]:
    """The environment of a user whose only model is at `url`."""
    (folder / "profiles").mkdir()
    (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")
    (folder / "profiles" / "one.toml").write_text(_PROFILE, "utf-8")
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    return {**kept, **kinds, "HOME": str(folder), "PYTHONPATH": str(_ROOT), "LAB_KEY": "some-key"}


def seconds(arguments: list[str], environment: Mapping[str, str]) -> float:
    """The wall time of one run, which must end well."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder, Upstream() as upstream:
        upstream.always("*", Reply(text="Hello."))
        environment = home(Path(folder), upstream.url)
        # In turn, so that a busy moment of the machine's meets them all; the first time unseen.
        for run in range(given.runs + 1):
            for name, arguments in COMMANDS.items():
                took = seconds(arguments, environment)
                if run:
                    times[name].append(took)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {given.runs} runs each\n")
    print("| command | median, ms | over a bare interpreter |")
    print("| --- | ---: | ---: |")
    bare = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"| `{name}` | {median * 1000:.0f} | {median / bare:.1f} |")


if __name__ == "__main__":
    main()

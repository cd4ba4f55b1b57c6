"""Time and CPU of short commands, beside a bare interpreter and another chat program, `llm`.

`llm` is installed by uv into an environment of its own. Where that cannot be done, it is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.upstream import Reply, Upstream

_ROOT = Path(__file__).parents[1]
_LLM = "llm==0.36"
_MOA = ["-m", "moa_cli"]
_BARE, _OTHER, _CALL = "python -c pass", "llm --version", "llm, one call"
# The arguments of the interpreter.
COMMANDS: dict[str, list[str]] = {
    _BARE: ["-c", "pass"],
    "python -c 'import typer'": ["-c", "import typer"],
    "moa --version": [*_MOA, "--version"],
    "moa --help": [*_MOA, "--help"],
    "moa ask --help": [*_MOA, "ask", "--help"],
    "moa profile list": [*_MOA, "profile", "list"],
    "moa ask --dry-run": [*_MOA, "ask", "--dry-run", "-p", "one", "hi"],
    "python -c 'import together'": ["-c", "from together import AsyncTogether"],
    "moa ask": [*_MOA, "ask", "-p", "one", "hi"],
    "moa ask, 3 proposers": [*_MOA, "ask", "-p", "three", "hi"],
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
_PROPOSERS = """rounds = 1
proposers = [{ model = "lab:a" }, { model = "lab:b" }, { model = "lab:c" }]
[aggregator]
model = "lab:agg"
"""
_LLM_MODEL = """- model_id: lab
  model_name: agg
  api_base: {url}
"""


def home(folder: Path, url: str) -> dict[str, str]:
    """The environment of a user whose only model is at `url`."""
    (folder / "profiles").mkdir()
    (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")
    (folder / "profiles" / "one.toml").write_text(_PROFILE, "utf-8")
    (folder / "profiles" / "three.toml").write_text(_PROPOSERS, "utf-8")
    (folder / "extra-openai-models.yaml").write_text(_LLM_MODEL.format(url=url), "utf-8")
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    return {
        **kept,
        **kinds,
        "HOME": str(folder),
        "PYTHONPATH": str(_ROOT),
        "LAB_KEY": "some-key",
    } | {
        "LLM_USER_PATH": str(folder),
        "OPENAI_API_KEY": "some-key",
    }


def llm(folder: Path) -> str | None:
    """The program `llm`, installed there; None if it cannot be installed."""
    uv = shutil.which("uv")
    if uv is None:
        return None
    python = folder / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), _LLM],
    ):
        # Elsewhere than in this project, whose settings for uv leave `llm` out.
        if subprocess.run(command, cwd=folder.parent, stdout=subprocess.DEVNULL).returncode:
            return None
    return str(folder / "bin" / "llm")


@dataclass
class Taken:
    """The seconds of each run of a command: by the clock, and of CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Run it once; it must end well."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        self.wall.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    commands = {name: [sys.executable, *arguments] for name, arguments in COMMANDS.items()}
    with tempfile.TemporaryDirectory() as folder, Upstream() as upstream:
        upstream.always("*", Reply(text="Hello."))
        environment = home(Path(folder), upstream.url)
        other = llm(Path(folder) / "llm")
        if other is None:
            print(f"skipped: llm, because {_LLM} could not be installed with uv\n")
        else:
            commands[_OTHER] = [other, "--version"]
            commands[_CALL] = [other, "-m", "lab", "hi"]
        times = {name: Taken() for name in commands}
        # In turn, so that a busy moment of the machine meets them all. The first run of each fills
        # the caches and is not counted.
        for run in range(given.runs + 1):
            for name, command in commands.items():
                (times[name] if run else Taken()).add(command, environment)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {given.runs} runs each\n")
    wall = {name: statistics.median(taken.wall) for name, taken in times.items()}
    cpu = {name: statistics.median(taken.cpu) for name, taken in times.items()}
    rival = _OTHER if _OTHER in wall else _BARE
    print(f"| command | median, ms | CPU, ms | of `{rival}` | CPU |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in commands:
        figures = f"{wall[name] * 1000:.0f} | {cpu[name] * 1000:.0f}"
        ratios = f"{wall[name] / wall[rival]:.3f} | {cpu[name] / cpu[rival]:.3f}"
        print(f"| `{name}` | {figures} | {ratios} |")


if __name__ == "__main__":
    main()

"""Time and CPU of short commands, beside a bare interpreter and another chat program, `llm`.

Whole processes; the endpoint answers at once. `llm` 0.36, and once more with the plugin
llm-consortium 0.8 (which asks several models and an arbiter, and needs scikit-learn), are installed
by uv into environments of their own. What cannot be installed is left out.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import installed
from benchmarks.report import environment_line, spread, table
from tests.support.upstream import Reply, Upstream

_ROOT = Path(__file__).parents[1]
_LLM = ("llm==0.36",)
# It imports scikit-learn without requiring it.
_CONSORTIUM = (*_LLM, "llm-consortium==0.8.0", "scikit-learn")
_MOA = ["-m", "moa_cli"]
_BARE, _OTHER, _CALL = "python -c pass", "llm --version", "llm, one call"
_MIXTURE, _PEER = "moa ask, 3 proposers", "llm-consortium, 3 models and an arbiter"
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
    _MIXTURE: [*_MOA, "ask", "-p", "three", "hi"],
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
_LLM_MODEL = """- model_id: {name}
  model_name: {name}
  api_base: {url}
"""
_MODELS = ("a", "b", "c", "agg")
# As each of its models is asked to answer.
_ANSWER = "<thought>x</thought><answer>Hello.</answer><confidence>0.9</confidence>"
_SAVE = ["consortium", "save", "three", *(f"-m{name}" for name in _MODELS[:3]), "--arbiter", "agg"]
_SAVE += ["-n", "1", "--max-iterations", "1", "--min-iterations", "1"]


def home(folder: Path, url: str) -> dict[str, str]:
    """The environment of a user whose only model is at `url`."""
    (folder / "profiles").mkdir()
    (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")
    (folder / "profiles" / "one.toml").write_text(_PROFILE, "utf-8")
    (folder / "profiles" / "three.toml").write_text(_PROPOSERS, "utf-8")
    models = "".join(_LLM_MODEL.format(name=name, url=url) for name in _MODELS)
    (folder / "extra-openai-models.yaml").write_text(models, "utf-8")
    # Where llm-consortium writes its log, whatever LLM_USER_PATH says.
    (folder / ".config" / "io.datasette.llm").mkdir(parents=True)
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
        upstream.always("*", Reply(text=_ANSWER))
        environment = home(Path(folder), upstream.url)
        other = installed(Path(folder) / "llm", "llm", *_LLM)
        if other is None:
            print("Without llm, which could not be installed with uv.\n")
        else:
            commands[_OTHER] = [other, "--version"]
            commands[_CALL] = [other, "-m", "agg", "hi"]
        peer = installed(Path(folder) / "consortium", "llm", *_CONSORTIUM)
        if peer is None:
            print("Without llm-consortium, which could not be installed with uv.\n")
        else:
            subprocess.run([peer, *_SAVE], env=environment, stdout=subprocess.DEVNULL, check=True)
            commands[_PEER] = [peer, "-m", "three", "hi"]
        times = {name: Taken() for name in commands}
        # In turn, so that a busy moment of the machine meets them all. The first run of each fills
        # the caches and is not counted.
        for run in range(given.runs + 1):
            for name, command in commands.items():
                (times[name] if run else Taken()).add(command, environment)
    print(environment_line(f"{given.runs} runs each"))
    wall = {name: statistics.median(taken.wall) for name, taken in times.items()}
    cpu = {name: statistics.median(taken.cpu) for name, taken in times.items()}
    rival = _CALL if _CALL in wall else _BARE
    rows = [
        [
            f"`{name}`" if not name.startswith("llm-") else name,
            spread([1000 * seconds for seconds in times[name].wall], 0),
            f"{cpu[name] * 1000:.0f}",
            f"{wall[name] / wall[rival]:.3f}",
            f"{cpu[name] / cpu[rival]:.3f}",
        ]
        for name in commands
    ]
    print(table(["command", "wall, ms", "CPU, ms", f"of `{rival}`", "its CPU"], rows))


if __name__ == "__main__":
    main()

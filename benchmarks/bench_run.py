"""A whole run of `moa bench` beside the ideal, and beside the reference's way.

200 prompts, 4 proposers, 2 rounds and an aggregator: 9 calls an item, each of which takes 0.3
seconds at the upstream. The ideal is calls × latency / calls in flight. Start-up, estimate, journal
and summary are in our time; it is a process of its own, as is the upstream.

The reference's way, after the structure of its generators (a loop over layers and models for each
item, items spread over a pool of processes in equal parts, a blocking request a call), is
written here anew without anything else that it does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serve import module, process

_ROOT = Path(__file__).parents[1]
_PROPOSERS, _ROUNDS = 4, 2
_CALLS = _PROPOSERS * _ROUNDS + 1
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_PROFILE = f"rounds = {_ROUNDS}\n" + "".join(
    f'[[proposers]]\nmodel = "lab:p{number}"\n' for number in range(_PROPOSERS)
)


def ours(folder: Path, upstream: str, items: int, concurrency: int) -> float:
    """Seconds that `moa bench run` takes."""
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(_CONFIG.format(url=upstream), "utf-8")
    profile = _PROFILE + '[aggregator]\nmodel = "lab:m"\n'
    (folder / "profiles" / "four.toml").write_text(profile, "utf-8")
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"Prompt number {number}"}) for number in range(items)]
    prompts.write_text("\n".join(lines), "utf-8")
    kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    environment = {**os.environ, **kinds, "HOME": str(folder), "LAB_KEY": "some-key"}
    run = folder / f"run-{concurrency}"
    arguments = ["bench", "run", str(prompts), "-p", "four", "-y", "-o", str(run)]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "moa_cli", *arguments, "--concurrency", str(concurrency)],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    took = time.perf_counter() - began
    calls = len((run / "calls.jsonl").read_bytes().splitlines())
    assert calls == items * _CALLS, calls
    return took


def _ask(url: str, model: str, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": model, "messages": messages, "stream": False}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def _shard(url: str, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        references: list[str] = []
        for _ in range(_ROUNDS):
            context = "\n".join([prompt, *references])
            references = [_ask(url, f"p{number}", context) for number in range(_PROPOSERS)]
        _ask(url, "m", "\n".join([prompt, *references]))


def reference(upstream: str, items: int, processes: int) -> float:
    """Seconds that the reference's structure takes."""
    prompts = [f"Prompt number {number}" for number in range(items)]
    url = f"{upstream}/chat/completions"
    size = -(-items // processes)
    shards = [(url, prompts[start : start + size]) for start in range(0, items, size)]
    began = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        pool.starmap(_shard, shards, chunksize=1)
    return time.perf_counter() - began


def main() -> None:
    """Measure all, in one run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_run")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.3, help="seconds a call takes")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[32, 64])
    parser.add_argument("--processes", type=int, nargs="*", default=[8])
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| way | calls in flight | seconds | ideal | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    upstream_of = module("fast_upstream", "--delay", str(given.delay))
    with process(upstream_of) as upstream, tempfile.TemporaryDirectory() as folder:

        def row(way: str, in_flight: int, took: float, allowed: int) -> None:
            ideal = given.items * _CALLS * given.delay / allowed
            cells = f"{in_flight} | {took:.1f} | {ideal:.1f} | {took / ideal:.2f}"
            print(f"| {way} | {cells} |", flush=True)

        for concurrency in given.concurrency:
            took = ours(Path(folder), upstream, given.items, concurrency)
            row("moa bench run", concurrency, took, concurrency)
        for processes in given.processes:
            took = reference(upstream, given.items, processes)
            # Against what the endpoint would have allowed.
            row("the reference's way", processes, took, given.concurrency[0])


if __name__ == "__main__":
    main()

"""`moa serve` under load, beside the least that a server can do and beside other proxies.

Requests a second (the median of some rounds over all servers), and in brackets what was added to
the upstream's own latency (median and 99th percentile, ms). The upstream answers at once with 20
tokens, streamed or whole; load, upstream and server share the machine. Each server has answered for
some seconds before it is measured. *bare*: starlette and uvicorn with nothing but the passing on,
without checks, counts, retries, log or cancellation; *httpx* and *aiohttp* are what it asks the
upstream with, the bare mixture asks four times over aiohttp and streams the fifth answer. *With
tools*: the request offers some, which go to the fifth call alone, and our mixture asks its
proposers anew for each request. *LiteLLM, one model*: its proxy 1.108 as its documentation advises
for production: one uvicorn worker (with uvloop), the log at `ERROR`, `LITELLM_MODE=PRODUCTION`; no
database, no cache, no callbacks, and no key, as for `moa serve`. Beyond that advice, the log of
each streamed chunk is off (`disable_streaming_logging`). *optillm, moa*: its proxy 0.3, which asks
three times for five answers, and gives a stream only once all of it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.programs import installed

_ROOT = Path(__file__).parents[1]
_MESSAGES = [{"role": "user", "content": "hi"}]
# What an agent offers with each of its requests. The upstream answers in words all the same.
_PARAMETERS = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}},
    "required": ["path"],
}
_TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": f"To {name} files.", "parameters": _PARAMETERS},
    }
    for name in ("find", "read", "write", "run")
]
_CONFIG = """\
[providers.lab]
base_url = "{url}"
api_key_env = "LAB_KEY"
"""
_ONE = """\
rounds = 0
[aggregator]
model = "lab:m"
"""
_FOUR = "".join(f'[[proposers]]\nmodel = "lab:p{number}"\n' for number in range(4)) + (
    '[aggregator]\nmodel = "lab:m"\n'
)
# Without it, the proposals of a user's message serve all requests of the load.
_EACH = f'fan_out = "request"\n{_FOUR}'
_LITELLM = "litellm[proxy]>=1.108,<1.109"
_LITELLM_CONFIG = """\
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      api_base: {url}
      api_key: some-key
litellm_settings:
  disable_streaming_logging: true
"""
_LITELLM_ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    # Its prices come from the package, not from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # It refuses to start without a key of its own; like `moa serve` here, it needs none.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
# Long enough for LiteLLM's proxy, whose first streams are slower than all that follow.
_WARM_UP_SECONDS = 4.0
_SINGLE, _MIXTURE = "moa serve, rounds 0", "moa serve, mixture of 4"
_BARE_MIXTURE = "bare mixture of 4"
_WITH_TOOLS = ", with tools"
_LITELLM_ONE, _OPTILLM_MOA = "LiteLLM, one model", "optillm, moa"
# Its own mixture: three completions of one call, a critique, and the final answer.
_OPTILLM = "optillm>=0.3,<1"


@dataclass(frozen=True)
class Target:
    """What a load is put on. model: asked for in the request. tools: whether that offers some."""

    name: str
    url: str
    model: str
    tools: bool = False
    modes: tuple[bool, ...] = (True, False)
    levels: tuple[int, ...] | None = None
    expected: str = "tok19"


@contextmanager
def process(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, tells: bool = True
) -> Iterator[str]:
    """A server as a process, and the URL that it prints (if it `tells`) on its first line."""
    with subprocess.Popen(
        arguments,
        cwd=_ROOT,
        env=dict(environment or os.environ),
        stdout=subprocess.PIPE if tells else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            url = running.stdout.readline().strip() if running.stdout else ""
            if tells and not url:
                raise RuntimeError(f"it did not start: {' '.join(arguments)}")
            yield url
        finally:
            running.kill()


def module(name: str, *arguments: str) -> list[str]:
    """The command line of a module of this folder."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


def load(target: Target, clients: int, seconds: float, *, stream: bool) -> dict[str, Any]:
    """What came of a load."""
    offered = {"tools": _TOOLS} if target.tools else {}
    body = json.dumps({"model": target.model, "messages": _MESSAGES, "stream": stream, **offered})
    done = subprocess.run(
        module(
            "load",
            target.url,
            *("--clients", str(clients), "--seconds", str(seconds)),
            *("--body", body, "--expected", target.expected),
        ),
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return {"completed": 0, "failed": clients, "seconds": seconds, "p50": None, "p99": None}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def ours(folder: Path, upstream: str) -> Iterator[str]:
    """`moa serve` with the profiles `one`, `four` and `each`; its URL."""
    (folder / "profiles").mkdir()
    (folder / "config.toml").write_text(_CONFIG.format(url=upstream), "utf-8")
    (folder / "profiles" / "one.toml").write_text(_ONE, "utf-8")
    (folder / "profiles" / "four.toml").write_text(_FOUR, "utf-8")
    (folder / "profiles" / "each.toml").write_text(_EACH, "utf-8")
    kinds = {f"MOA_{kind}_DIR": str(folder) for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [sys.executable, "-m", "moa_cli", "serve", "-p", "four", "--port", str(port)]
    environment = {**os.environ, **kinds, "HOME": str(folder), "LAB_KEY": "some-key"}
    with process(arguments, environment, tells=False):
        _await(f"{url}/health")
        yield f"{url}/v1/chat/completions"


@contextmanager
def litellm(program: str, config: Path, upstream: str) -> Iterator[str]:
    """LiteLLM's proxy with one model, over a configuration that is written to `config`; its URL."""
    config.write_text(_LITELLM_CONFIG.format(url=upstream), "utf-8")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--num_workers", "1"]
    with process(arguments, {**os.environ, **_LITELLM_ENVIRONMENT}, tells=False):
        _await(f"{url}/health/liveliness", seconds=180)
        yield f"{url}/v1/chat/completions"


@contextmanager
def optillm(folder: Path, upstream: str) -> Iterator[str]:
    """optillm's proxy in an environment of its own; its URL."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "torch==2.13.0", _OPTILLM]
        subprocess.run(pip, check=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [str(folder / "bin" / "optillm"), "--port", str(port), "--base-url", upstream]
    environment = {**os.environ, "OPENAI_API_KEY": "some-key"}
    with process(arguments, environment, tells=False):
        _await(f"{url}/health", seconds=180)
        yield f"{url}/v1/chat/completions"


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _await(url: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def cell(result: Mapping[str, Any], upstream: Mapping[str, Any]) -> str:
    """Requests a second, and what was added to the upstream's latency."""
    if not result["completed"]:
        return "failed"
    rate = result["completed"] / result["seconds"]
    added = [max(0.0, result[name] - upstream[name]) for name in ("p50", "p99")]
    failed = f", {result['failed']} failed" if result["failed"] else ""
    return f"{rate:,.0f} ({added[0]:.1f}, {added[1]:.1f}{failed})"


# A server under a load of so many clients, streamed or whole.
Measured = tuple[str, bool, int]
# What each round found. A machine's speed changes in minutes, so a ratio is of one round.
Results = dict[Measured, list[dict[str, Any]]]


def measure(targets: Sequence[Target], levels: Sequence[int], seconds: float, rounds: int) -> None:
    """Print a table for streamed replies and one for whole ones, and the ratios of the goal."""
    for target in targets[1:]:
        for stream in target.modes:
            load(target, 8, _WARM_UP_SECONDS, stream=stream)
    found: Results = defaultdict(list)
    for _ in range(rounds):
        for stream in (True, False):
            for level in levels:
                for target in targets:
                    if stream in target.modes and (target.levels is None or level in target.levels):
                        result = load(target, level, seconds, stream=stream)
                        found[target.name, stream, level].append(result)
    for stream in (True, False):
        print(f"\n{'Streamed' if stream else 'Whole'}:\n")
        print("| server | " + " | ".join(f"{level} clients" for level in levels) + " |")
        print("| --- |" + " ---: |" * len(levels))
        for target in targets:
            if stream in target.modes:
                cells = [_cell(found, targets[0], (target.name, stream, level)) for level in levels]
                print(f"| {target.name} | " + " | ".join(cells) + " |")
    _goals(found, levels)


def _cell(found: Results, upstream: Target, place: Measured) -> str:
    if place not in found:
        return ""
    return cell(_middle(found[place]), _middle(found[upstream.name, *place[1:]]))


def _middle(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return sorted(results, key=_rate)[len(results) // 2]


def _rate(result: Mapping[str, Any]) -> float:
    rate: float = result["completed"] / result["seconds"]
    return rate


def _goals(found: Results, levels: Sequence[int]) -> None:
    def ratio(measured: Measured, reference: Measured) -> str:
        """The median of the rounds' ratios, and the least and the largest of them."""
        pairs = zip(found.get(measured, ()), found.get(reference, ()), strict=False)
        ratios = [_rate(first) / _rate(second) for first, second in pairs if _rate(second)]
        if not ratios:
            return "unknown"
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        return f"{statistics.median(ratios):.2f}{spread}"

    print("\nstreamed, 32 clients, our mixture of 4 to")
    print("- the bare mixture:", ratio((_MIXTURE, True, 32), (_BARE_MIXTURE, True, 32)))
    tools = [(f"{name}{_WITH_TOOLS}", True, 32) for name in (_MIXTURE, _BARE_MIXTURE)]
    print("- the bare mixture, both with tools:", ratio(*tools))
    print("- optillm's (not streamed):", ratio((_MIXTURE, True, 32), (_OPTILLM_MOA, False, 32)))
    if 8 in levels and 256 in levels:
        print("our mixture, 256 clients to 8:", ratio((_MIXTURE, True, 256), (_MIXTURE, True, 8)))
    print("\nmoa serve, rounds 0, to LiteLLM's proxy, 1 and 32 clients")
    for stream, name in ((True, "streamed"), (False, "whole")):
        shown = [
            ratio((_SINGLE, stream, level), (_LITELLM_ONE, stream, level)) for level in (1, 32)
        ]
        print(f"- {name}: {' and '.join(shown)}")


def main() -> None:
    """Measure all, in one run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each cell")
    parser.add_argument("--rounds", type=int, default=3, help="how often all cells are measured")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32, 256])
    parser.add_argument("--litellm", type=Path, help="a folder for its environment, kept")
    parser.add_argument("--optillm", type=Path, help="a folder for its environment, kept")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {given.rounds} rounds")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(process(module("fast_upstream")))
        bare = stack.enter_context(process(module("bare_servers", upstream)))
        _await(f"{bare}/")
        moa = stack.enter_context(ours(folder, upstream))
        single = Target(_SINGLE, moa, "one")
        targets = [
            Target("the upstream itself", f"{upstream}/chat/completions", "m"),
            Target("bare pass-through, httpx", f"{bare}/httpx", "m"),
            Target("bare pass-through, aiohttp", f"{bare}/aiohttp", "m"),
            single,
            Target(_BARE_MIXTURE, f"{bare}/mixture", "m"),
            Target(_MIXTURE, moa, "four"),
        ]
        targets += [
            Target(f"{_BARE_MIXTURE}{_WITH_TOOLS}", f"{bare}/mixture", "m", True, (True,)),
            Target(f"{_MIXTURE}{_WITH_TOOLS}", moa, "each", True, (True,)),
        ]
        if given.litellm:
            program = installed(given.litellm, "litellm", _LITELLM)
            if program:
                config = folder / "litellm.yaml"
                url = stack.enter_context(litellm(program, config, upstream))
                # Next to the server that it is compared with, so that both meet the same machine.
                place = targets.index(single) + 1
                targets.insert(place, Target(_LITELLM_ONE, url, "m", levels=(1, 32)))
            else:
                print("LiteLLM's proxy cannot be installed: it is left out", file=sys.stderr)
        if given.optillm and shutil.which("python3"):
            url = stack.enter_context(optillm(given.optillm, upstream))
            # It gives a stream only once all of it is there.
            targets.append(Target(_OPTILLM_MOA, url, "moa-m", modes=(False,), levels=(32,)))
        measure(targets, given.clients, given.seconds, given.rounds)


if __name__ == "__main__":
    main()

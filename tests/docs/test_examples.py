"""Each program in examples/ runs, against a scripted endpoint, and does what it says."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.pages import ROOT, machine, run_shell
from tests.support.server import serving
from tests.support.upstream import Reply, Upstream

EXAMPLES = ROOT / "examples"
TOLD = {
    "ask_once.py": "=== together",
    "conversation.py": "> Name another one.",
    "many_prompts.py": "> Why is the sea salty?",
    "running_loop.py": "as expected: ask() cannot run inside a running event loop",
    "events.py": " calls, ",
    "sinks.py": "short answer",
    "profile_in_code.py": "short answer",
    "own_client.py": "last saw 2 messages",
}


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """A machine whose providers all answer alike."""
    upstream.always("*", Reply(text="A short answer."))
    return machine(tmp_path / "home", upstream.url)


def run(moa: Moa, name: str) -> str:
    done = run_shell(moa, sys.executable, str(EXAMPLES / name))
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_each_example_is_named_in_their_list_and_run_here() -> None:
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert there == {*TOLD, "openai_client.py", "batch.sh"}
    assert all(f"| `{name}` |" in listed for name in there)


@pytest.mark.parametrize("name", TOLD)
def test_a_program_runs(moa: Moa, name: str) -> None:
    assert TOLD[name].lower() in run(moa, name).lower()


def test_the_sinks_log_holds_every_event(moa: Moa) -> None:
    run(moa, "sinks.py")
    lines = (moa.folder / "events.jsonl").read_text("utf-8").splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("turn_started", "turn_finished")


def test_the_mixture_in_code_asks_as_it_says(moa: Moa, upstream: Upstream) -> None:
    run(moa, "profile_in_code.py")
    asked = [request.model for request in upstream.chats()]
    assert asked.count("llama-3.3-70b-versatile") == 4
    assert asked.count("gpt-4.1") == 3


def test_enough_ends_the_wait_for_slow_proposers(moa: Moa, upstream: Upstream) -> None:
    upstream.always("Qwen/Qwen2.5-72B-Instruct-Turbo", Reply(text="never", stall_after=0))
    assert "short answer" in run(moa, "events.py")


def test_openais_library_streams_from_the_server(moa: Moa) -> None:
    with serving(moa) as server:
        moa.environment |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"}
        out = run(moa, "openai_client.py")
        assert server.end(signal.SIGTERM) == 0
    assert "models: moa" in out
    assert "A short answer." in out


def test_the_batch_script_answers_and_goes_on(moa: Moa, upstream: Upstream) -> None:
    for _ in range(2):
        done = run_shell(moa, str(EXAMPLES / "batch.sh"))
        assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr
    calls = len(upstream.chats())
    assert os.access(EXAMPLES / "batch.sh", os.X_OK)
    answers = (moa.folder / "answers.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in answers] == ["sky", "sea"]
    assert calls == len(upstream.chats())

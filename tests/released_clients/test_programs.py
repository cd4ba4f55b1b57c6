"""Released programs, each in an environment of its own, used to the end through a mixture: agents
that edit a file, and others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.released_clients.conftest import Lab, large
from tests.released_clients.scripted import PERSON, WEATHER, calling, editing
from tests.support.upstream import Reply, Request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROMPT = "Write new.py with a function that adds."
ADDS = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def repository(lab: Lab) -> Path:
    """A scratch repository in the client's home."""
    folder = lab.home / "repository"
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def done(request: Request) -> Reply:
    return Reply(text="It adds now.")


def check_edited(lab: Lab, repository: Path, said: str) -> None:
    assert (repository / "new.py").read_text("utf-8") == ADDS
    assert "It adds now." in said
    lab.check_proposers()
    # The proposers are asked once for the user's message, not again for the result of the tool.
    asked = [call for call in lab.upstream.chats("agg") if call.body.get("tools")]
    assert len(asked) == 2
    others = len(lab.upstream.chats("agg")) - len(asked)
    assert len(lab.upstream.chats("a")) == 1 + others


def test_claude_code_edits_a_file(lab: Lab, repository: Path) -> None:
    modules = lab.node("claude-code", "@anthropic-ai/claude-code@2.1.197")
    file = {"file_path": str(repository / "new.py"), "content": ADDS}
    lab.upstream.always("agg", editing(lambda _: calling(("Write", file)), done))
    said = lab.run(
        modules / "node_modules/.bin/claude",
        "-p",
        PROMPT,
        "--permission-mode",
        "acceptEdits",
        cwd=repository,
        env={
            "ANTHROPIC_MODEL": "moa",
            "ANTHROPIC_SMALL_FAST_MODEL": "moa",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )
    check_edited(lab, repository, said)


def test_opencode_edits_a_file(lab: Lab, repository: Path) -> None:
    modules = lab.node("opencode", "opencode-ai@1.18.33")
    settings = {
        "model": "moa/moa",
        "provider": {
            "moa": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": lab.server.url, "apiKey": "none"},
                "models": {"moa": {"name": "moa"}},
            }
        },
    }
    (repository / "opencode.json").write_text(json.dumps(settings))
    file = {"filePath": str(repository / "new.py"), "content": ADDS}
    lab.upstream.always("agg", editing(lambda _: calling(("write", file)), done))
    said = lab.run(
        modules / "node_modules/.bin/opencode",
        "run",
        PROMPT,
        cwd=repository,
        env={"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"},
    )
    check_edited(lab, repository, said)


def test_aider_edits_a_file(lab: Lab, repository: Path) -> None:
    python = lab.python("aider", "aider-chat==0.86.2")
    lab.upstream.always("agg", Reply(text=f"It adds now.\n\nnew.py\n```python\n{ADDS}```\n"))
    said = lab.run(
        python / "aider",
        "--model",
        "openai/moa",
        "--message",
        PROMPT,
        "--yes-always",
        "--no-auto-commits",
        "--no-gitignore",
        "--no-check-update",
        "--no-show-model-warnings",
        "--analytics-disable",
        cwd=repository,
    )
    assert (repository / "new.py").read_text("utf-8") == ADDS, said
    assert lab.upstream.chats("a")


def test_the_llm_command_calls_tools_and_keeps_to_a_schema(lab: Lab) -> None:
    llm = lab.python("llm", "llm==0.36") / "llm"
    entry = f"- model_id: moa\n  model_name: moa\n  api_base: {lab.server.url}\n"
    entry += "  supports_tools: true\n  supports_schema: true\n  vision: true\n"
    (lab.home / "extra-openai-models.yaml").write_text(entry)
    here = {"LLM_USER_PATH": str(lab.home)}
    function = (
        "def get_weather(city: str) -> str:\n"
        '    "The weather of a city."\n'
        "    return f'{city}: sunny, 21 °C'\n"
    )
    for streamed in ([], ["--no-stream"]):
        asked = ("-m", "moa", *streamed, "--functions", function, "What is the weather in Paris?")
        assert lab.run(llm, *asked, env=here) == f"The tool says: {WEATHER}\n"
        found = lab.run(llm, "-m", "moa", *streamed, "--schema", "name, age int", "Who?", env=here)
        assert json.loads(found) == PERSON
    lab.check_proposers()


@large(gigabytes=6)
def test_guidellm_measures(lab: Lab) -> None:
    python = lab.python("guidellm", "guidellm==0.8.1")
    prompts, report = lab.home / "prompts.jsonl", lab.home / "report.json"
    prompts.write_text("".join(f'{{"prompt": "Hello {number}"}}\n' for number in range(4)))
    lab.run(
        python / "guidellm",
        "run",
        "--backend",
        f"kind=openai_http,target={lab.server.root},model=moa",
        "--profile",
        "kind=synchronous",
        "--constraint",
        "kind=max_requests,count=4",
        "--data",
        f"kind=json_file,path={prompts}",
        "--output",
        f"kind=json,path={report}",
        "--disable-console",
        env={"HF_HUB_OFFLINE": "1"},
    )
    (measured,) = json.loads(report.read_text("utf-8"))["benchmarks"]
    totals = measured["metrics"]["request_totals"]
    assert (totals["successful"], totals["total"]) == (4, 4)
    assert len(lab.upstream.chats("agg")) == 4

"""Clients of the Responses API work as they are: OpenAI's library, its agents, LiteLLM, codex."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.environments import NotMade, made_once, others_environment
from tests.support.responses import call, calling
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as made:
        yield made


def test_the_sdk_creates(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="blue, as it happens"))
    done = client.responses.create(model="moa", input="why?", instructions="be brief")
    assert done.output_text == "blue, as it happens"
    assert done.status == "completed"
    assert done.usage is not None
    assert done.usage.total_tokens == sum(upstream.chats("agg")[0].usage)
    assert done.model_extra is not None
    assert done.model_extra["moa"]["calls"] == 4


def test_the_sdk_streams(client: openai.OpenAI, upstream: Upstream) -> None:
    pieces = ["one ", "two\n\n", "three é🌍"]
    upstream.always("agg", Reply(chunks=pieces, reasoning=["hm"]))
    told = []
    with client.responses.stream(
        model="moa", input="why?", reasoning={"summary": "auto"}
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                told.append(event.delta)
        done = stream.get_final_response()
    assert "".join(told) == done.output_text == "".join(pieces)
    assert [item.type for item in done.output] == ["reasoning", "message"]


def test_the_sdk_s_loop_of_tools_goes_round(client: openai.OpenAI, upstream: Upstream) -> None:
    said: Any = [{"role": "user", "content": "what is the weather in Rome?"}]
    upstream.enqueue("agg", calling(call(0, "weather", '{"city":', '"Rome"}')))
    upstream.enqueue("agg", Reply(text="sunny"))
    with client.responses.stream(model="moa", input=said, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") >= 1
    said += first.output
    (made,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(made.arguments) == {"city": "Rome"}
    said.append({"type": "function_call_output", "call_id": made.call_id, "output": "25 °C"})
    second = client.responses.create(model="moa", input=said, tools=[TOOL])
    assert second.output_text == "sunny"
    *_, called, result = upstream.chats("agg")[-1].messages
    assert called["tool_calls"][0]["id"] == result["tool_call_id"] == "call_0"


def test_the_sdk_parses(client: openai.OpenAI, upstream: Upstream) -> None:
    class Answer(BaseModel):
        colour: str

    upstream.always("agg", Reply(text='{"colour": "blue"}'))
    done = client.responses.parse(model="moa", input="why?", text_format=Answer)
    assert done.output_parsed == Answer(colour="blue")
    form = upstream.chats("agg")[0].body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Answer"


def test_the_sdk_raises_what_openai_would_have_it_raise(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.responses.create(model="no-such-model", input="why?")
    with pytest.raises(openai.BadRequestError, match="stores nothing between requests"):
        client.responses.create(model="moa", input="why?", previous_response_id="resp_1")
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    with (
        pytest.raises(openai.APIError, match="connection"),
        client.responses.stream(model="moa", input="why?") as stream,
    ):
        stream.until_done()


AGENT = """
import asyncio, sys
from agents import Agent, Runner, function_tool, set_tracing_disabled
from agents.models.openai_responses import OpenAIResponsesModel
from openai import AsyncOpenAI

set_tracing_disabled(True)

@function_tool
def weather(city: str) -> str:
    "The weather in a city."
    return f"25 degrees in {city}"

async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="any")
    model = OpenAIResponsesModel("moa", client)
    agent = Agent(name="a", instructions="be brief", model=model, tools=[weather])
    print((await Runner.run(agent, "weather?")).final_output)
    run = Runner.run_streamed(agent, "weather?")
    async for event in run.stream_events():
        pass
    print(run.final_output)

asyncio.run(main())
"""


@pytest.mark.slow
def test_openai_s_agents_call_a_tool(
    tmp_path_factory: pytest.TempPathFactory, server: Server, upstream: Upstream
) -> None:
    programs = others_environment(tmp_path_factory, "agents", "openai-agents>=0.4,<1")
    for _ in range(2):
        upstream.enqueue("agg", calling(call(0, "weather", '{"city": "Rome"}')))
        upstream.enqueue("agg", Reply(text="It is warm."))
    ran = subprocess.run(
        [str(programs / "python"), "-c", AGENT, server.url],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "It is warm.\nIt is warm.\n"
    results = [sent.messages[-1]["content"] for sent in upstream.chats("agg")[1::2]]
    assert results == ["25 degrees in Rome"] * 2


@pytest.fixture(scope="module")
def codex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, as released."""
    install = ("npm", "install", "--silent", "--prefix", "{}", "@openai/codex@0.171.0")
    try:
        folder = made_once(tmp_path_factory, "codex", install)
    except (NotMade, FileNotFoundError) as error:
        pytest.skip(f"codex cannot be installed: {str(error)[-300:]}")
    return folder / "node_modules" / ".bin" / "codex"


def run_codex(codex: Path, server: Server, folder: Path, prompt: str) -> str:
    """What codex says once it has done what it was told, in `folder`/repository."""
    repository, home = folder / "repository", folder / "home"
    for made in (repository, home):
        made.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    (home / "config.toml").write_text(
        'model = "moa"\nmodel_provider = "moa"\n[model_providers.moa]\nname = "moa"\n'
        f'base_url = "{server.url}"\nwire_api = "responses"\n'
    )
    ran = subprocess.run(
        [str(codex), "exec", "--dangerously-bypass-approvals-and-sandbox", prompt],
        cwd=repository,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CODEX_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_codex_edits_a_file_through_a_mixture_of_three(
    codex: Path, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    command = json.dumps({"cmd": "echo 'hello, mixture' > hello.txt"})
    deltas = [{"content": "I write it."}, *call(0, "exec_command", command[:9], command[9:])]
    upstream.enqueue("agg", calling(deltas, pause=0.02))
    upstream.always("agg", Reply(text="hello.txt is written."))
    assert run_codex(codex, server, tmp_path, "create hello.txt") == "hello.txt is written.\n"
    assert (tmp_path / "repository" / "hello.txt").read_text() == "hello, mixture\n"
    first, second = upstream.chats("agg")
    assert {"exec_command", "multi_agent_v1__spawn_agent"} <= {
        tool["function"]["name"] for tool in first.body["tools"]
    }
    *_, called, result = second.messages
    assert called["content"] == "I write it."
    assert called["tool_calls"][0]["function"]["arguments"] == command
    assert result["tool_call_id"] == "call_0"
    # The proposers are asked once for a user's message, and never get tools.
    assert len(upstream.chats("a")) == 1
    assert not any("tools" in sent.body for name in "abc" for sent in upstream.chats(name))


@pytest.mark.slow
def test_codex_says_why_a_mixture_failed(
    codex: Path, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    refused = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    upstream.always("*", Reply(status=400, error=refused))
    with pytest.raises(AssertionError, match="context"):
        run_codex(codex, server, tmp_path, "create hello.txt")

"""Released clients of Anthropic's API: its Python SDK, and Claude Code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.environments import NotMade, made_once, others_environment
from tests.support.messages_wire import calling
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

KEY = "sk-first-0123456789"
# Told by the test as JSON: the base URL. Prints what the SDK makes of the answers.
SDK = """
import asyncio, json, sys
import anthropic

base = sys.argv[1]
client = anthropic.Anthropic(base_url=base, api_key="KEY", max_retries=0)
said = [{"role": "user", "content": "why?"}]
look = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
told = {}

message = client.messages.create(model="moa", max_tokens=100, messages=said, system="be brief")
told["whole"] = [message.content[0].text, message.stop_reason, message.usage.output_tokens]

with client.messages.stream(
    model="moa", max_tokens=2000, messages=said, thinking={"type": "adaptive"}
) as stream:
    texts = list(stream.text_stream)
    message = stream.get_final_message()
told["streamed"] = ["".join(texts), [block.type for block in message.content]]
told["thought"] = message.content[0].thinking

# A loop of tools, with the thought sent back.
turns = [*said]
while True:
    with client.messages.stream(
        model="moa",
        max_tokens=2000,
        messages=turns,
        tools=[look],
        thinking={"type": "adaptive"},
    ) as stream:
        message = stream.get_final_message()
    turns.append({"role": "assistant", "content": message.content})
    if message.stop_reason != "tool_use":
        break
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"seen at {block.input['at']}"}
        for block in message.content
        if block.type == "tool_use"
    ]
    turns.append({"role": "user", "content": results})
told["loop"] = [message.content[-1].text, len(turns)]



@anthropic.beta_tool
def peek(at: str) -> str:
    "Looks."
    return f"peeked at {at}"


runner = client.beta.messages.tool_runner(
    model="moa", max_tokens=2000, tools=[peek], messages=said
)
told["runner"] = [message.content[-1].type for message in runner]

told["count"] = client.messages.count_tokens(model="moa", messages=said).input_tokens
told["beta"] = client.beta.messages.create(
    model="moa", max_tokens=5, messages=said, betas=["context-management-2025-06-27"]
).stop_reason
told["models"] = [model.id for model in client.models.list()][:2]
told["model"] = client.models.retrieve("moa").display_name


def raised(make):
    try:
        make()
    except anthropic.APIError as error:
        return type(error).__name__
    return None


create = client.messages.create
other = client.with_options(api_key="wrong")
told["errors"] = [
    raised(lambda: create(model="none", max_tokens=5, messages=said)),
    raised(lambda: create(model="moa", max_tokens=5, messages=[])),
    raised(lambda: other.messages.create(model="moa", max_tokens=5, messages=said)),
]


async def aside():
    async with anthropic.AsyncAnthropic(base_url=base, api_key="KEY", max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.messages.create(model="moa", max_tokens=5, messages=said) for _ in range(8))
        )
        return {answer.content[0].text for answer in answers}


told["async"] = sorted(asyncio.run(aside()))
print(json.dumps(told))
""".replace("KEY", KEY)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the SDK, as released."""
    return others_environment(tmp_path_factory, "anthropic", "anthropic>=0.70") / "python"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_anthropic_s_sdk_completes_streams_and_calls_tools(
    python: Path, moa: Moa, upstream: Upstream
) -> None:
    two = calling((0, '{"at": "x"}', "c1", "look"), (1, '{"at": "y"}', "c2", "look"), text="Hm.")
    upstream.enqueue(
        "agg",
        Reply(text="blue, as it happens"),
        Reply(reasoning=["hm"], chunks=["one ", "two é🌍"]),
        two,
        Reply(reasoning=["so"], text="seen"),
        *(calling((0, f'{{"at": "{at}"}}', f"p{at}", "peek")) for at in "abc"),
    )
    with serving(moa, "--api-key", KEY) as server:
        ran = subprocess.run(
            [str(python), "-c", SDK, server.root],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["whole"] == ["blue, as it happens", "end_turn", 4]
    assert told["streamed"] == ["one two é🌍", ["thinking", "text"]]
    assert told["thought"] == "hm"
    assert told["loop"] == ["seen", 4]
    # Newer versions send only what is new, until the server has said twice that it keeps nothing.
    assert told["runner"] == ["tool_use", "tool_use", "tool_use", "text"]
    assert 0 < told["count"] < 20
    assert told["beta"] == "end_turn"
    assert (told["models"], told["model"]) == (["moa", "lab"], "moa")
    assert told["errors"] == ["NotFoundError", "BadRequestError", "AuthenticationError"]
    assert told["async"] == ["ok"]
    results = [
        message["content"]
        for message in upstream.chats("agg")[3].messages
        if message["role"] == "tool"
    ]
    assert results == ["seen at x", "seen at y"]
    last = [message["content"] for message in upstream.chats("agg")[7].messages]
    assert [text for text in last if text and "peeked" in text] == [
        "peeked at a",
        "peeked at b",
        "peeked at c",
    ]


@pytest.fixture(scope="module")
def claude(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of Claude Code, as released."""
    install = ("npm", "install", "--silent", "--prefix", "{}", "@anthropic-ai/claude-code")
    try:
        folder = made_once(tmp_path_factory, "claude-code", install)
    except (NotMade, FileNotFoundError) as error:
        pytest.skip(f"Claude Code cannot be installed: {str(error)[-300:]}")
    return folder / "node_modules" / ".bin" / "claude"


def run_claude(claude: Path, server: Server, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `claude -p` tells of its run, in `folder`/repository."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": server.root,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_MODEL": "moa",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "moa",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    ran = subprocess.run(
        [str(claude), "-p", *arguments, "--output-format", "json"],
        cwd=folder / "repository",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.stdout, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_claude_code_edits_a_file_through_a_mixture_of_three(
    claude: Path, moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    file = repository / "hello.txt"
    file.write_text("hello, old world\n")
    read = json.dumps({"file_path": str(file)})
    edit = json.dumps({"file_path": str(file), "old_string": "old", "new_string": "new"})
    upstream.enqueue(
        "agg",
        calling((0, read[:9], "call_1", "Read"), (0, read[9:]), text="I read it."),
        calling((0, edit[:9], "call_2", "Edit"), (0, edit[9:])),
        Reply(reasoning=["hm"], text="It is done."),
    )
    with serving(moa, "--api-key", KEY, "--show-proposals") as server:
        told = run_claude(
            claude, server, tmp_path, "say new in hello.txt", "--allowedTools", "Read,Edit"
        )
    assert (told["is_error"], told["result"], told["num_turns"]) == (False, "It is done.", 3)
    assert file.read_text() == "hello, new world\n"
    first, second, third = upstream.chats("agg")
    assert {"Read", "Edit", "Bash"} <= {tool["function"]["name"] for tool in first.body["tools"]}
    *_, called, result = second.messages
    assert called["content"] == "I read it."
    assert json.loads(called["tool_calls"][0]["function"]["arguments"]) == json.loads(read)
    assert result["tool_call_id"] == "call_1"
    assert "hello, old world" in result["content"]
    # What it was shown of the proposals is not said again.
    assert not any("round 1" in str(message["content"]) for message in third.messages[1:])
    # The proposers are asked once, and are offered no tools.
    for name in "abc":
        (asked,) = upstream.chats(name)
        assert "tools" not in asked.body


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_claude_code_says_what_is_wrong(
    claude: Path, moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    with serving(moa, "--api-key", KEY) as server:
        unknown = run_claude(claude, server, tmp_path, "hello", "--model", "claude-opus-9")
        assert upstream.chats() == []
        refused = {"error": {"message": "too long", "code": "context_length_exceeded"}}
        upstream.always("*", Reply(status=400, error=refused))
        told = run_claude(claude, server, tmp_path, "hello")
    assert unknown["is_error"]
    assert "claude-opus-9" in unknown["result"]
    assert told["is_error"]
    assert "too long" in told["result"].lower()

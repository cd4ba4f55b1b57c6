"""`moa mcp`, used by the official client of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.collector import Collector
from tests.support.command import PATIENCE, Moa
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, TextContent

INTRODUCTION = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
ASKED = {"prompt": "why is the sky blue?"}


@asynccontextmanager
async def over_stdio(moa: Moa, *arguments: str, **options: Any) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "moa_cli", "mcp", *arguments],
        env=moa.environment,
        cwd=moa.folder,
    )
    async with Client(parameters, **options) as client:
        yield client


@asynccontextmanager
async def over_http(moa: Moa, *arguments: str, **options: Any) -> AsyncIterator[Client]:
    with moa.start("mcp", "--http", "--port", "0", *arguments) as process:
        server = Server(process, None, r"listening on (http://\S+)/mcp")
        try:
            async with Client(f"{server.root}/mcp", **options) as client:
                yield client
        finally:
            process.kill()
            server.close()


@pytest.fixture(params=[over_stdio, over_http])
def connect(request: pytest.FixtureRequest) -> Any:
    """The way to a server: `connect(moa, *arguments)` is a context."""
    return request.param


def text_of(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def spent_calls(moa: Moa) -> int:
    """How many calls the ledger of this machine holds."""
    told = json.loads(moa.run("history", "stats", "--json").text)
    return sum(row["calls"] for row in told["models"])


async def when(upstream: Upstream, model: str, *, sent: int = 0) -> None:
    """Until a call of that model is open, and so many chunks of it were sent."""

    def is_open() -> bool:
        return any(call.sent >= sent and not call.finished for call in upstream.chats(model))

    await asyncio.to_thread(upstream.wait_for, is_open)


def test_the_tools_name_the_profiles_that_can_be_asked(connect: Any, moa: Moa) -> None:
    moa.profile("quick", "a", description="One model is enough.")
    (moa.config / "profiles" / "broken.toml").write_text("rounds = 'x'")

    async def use() -> None:
        async with connect(moa) as client:
            found = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(found) == {"ask", "compare"}
            profile = found["ask"].input_schema["properties"]["profile"]
            assert {"moa", "lab", "quick"} <= set(profile["enum"])
            assert "broken" not in profile["enum"]
            assert not [name for name in profile["enum"] if ":" in name]
            assert "`quick`: One model is enough. (lab:a → lab:agg)" in profile["description"]
            several = found["compare"].input_schema["properties"]["profiles"]
            assert several["items"]["enum"] == profile["enum"]
            assert all(tool.output_schema for tool in found.values())

    asyncio.run(use())


@pytest.mark.parametrize("http", [False, True])
def test_the_start_counts_the_profiles_that_can_be_asked(moa: Moa, http: bool) -> None:
    arguments = ["--http", "--port", "0"] if http else []
    with moa.start("mcp", *arguments, stdin=subprocess.PIPE) as process:
        server = Server(process, None, r"(?:listening on (http://\S+)/mcp|waiting for requests)")
        process.kill()
        server.close()
    # `lab`, and the two of the package that need no key.
    assert server.log[0].endswith(
        "`moa` is profile lab: lab:a, lab:b, lab:c → lab:agg; 3 more profiles"
    )


def test_ask_gives_the_reply_and_the_ledger(connect: Any, moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="By scattering."))
    upstream.always("b", Reply(status=500))

    async def use() -> CallToolResult:
        async with connect(moa) as client:
            found: CallToolResult = await client.call_tool("ask", {**ASKED, "system": "Be short."})
            return found

    result = asyncio.run(use())
    assert not result.is_error
    assert text_of(result) == "By scattering."
    structured = result.structured_content
    assert structured["reply"] == "By scattering."
    ledger = structured["moa"]
    assert (ledger["profile"], ledger["calls"], ledger["degraded"]) == ("lab", 3, True)
    assert any(line.startswith("lab:b: ") for line in ledger["lost"])
    (call,) = upstream.chats("a")
    assert call.messages[0] == {"role": "system", "content": "Be short."}
    assert call.messages[-1] == {"role": "user", "content": ASKED["prompt"]}
    assert spent_calls(moa) == 3


def test_compare_shows_the_proposals_and_pays_for_no_reply(
    connect: Any, moa: Moa, upstream: Upstream
) -> None:
    for name in ("a", "b"):
        upstream.always(name, Reply(text=f"{name} says so"))
    upstream.always("c", Reply(status=500))

    async def use() -> CallToolResult:
        async with connect(moa) as client:
            found: CallToolResult = await client.call_tool("compare", ASKED)
            return found

    result = asyncio.run(use())
    assert not result.is_error
    first, second, lost = result.structured_content["answers"]
    assert [first["text"], second["text"], lost["text"]] == ["a says so", "b says so", None]
    assert lost["error"]
    assert text_of(result).startswith(
        "## 1. lab:a\n\na says so\n\n## 2. lab:b\n\nb says so\n\n## 3. lab:c\n\n("
    )
    assert upstream.chats("agg") == []
    (ledger,) = result.structured_content["moa"]
    assert ledger["calls"] == spent_calls(moa) == 2
    assert [line[:7] for line in ledger["lost"]] == ["lab:c: "]


def test_compare_shows_the_replies_of_several_profiles(
    connect: Any, moa: Moa, upstream: Upstream
) -> None:
    moa.profile("solo", aggregator="alone", rounds=0)
    moa.profile("lost", aggregator="gone", rounds=0)
    upstream.always("alone", Reply(text="me"))
    upstream.always("agg", Reply(text="all of us"))
    upstream.always("gone", Reply(status=404))

    async def use() -> CallToolResult:
        async with connect(moa) as client:
            arguments = {**ASKED, "profiles": ["lab", "solo", "lost"]}
            found: CallToolResult = await client.call_tool("compare", arguments)
            return found

    result = asyncio.run(use())
    answers = result.structured_content["answers"]
    assert [(answer["name"], answer["text"]) for answer in answers] == [
        ("lab", "all of us"),
        ("solo", "me"),
        ("lost", None),
    ]
    assert "gone" in answers[2]["error"]
    assert [ledger["calls"] for ledger in result.structured_content["moa"]] == [4, 1, 0]


def test_progress_is_told_for_each_proposer_and_while_the_reply_is_written(
    connect: Any, moa: Moa, upstream: Upstream
) -> None:
    hold = threading.Event()
    upstream.always("b", Reply(status=500))
    upstream.always("agg", Reply(text="one two three", after=hold))
    told: list[tuple[float, float | None, str]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message or ""))
        if message == "lab:agg writes the reply":
            hold.set()

    async def use() -> None:
        async with connect(moa) as client:
            await client.call_tool("ask", ASKED, progress_callback=note)

    asyncio.run(use())
    values = [value for value, _, _ in told]
    assert values == sorted(set(values))
    assert {total for _, total, _ in told} == {4}
    assert max(values) < 4
    messages = [message for _, _, message in told]
    assert {"lab:a answered", "lab:c answered", "lab:agg writes the reply"} <= set(messages)
    assert any(message.startswith("lab:b gave no answer: ") for message in messages)


def test_a_long_wait_is_told_of(moa: Moa, upstream: Upstream) -> None:
    hold = threading.Event()
    upstream.always("c", Reply(after=hold))

    async def note(progress: float, total: float | None, message: str | None) -> None:
        if message == "waiting for lab:c":
            hold.set()

    async def use() -> None:
        async with over_stdio(moa) as client:
            await client.call_tool("ask", ASKED, progress_callback=note)

    asyncio.run(use())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_cancelled_request_cancels_its_turn(
    connect: Any, mode: str, moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="one two", stall_after=1))

    async def use() -> None:
        async with connect(moa, mode=mode) as client:
            call = asyncio.create_task(client.call_tool("ask", ASKED))
            await when(upstream, "agg", sent=1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(upstream.wait_for, lambda: upstream.in_flight == 0)
            # The server goes on.
            upstream.always("agg", Reply(text="again"))
            assert text_of(await client.call_tool("ask", ASKED)) == "again"

    asyncio.run(use())
    # The cancelled call counts, too.
    assert spent_calls(moa) == 8


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {"prompt": "x", "profile": "lob"}, "profile: there is no profile 'lob'; did you"),
    ("ask", {"prompt": "x", "profile": "../lab"}, "profile: there is no profile '../lab'"),
    ("ask", {"prompt": " "}, "prompt: must be a text that is not empty"),
    ("ask", {"prompt": 7}, "prompt: must be a text that is not empty"),
    ("ask", {"prompt": "x", "system": []}, "system: must be a text"),
    ("ask", {"prompt": "x", "model": "y"}, "ask takes no 'model', only `prompt`, `profile`"),
    ("compare", {"prompt": "x", "profiles": []}, "profiles: must be a list of names"),
    ("compare", {"prompt": "x", "profiles": "lab"}, "profiles: must be a list of names"),
    ("compare", {"prompt": "x", "profiles": ["flat"]}, "profiles: 'flat' has no proposers"),
    ("compare", {"prompt": "x", "profiles": ["lost", "lost"]}, "profiles: 'lost' has no"),
    (
        "ask",
        {"prompt": "x", "profile": "lost"},
        "the turn ended without a complete reply; lab:gone: ",
    ),
    ("other", {}, "there is no tool 'other'"),
]


def test_what_is_wrong_is_an_error_of_the_tool_in_one_line(
    connect: Any, moa: Moa, upstream: Upstream
) -> None:
    moa.profile("flat", aggregator="agg", rounds=0)
    moa.profile("lost", aggregator="gone", rounds=0)
    upstream.always("gone", Reply(status=404))

    async def use() -> None:
        async with connect(moa) as client:
            for tool, arguments, said in WRONG:
                result = await client.call_tool(tool, arguments)
                assert result.is_error
                assert said in text_of(result), text_of(result)
                assert "\n" not in text_of(result)

    asyncio.run(use())


def test_caps_and_budgets_hold(connect: Any, moa: Moa, upstream: Upstream) -> None:
    async def use() -> CallToolResult:
        async with connect(moa, "--max-total-tokens", "5") as client:
            found: CallToolResult = await client.call_tool("ask", ASKED)
            return found

    result = asyncio.run(use())
    assert result.is_error
    assert "--max-total-tokens" in text_of(result)
    assert upstream.chats() == []


def test_what_others_have_spent_is_not_told(connect: Any, moa: Moa, upstream: Upstream) -> None:
    # A turn takes $0.20, of which somebody else has spent two.
    upstream.always("agg", Reply(text="two words"))
    moa.profile("lab", aggregator={"model": "lab:agg", "max_tokens": 2})
    for name in ("day", "session"):
        moa.configure(
            providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
            prices={"lab:agg": {"prompt": 0, "completion": 1e5}},
            budget={name: 0.7 if name == "day" else 0.3},
        )
        if name == "day":
            for _ in range(2):
                assert moa.run("ask", "why?").code == 0

        async def use() -> list[CallToolResult]:
            async with connect(moa) as client:
                return [await client.call_tool("ask", ASKED) for _ in range(2)]

        first, second = asyncio.run(use())
        assert first.structured_content["moa"]["cost"] == pytest.approx(0.2)
        assert second.is_error
        assert f"budget.{name} $" in text_of(second)
        assert "leaves no room for up to $0.20 more" in text_of(second)
        told = json.dumps(second.structured_content) + text_of(second)
        assert "spent" not in told
        assert "reserved" not in told


def test_a_call_is_a_trace_for_each_profile_that_it_asks(
    connect: Any, moa: Moa, upstream: Upstream
) -> None:
    moa.profile("team", "b", aggregator="agg")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Collector() as collector:
        moa.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.root

        async def use() -> None:
            async with connect(moa) as client:
                both = {**ASKED, "profiles": ["moa", "team"]}
                result = await client.call_tool("compare", both, meta={"traceparent": parent})
                assert not result.is_error
                upstream.wait_for(lambda: len(collector.spans) == 8)

        asyncio.run(use())
    roots = [span for span in collector.spans if span.name.startswith("invoke_workflow")]
    assert {span.attributes["moa.model"] for span in roots} == {"moa", "team"}
    assert {span.trace for span in collector.spans} == {parent.split("-")[1]}
    assert {span.parent for span in roots} == {parent.split("-")[2]}


def test_it_ends_with_its_parent_and_keeps_what_was_spent(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two", stall_after=1))
    with moa.start("mcp", stdin=subprocess.PIPE, fresh=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message in (
            {
                "id": 1,
                "method": "initialize",
                "params": INTRODUCTION,
            },
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": {"name": "ask", "arguments": ASKED}},
        ):
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()
        upstream.wait_for(
            lambda: any(call.sent and not call.finished for call in upstream.chats("agg"))
        )
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        # Nothing but messages.
        for line in process.stdout:
            assert json.loads(line)["jsonrpc"] == "2.0"
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert spent_calls(moa) == 4


def test_a_prompt_that_ends_in_half_an_emoji_is_answered(moa: Moa, upstream: Upstream) -> None:
    ask = {"name": "ask", "arguments": {"prompt": "why \U0001f600 \ud83d"}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": INTRODUCTION},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": ask},
    ]
    with moa.start("mcp", stdin=subprocess.PIPE, fresh=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()
        upstream.wait_for(lambda: bool(upstream.chats("agg")))
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert answers[1]["result"]["content"] == [{"type": "text", "text": "ok"}]
    assert upstream.chats("a")[0].messages[-1]["content"] == "why \U0001f600 ?"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_its_parent_lives(moa: Moa, number: int) -> None:
    with moa.start("mcp", stdin=subprocess.PIPE, fresh=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        assert "waiting for requests on standard input; `moa` is profile lab" in first
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number


def test_an_http_server_ends_at_a_signal_although_clients_listen(moa: Moa) -> None:
    async def use() -> None:
        with moa.start("mcp", "--http", "--port", "0", "--grace", "50", fresh=True) as process:
            server = Server(process, None, r"listening on (http://\S+)/mcp")
            try:
                async with Client(f"{server.root}/mcp", mode="legacy") as client:
                    await client.list_tools()
                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(process.wait, 20) == 0
            finally:
                process.kill()
                server.close()

    asyncio.run(use())


def test_web_pages_and_other_names_are_kept_out(moa: Moa) -> None:
    with moa.start("mcp", "--http", "--port", "0") as process:
        server = Server(process, None, r"listening on (http://\S+)/mcp")
        try:
            for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
                refused = server.http.post(f"{server.root}/mcp", json={}, headers=headers)
                assert refused.status_code == 403
        finally:
            process.kill()
            server.close()


def test_a_wrong_path_is_told_the_right_one(moa: Moa) -> None:
    with moa.start("mcp", "--http", "--port", "0") as process:
        server = Server(process, None, r"listening on (http://\S+)/mcp")
        try:
            missed = server.http.post(f"{server.root}/mcp/", json={})
            assert missed.status_code == 404
            assert "did you mean /mcp?" in missed.text
        finally:
            process.kill()
            server.close()


def test_other_machines_need_a_key(moa: Moa) -> None:
    ran = moa.run("mcp", "--http", "--host", "0.0.0.0", "--port", "0")
    assert ran.code == 2
    assert "without a key, anybody who reaches 0.0.0.0 could spend your money" in ran.err
    keys = moa.folder / "keys"
    keys.write_text("a-long-key\n")

    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INTRODUCTION}
    accepted = {"accept": "application/json, text/event-stream"}
    with moa.start("mcp", "--http", "--port", "0", "--api-key-file", str(keys)) as process:
        server = Server(process, None, r"listening on (http://\S+)/mcp")
        try:
            for key, status in ((None, 401), ("another", 401), ("a-long-key", 200)):
                headers = accepted | ({"authorization": f"Bearer {key}"} if key else {})
                answer = server.http.post(f"{server.root}/mcp", json=hello, headers=headers)
                assert answer.status_code == status
        finally:
            process.kill()
            server.close()


def test_options_of_the_http_server_need_it(moa: Moa) -> None:
    for option in (["--port", "1"], ["--host", "localhost"], ["--insecure"]):
        ran = moa.run("mcp", *option)
        assert ran.code == 2
        assert ran.err == f"moa: {option[0]} needs --http\n"


def test_without_the_extra_it_says_how_to_install_it(moa: Moa) -> None:
    (moa.folder / "hide.py").write_text("import sys\nsys.modules['mcp'] = None\n")
    hidden = (
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'mcp' else real(name, *rest);"
        "from moa_cli.__main__ import main; raise SystemExit(main())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", hidden, "mcp"],
        env={**moa.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("moa: the MCP server is not installed")
    assert "moa-chat[mcp]" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_request_that_is_none_is_refused_and_the_server_goes_on(moa: Moa) -> None:
    async def use() -> None:
        async with over_stdio(moa) as client:
            with pytest.raises(MCPError):
                await client.session.read_resource("moa://nothing")
            assert text_of(await client.call_tool("ask", ASKED)) == "ok"

    asyncio.run(use())


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_CONTEXT"])
def test_parts_of_opentelemetry_that_other_programs_use_are_not_looked_for(
    moa: Moa, upstream: Upstream, variable: str
) -> None:
    ran = moa.run("mcp", stdin=b"", env={variable: "of-another-program"}, fresh=True)
    assert (ran.code, "Traceback" in ran.err) == (0, False), ran.err

"""Clients that are not OpenAI's own: Together's SDK, the `llm` command, and this program."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import together

from tests.support.command import KEY, Moa
from tests.support.environments import others_environment
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

SAID: Any = [{"role": "user", "content": "why?"}]
MAJOR = int(together.__version__.partition(".")[0])


def base(server: Server) -> str:
    """The base URL: from version 3 on, the SDK adds /v1 by itself."""
    return server.root if MAJOR >= 3 else server.url


@pytest.fixture
def client(server: Server) -> Iterator[together.Together]:
    with together.Together(base_url=base(server), api_key="any", max_retries=0) as made:
        yield made


def test_together_completes(client: together.Together, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="blue, as it happens"))
    done = client.chat.completions.create(
        model="moa", messages=SAID, temperature=0.5, max_tokens=50, stop=["\n\n"]
    )
    assert done.choices[0].message is not None
    assert done.choices[0].message.content == "blue, as it happens"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.total_tokens == sum(upstream.usage_total)
    (call,) = upstream.chats("agg")
    assert (call.body["max_tokens"], call.body["stop"]) == (50, ["\n\n"])


def test_together_streams(client: together.Together, upstream: Upstream) -> None:
    pieces = ["one ", "two\n\n", "three é🌍"]
    upstream.always("agg", Reply(chunks=pieces))
    stream = client.chat.completions.create(
        model="moa",
        messages=SAID,
        stream=True,
        extra_body={"stream_options": {"include_usage": True}, "moa": {"rounds": 2}},
    )
    *told, last = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in told) == "".join(pieces)
    assert told[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.total_tokens == sum(upstream.usage_total)


def test_together_raises_what_it_would_for_its_own_service(
    client: together.Together, upstream: Upstream, moa: Moa
) -> None:
    create = client.chat.completions.create
    with pytest.raises(together.NotFoundError, match="no-such-model"):
        create(model="no-such-model", messages=SAID)
    # Together's own fields that are not OpenAI's reach the model that writes the reply.
    create(model="moa", messages=SAID, top_k=5)
    assert upstream.chats("agg")[-1].body["top_k"] == 5
    assert "top_k" not in upstream.chats("a")[-1].body
    with pytest.raises(together.BadRequestError, match="`top_p`"):
        create(model="moa", messages=SAID, top_p=5)
    upstream.always("*", Reply(status=429))
    with pytest.raises(together.RateLimitError):
        create(model="moa", messages=SAID)
    upstream.always("*", Reply(stall_after=0))
    with pytest.raises(together.APITimeoutError):
        create(model="moa", messages=SAID, timeout=0.5)
    upstream.wait_for(lambda: upstream.in_flight == 0)
    with (
        serving(moa, "--api-key", "right-key") as locked,
        together.Together(base_url=base(locked), api_key="wrong-key") as other,
        pytest.raises(together.AuthenticationError),
    ):
        other.chat.completions.create(model="moa", messages=SAID)


def test_together_s_async_client_completes_and_cancels(server: Server, upstream: Upstream) -> None:
    async def use() -> None:
        async with together.AsyncTogether(base_url=base(server), api_key="any") as client:
            create = client.chat.completions.create
            done = await asyncio.gather(*(create(model="moa", messages=SAID) for _ in range(8)))
            texts = {
                answer.choices[0].message and answer.choices[0].message.content for answer in done
            }
            assert texts == {"ok"}
            upstream.always("agg", Reply(text="one two", stall_after=1))
            task = asyncio.create_task(create(model="moa", messages=SAID))
            await asyncio.to_thread(
                upstream.wait_for,
                lambda: any(
                    request.sent == 1 and not request.finished for request in upstream.chats("agg")
                ),
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            upstream.wait_for(lambda: upstream.in_flight == 0)

    asyncio.run(use())


@pytest.fixture
def outer(server: Server, tmp_path: Path) -> Moa:
    """The command on another machine, which knows the server as the provider `outer`."""
    made = Moa(tmp_path / "outside", server.url)
    made.configure(providers={"outer": {"base_url": server.url, "api_key_env": "LAB_KEY"}})
    made.profile(
        "lab", {"model": "outer:moa"}, {"model": "outer:lab"}, aggregator={"model": "outer:moa"}
    )
    return made


def test_a_mixture_is_one_model_of_another_mixture(outer: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="from below"))
    ran = outer.run("ask", "-m", "outer:moa", "--json", "why?")
    assert ran.code == 0, ran.err
    told = json.loads(ran.text)
    assert told["reply"] == "from below"
    # A proposer and the aggregator, each of them a mixture of four calls.
    assert len(upstream.chats()) == 2 * 4
    # A call's usage is that of the whole mixture below.
    prompt, completion = upstream.usage_total
    assert told["usage"]["prompt_tokens"] == prompt
    assert told["usage"]["completion_tokens"] == completion
    assert outer.run("ask", "why?").text == "from below\n"
    assert len(upstream.chats()) == (2 + 3) * 4


def test_a_mixture_behind_a_server_streams_through(outer: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["one ", "two"], stall_after=1))
    with outer.terminal("ask", "-r", "0", "why?") as terminal:
        terminal.wait_for("one")
        assert upstream.chats("agg")[0].sent == 1
        terminal.send("\x03")
        terminal.wait()
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_a_failure_below_is_told_above(outer: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    ran = outer.run("ask", "-m", "outer:moa", "why?")
    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert KEY not in ran.err
    missing = outer.run("ask", "-m", "outer:none", "why?")
    assert missing.code == 77
    assert missing.text == ""
    assert "none" in missing.err
    assert "Traceback" not in missing.err


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `llm` command, as released, in an environment of its own."""
    return others_environment(tmp_path_factory, "llm", "llm") / "llm"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_llm_command_asks_and_chats_on(
    llm: Path, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    settings = tmp_path / "llm"
    settings.mkdir()
    entry = f"- model_id: moa\n  model_name: moa\n  api_base: {server.url}\n"
    (settings / "extra-openai-models.yaml").write_text(entry)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "LLM_USER_PATH": str(settings),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(llm), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    pieces = ["one ", "two\n\n", "three é🌍"]
    upstream.always("agg", Reply(chunks=pieces))
    for options in ((), ("--no-stream",), ("-o", "temperature", "0.2"), ("-s", "be brief")):
        asked = run("-m", "moa", *options, "hi")
        assert (asked.returncode, asked.stdout) == (0, "".join(pieces) + "\n"), asked.stderr
    assert upstream.chats("agg")[-1].messages[0]["role"] == "system"
    # The conversation goes on with what was said before.
    upstream.always("agg", Reply(text="more"))
    assert run("-c", "and then?").stdout == "more\n"
    assert "three é🌍" in [
        message["content"].split("\n\n")[-1] for message in upstream.chats("a")[-1].messages
    ]
    logged = json.loads(run("logs", "-n", "1", "--json").stdout)[0]
    assert logged["input_tokens"] > 0
    run("-m", "moa", "-o", "logit_bias", '{"5": 1}', "hi")
    assert upstream.chats("agg")[-1].body["logit_bias"] == {"5": 1}

"""Open WebUI in a browser without a window, with its default settings, over a mixture of three."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.released_clients.conftest import PROGRAMS, Lab, large, png
from tests.released_clients.scripted import HELLO, calling, results_of, text_of, tools_of
from tests.support.browser import browser
from tests.support.command import PATIENCE
from tests.support.network import nobody
from tests.support.upstream import Reply, Request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), large(gigabytes=2)]

SEEN = "It is a red point."
PROPOSAL = "a would look at it closely."
# What it asks beside each message, all in one.
ASIDE = {"title": "A Fine Title", "tags": ["Greeting"], "follow_ups": ["And what comes next?"]}
CLOCK = "get_current_timestamp"
_PACKAGES = ("open-webui==0.12.4", "playwright==1.65.2")
# They make embeddings and transcripts, and are large.
_WITHOUT = ("torch", "transformers", "sentence-transformers", "accelerate")


@pytest.fixture
def options() -> list[str]:
    return ["--show-proposals"]


class WebUI:
    """A person at Open WebUI, whose steps are those of `programs/open_webui.py`."""

    def __init__(self, program: subprocess.Popen[str], log: Path) -> None:
        self._program, self._log = program, log

    def __getattr__(self, step: str) -> Any:
        def do(*given: str) -> Any:
            assert self._program.stdin is not None
            assert self._program.stdout is not None
            self._program.stdin.write(json.dumps([step, *given]) + "\n")
            self._program.stdin.flush()
            told = self._program.stdout.readline()
            assert told, self._log.read_text("utf-8")[-6000:]
            return json.loads(told)

        return do


@contextmanager
def opened(lab: Lab, **settings: str) -> Iterator[WebUI]:
    """Open WebUI in a browser, at an empty chat. settings: variables of its environment."""
    chromium = browser()
    programs = lab.python("open-webui", *_PACKAGES, without=_WITHOUT)
    port = nobody()
    root = f"http://127.0.0.1:{port}"
    environment = {
        **lab.environment,
        "OPENAI_API_BASE_URL": lab.server.url,
        "WEBUI_AUTH": "False",
        "ENABLE_OLLAMA_API": "False",
        "DATA_DIR": str(lab.home / "data"),
        # Nothing from elsewhere, and no embeddings made here.
        "OFFLINE_MODE": "True",
        "RAG_EMBEDDING_ENGINE": "openai",
        "ANONYMIZED_TELEMETRY": "False",
        **settings,
    }
    log = lab.home / "log"
    serve = [str(programs / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    person = [str(programs / "python"), str(PROGRAMS / "open_webui.py")]
    with ExitStack() as stack:
        file = stack.enter_context(log.open("w"))
        options: dict[str, Any] = {"cwd": lab.home, "stderr": file, "text": True}
        server = stack.enter_context(
            subprocess.Popen(
                serve, env=environment, stdin=subprocess.DEVNULL, stdout=file, **options
            )
        )
        stack.callback(server.kill)
        _wait_for(f"{root}/health", server, log)
        program = stack.enter_context(
            subprocess.Popen(
                person,
                env=environment | {"WEBUI_URL": root, "BROWSER": chromium},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                **options,
            )
        )
        stack.callback(program.kill)
        yield WebUI(program, log)
        # So that it closes its browser.
        program.communicate(timeout=PATIENCE)


def _wait_for(url: str, server: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(log.read_text("utf-8")[-6000:])


def asked(request: Request) -> str:
    """What the user said last, without the note for those who get no tools."""
    said = [text_of(m) for m in request.messages if m["role"] == "user"][-1]
    return said.partition("\n\n[You have no tools")[0]


def is_aside(request: Request) -> bool:
    """Whether it is asked for a title or the like."""
    return asked(request).startswith("### Task:")


def calls(lab: Lab, model: str, text: str) -> list[Request]:
    """The calls of a model for a message of the user, which others may have added to."""
    chats = [call for call in lab.upstream.chats(model) if not is_aside(call)]
    return [call for call in chats if text in asked(call)]


def images(request: Request) -> list[str]:
    """The addresses of the images in what the user said last."""
    content = request.messages[-1]["content"]
    parts = content if isinstance(content, list) else []
    return [part["image_url"]["url"] for part in parts if "image_url" in part]


def reply(request: Request) -> Reply:
    """The aggregator's answer."""
    if is_aside(request):
        return Reply(text=json.dumps(ASIDE))
    if results := results_of(request):
        return Reply(text=f"The clock says: {results[-1]}")
    if "time" in asked(request) and CLOCK in tools_of(request):
        return calling((CLOCK, {}))
    return Reply(text=SEEN if images(request) else HELLO)


def check_answers(webui: WebUI) -> None:
    webui.say("Hello")
    webui.read(HELLO)
    webui.unfold(PROPOSAL)


def check_asides(lab: Lab, webui: WebUI) -> None:
    """The requests beside the first message are made, and what they brought is shown."""
    webui.read(ASIDE["title"])
    webui.find_tag(ASIDE["tags"][0])
    webui.read(ASIDE["follow_ups"][0])
    assert sum(map(is_aside, lab.upstream.chats("agg"))) == 3


def test_a_conversation_with_default_settings(lab: Lab) -> None:
    lab.upstream.always("agg", reply)
    picture = lab.home / "red.png"
    picture.write_bytes(png())
    with opened(lab) as webui:
        check_answers(webui)
        check_asides(lab, webui)

        webui.say("What time is it?")
        webui.read("The clock says:")
        webui.attach(str(picture))
        webui.say("What is it?")
        webui.read(SEEN)
    hello, *_ = calls(lab, "agg", "Hello")
    assert len(tools_of(hello)) > 30
    # It acted once, on one set of proposals.
    assert [len(calls(lab, model, "What time is it?")) for model in ("a", "agg")] == [1, 2]
    for model in ("a", "b", "c", "agg"):
        (seen,) = calls(lab, model, "What is it?")
        assert images(seen) == [lab.environment["IMAGE_URL"]]
    lab.check_proposers()


def test_stop_ends_the_calls_at_any_time(lab: Lab) -> None:
    never = threading.Event()

    def proposal(request: Request) -> Reply:
        hangs = asked(request) == "Propose for ever."
        return Reply(text=PROPOSAL, after=never if hangs else None)

    def merged(request: Request) -> Reply:
        if asked(request) == "Merge for ever.":
            return Reply(after=never)
        if asked(request) == "Write for ever.":
            return Reply(text="On and on and on.", stall_after=3)
        return reply(request)

    for model in ("a", "b", "c"):
        lab.upstream.always(model, proposal)
    lab.upstream.always("agg", merged)
    with opened(lab) as webui:

        def stop(text: str, *models: str) -> None:
            webui.stop()
            ended = [call for model in models for call in calls(lab, model, text)]
            assert len(ended) == len(models)
            lab.upstream.wait_for(lambda: all(call.disconnected for call in ended))

        webui.say("Propose for ever.")
        lab.upstream.wait_for(lambda: len(calls(lab, "c", "Propose for ever.")) == 1)
        stop("Propose for ever.", "a", "b", "c")
        webui.say("Merge for ever.")
        # The proposals are there to be read before there is a reply.
        webui.unfold(PROPOSAL)
        lab.upstream.wait_for(lambda: len(calls(lab, "agg", "Merge for ever.")) == 1)
        stop("Merge for ever.", "agg")
        webui.say("Write for ever.")
        webui.read("On and on")
        stop("Write for ever.", "agg")
        # What was stopped does not stand in the way of what follows.
        check_answers(webui)
        lab.upstream.wait_for(lambda: not lab.upstream.in_flight)


def test_a_model_for_titles_and_the_like_asks_no_proposers(lab: Lab) -> None:
    lab.upstream.always("agg", reply)
    with opened(lab, TASK_MODEL_EXTERNAL="moa:solo") as webui:
        check_answers(webui)
        check_asides(lab, webui)
    assert [asked(call) for call in lab.upstream.chats("a")] == ["Hello"]

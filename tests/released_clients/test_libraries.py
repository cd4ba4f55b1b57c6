"""Released libraries, each in an environment of its own, used to the end through a mixture."""

from __future__ import annotations

from typing import Any

import pytest

from tests.released_clients.conftest import Lab
from tests.released_clients.scripted import HELLO, PERSON, WEATHER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOOPED = f"The tool says: {WEATHER}"
SEEN = "I see 1 image."
OPENAI = "openai==3.57.0"


def checked(lab: Lab, told: dict[str, Any], **expected: Any) -> None:
    assert told == expected, "\n".join(lab.server.log)
    lab.check_proposers()


def test_openai_python(lab: Lab) -> None:
    told = lab.program(lab.python("openai", OPENAI), "openai_sdk")
    assert told.pop("usage") > 0
    checked(lab, told, whole=LOOPED, streamed=LOOPED, parsed=PERSON, text=HELLO, image=SEEN)
    # Two tool loops of two requests each ask the proposers once each; so do the others.
    assert len(lab.upstream.chats("agg")) == 7
    assert len(lab.upstream.chats("a")) == 5


def test_anthropic_python(lab: Lab) -> None:
    told = lab.program(lab.python("anthropic", "anthropic==2.14.0"), "anthropic_sdk")
    checked(lab, told, whole=LOOPED, streamed=LOOPED, text=HELLO, image=SEEN, counted=True)


def test_langchain(lab: Lab) -> None:
    python = lab.python("langchain", "langchain==1.5.0", "langchain-openai==1.7.4")
    ways = dict.fromkeys(("json_schema", "function_calling", "json_mode"), PERSON)
    checked(
        lab, lab.program(python, "langchain_agent"), loop=LOOPED, text=HELLO, image=SEEN, **ways
    )


def test_pydantic_ai(lab: Lab) -> None:
    python = lab.python("pydantic-ai", "pydantic-ai-slim[openai]==2.68.0")
    ways = dict.fromkeys(("ToolOutput", "NativeOutput", "PromptedOutput"), PERSON)
    checked(lab, lab.program(python, "pydantic_agent"), loop=LOOPED, text=HELLO, image=SEEN, **ways)


def test_instructor(lab: Lab) -> None:
    told = lab.program(lab.python("instructor", "instructor==1.17.0"), "instructor_models")
    checked(lab, told, **dict.fromkeys(("TOOLS", "JSON", "JSON_SCHEMA", "partial"), PERSON))


def test_llama_index(lab: Lab) -> None:
    python = lab.python("llama-index", "llama-index-llms-openai-like==0.8.1")
    told = lab.program(python, "llama_index_agent")
    checked(lab, told, loop=LOOPED, structured=PERSON, text=HELLO)


def test_autogen(lab: Lab) -> None:
    python = lab.python("autogen", "autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5")
    checked(lab, lab.program(python, "autogen_agent"), loop=LOOPED, structured=PERSON)


def test_smolagents(lab: Lab) -> None:
    python = lab.python("smolagents", "smolagents[openai]==1.26.0")
    checked(lab, lab.program(python, "smolagents_agent"), loop=WEATHER, code="42")


def test_litellm(lab: Lab) -> None:
    told = lab.program(lab.python("litellm", "litellm==1.110.2"), "litellm_sdk")
    checked(lab, told, loop=LOOPED, structured=PERSON, text=HELLO)


def test_dspy(lab: Lab) -> None:
    told = lab.program(lab.python("dspy", "dspy==3.4.1"), "dspy_program")
    checked(lab, told, ChatAdapter=PERSON, JSONAdapter=PERSON)


@pytest.mark.parametrize("wire", ["chat_completions", "responses"])
def test_openai_agents(lab: Lab, wire: str) -> None:
    python = lab.python("openai-agents", "openai-agents==0.24.0")
    told = lab.program(python, "openai_agents", WIRE=wire)
    checked(lab, told, loop=LOOPED, streamed=LOOPED, structured=PERSON)


def test_inspect(lab: Lab) -> None:
    python = lab.python("inspect", "inspect-ai==0.3.285", OPENAI)
    checked(lab, lab.program(python, "inspect_task"), status="success", loop=LOOPED)


def test_openai_javascript(lab: Lab) -> None:
    modules = lab.node("openai-js", "openai@7.55.0", "zod@4")
    told = lab.script(modules, "openai_sdk", RESPONSES="1")
    assert told.pop("usage") > 0
    checked(lab, told, loop=LOOPED, parsed=PERSON, text=HELLO, response=HELLO)


@pytest.mark.parametrize("wire", ["compatible", "chat", "responses", "messages"])
def test_vercel_ai_sdk(lab: Lab, wire: str) -> None:
    modules = lab.node(
        "ai-sdk",
        "ai@7.0.173",
        "@ai-sdk/openai@4.0.118",
        "@ai-sdk/openai-compatible@3.0.92",
        "@ai-sdk/anthropic@4",
        "zod@4",
    )
    told = lab.script(modules, "ai_sdk", WIRE=wire)
    checked(lab, told, loop=LOOPED, streamed=LOOPED, structured=PERSON, image=SEEN)

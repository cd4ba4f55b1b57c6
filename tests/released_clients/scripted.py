"""A scripted model that calls the tools it is offered, and keeps to the schemas it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.upstream import Reply, Request

__all__ = ["HELLO", "PERSON", "WEATHER", "answer", "calling", "editing"]

PERSON = {"name": "Ada", "age": 36}
HELLO = "Hello from the mixture."
# What the tool of the programs says.
WEATHER = "Paris: sunny, 21 °C"
# Tools by which frameworks take the final answer.
_FINAL = {"final_answer": {"answer": WEATHER}}
_MARKS = "[[ ## name ## ]]\nAda\n\n[[ ## age ## ]]\n36\n\n[[ ## completed ## ]]"
_CODE = "Thoughts: I add.\n<code>\nfinal_answer(20 + 22)\n</code>"


def calling(*calls: tuple[str, dict[str, Any]]) -> Reply:
    """An answer that calls tools, each with a name and arguments, as OpenAI streams it."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    events: list[object] = [_chunk({"role": "assistant", "content": None})]
    for index, (name, arguments) in enumerate(calls):
        head = {"index": index, "id": f"call_{name}_{index}", "type": "function"}
        events.append(
            _chunk({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
        )
        text = json.dumps(arguments)
        for piece in (text[:5], text[5:]):
            said = {"index": index, "function": {"arguments": piece}}
            events.append(_chunk({"tool_calls": [said]}))
    events += [_chunk({}, "tool_calls"), {**_chunk(None), "usage": usage}, "[DONE]"]
    return Reply(events=events)


def _chunk(delta: dict[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "agg",
        "choices": choices,
    }


def tools_of(request: Request) -> dict[str, Any]:
    """The functions that a request offers, by name."""
    return {tool["function"]["name"]: tool["function"] for tool in request.body.get("tools") or ()}


def results_of(request: Request) -> list[str]:
    """The results of tools since the user spoke last."""
    found: list[str] = []
    for message in request.messages:
        if message["role"] == "user":
            found = []
        elif message["role"] == "tool":
            found.append(text_of(message))
    return found


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whatever its form."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _images(request: Request) -> int:
    contents = [message.get("content") for message in request.messages]
    return sum(
        part.get("type") == "image_url"
        for content in contents
        if isinstance(content, list)
        for part in content
    )


def answer(request: Request) -> Reply:
    """The aggregator's answer to the programs of this folder."""
    tools, results = tools_of(request), results_of(request)
    choice, form = request.body.get("tool_choice"), request.body.get("response_format")
    asked = " ".join(text_of(m) for m in request.messages if m["role"] in ("user", "system"))
    if isinstance(choice, dict):
        return calling((choice["function"]["name"], PERSON))
    for name, function in tools.items():
        if PERSON.keys() <= function["parameters"].get("properties", {}).keys():
            return calling((name, PERSON))
    if "get_weather" in tools and not results and WEATHER not in asked:
        return calling(("get_weather", {"city": "Paris"}))
    for name, arguments in _FINAL.items():
        if name in tools:
            return calling((name, arguments))
    if results:
        return Reply(text=f"The tool says: {results[-1]}")
    if "Write code" in asked:
        return Reply(text=_CODE)
    if form or "JSON" in asked:
        return Reply(text=json.dumps(PERSON))
    if "[[ ## " in asked:
        return Reply(text=_MARKS)
    if images := _images(request):
        return Reply(text=f"I see {images} image.")
    return Reply(text=HELLO)


def editing(*steps: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    """The answers of an aggregator to a program that edits files: a step for each request of the
    loop that has tools, the last one for all that follow."""

    def reply(request: Request) -> Reply:
        if not tools_of(request):
            # A title for the session, say.
            return Reply(text="A title")
        return steps[min(len(results_of(request)), len(steps) - 1)](request)

    return reply

"""Reads aichat's files: a YAML file for each session, and a log of prompts outside sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from moa_cli.store.incoming.conversation import IncomingConversation, Table, TurnBuilder

PROFILE = "aichat"
# The most characters of a session, or of an entry of the log.
LONGEST = 64 << 20
_DEEPEST = 50
HEADING = re.compile(
    r"# CHAT: (?P<title>.*?) ?\[(?P<at>\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d))\]"
    r"(?: \((?P<scope>[^)\n]*)\))?\r?\n"
)
_RULE = "\n--------\n"
_TOOL_CALLS = re.compile(r"<tool_calls>\n.*?\n</tool_calls>\n+", re.DOTALL)
_THOUGHT = re.compile(r"<think>\n?(?P<thought>.*?)</think>\n*", re.DOTALL)


def is_session(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and isinstance(values.get("model"), str)
        and isinstance(values.get("messages"), list)
        and all(
            isinstance(message, dict) and "role" in message and "content" in message
            for message in values["messages"]
        )
    )


def yaml(text: str) -> Any:
    """The value of a YAML file. Raises ValueError if it is broken or has aliases.

    Aliases are refused, because with them a short file can expand to billions of values. aichat
    writes none.
    """
    import yaml as library

    # The safe loader reads only plain values. The one in C is faster, if it is available.
    loader = getattr(library, "CSafeLoader", library.SafeLoader)
    depth = 0
    try:
        for event in library.parse(text, Loader=loader):
            if isinstance(event, library.AliasEvent):
                raise ValueError("not YAML that can be read: it holds an alias")
            depth += isinstance(event, library.CollectionStartEvent)
            depth -= isinstance(event, library.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError("not YAML that can be read: it is nested too deeply")
        return library.load(text, Loader=loader)  # noqa: S506
    except library.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"not YAML: {error.problem}{place}") from None
    except library.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


def session(values: Table, name: str, at: float) -> IncomingConversation:
    """The conversation of a session. `name` and `at`, in seconds since 1970, are of its file."""
    builder = TurnBuilder(PROFILE)
    model = values.text("model") or None
    earlier, messages = values.tables("compressed_messages"), values.tables("messages")
    if earlier and messages and messages[0].get("role") == "system":
        # When aichat compresses a session, it puts a summary of the earlier messages first. The
        # earlier messages are imported themselves.
        messages = messages[1:]
    for message in (*earlier, *messages):
        _add(builder, message, model, at)
    return builder.conversation("", name, at, at)


def _add(builder: TurnBuilder, message: Table, model: str | None, at: float) -> None:
    role, content = message.text("role"), message.get("content")
    if isinstance(content, dict):
        content = message.table("content")
        # Such a content holds the answer, and the tool calls with their results.
        calls = len(content.list("tool_results"))
        builder.left["tool call"] += calls
        builder.left["tool result"] += calls
        builder.assistant(content.text("text"), model=model)
        return
    text, images = _said(message)
    builder.left["image"] += images
    if role == "system":
        if text.strip():
            builder.system(text)
    elif role == "user":
        builder.user(text, at, more=bool(images))
    elif role == "assistant":
        _answer(builder, text, model)
    elif role == "tool":
        builder.left["tool result"] += 1
    else:
        builder.left["message of an unknown role"] += 1


def _said(message: Table) -> tuple[str, int]:
    """The text of a message, and how many images come with it."""
    if text := message.text("content"):
        return text, 0
    parts = message.tables("content")
    texts = [part.text("text") for part in parts if part.text("type") == "text"]
    images = sum(bool(part.table("image_url")) for part in parts)
    return "\n\n".join(filter(None, texts)), images


def _answer(builder: TurnBuilder, text: str, model: str | None = None) -> None:
    """Add an answer. Its text may begin with reasoning, followed by a list of tool calls."""
    thought = ""
    if match := _THOUGHT.match(text):
        thought, text = match["thought"], text[match.end() :]
    match = _TOOL_CALLS.match(text)
    builder.left["tool call"] += match is not None
    builder.assistant(text[match.end() :] if match else text, model=model, reasoning=thought)


def log(lines: Iterable[str]) -> Iterator[IncomingConversation]:
    """The entries of the log, each as a conversation of one turn, because the log does not tell
    which entries belong together.

    Raises ValueError if an entry is broken or too long.
    """
    heading: re.Match[str] | None = None
    said: list[str] = []
    number = length = 0
    for line in lines:
        if match := HEADING.fullmatch(line if line.endswith("\n") else f"{line}\n"):
            if heading is not None:
                yield _entry(heading, "".join(said), f"entry {number}")
            heading, said, length = match, [], 0
            number += 1
            continue
        length += len(line)
        if length > LONGEST:
            raise ValueError(f"entry {number} is longer than {LONGEST >> 20} MB")
        said.append(line)
    if heading is not None:
        yield _entry(heading, "".join(said), f"entry {number}")


def _entry(heading: re.Match[str], text: str, where: str) -> IncomingConversation:
    builder = TurnBuilder(PROFILE)
    at = heading["at"]
    prompt, found, rest = f"\n{text}".replace("\r\n", "\n").partition(_RULE)
    if not found:
        raise ValueError(f"{where} has no line of dashes after the prompt")
    reply = rest.rstrip("\n")
    reply = f"\n{reply}".removesuffix(_RULE.rstrip("\n"))
    builder.user(prompt.removeprefix("\n"), at)
    _answer(builder, reply.removeprefix("\n"))
    return builder.conversation(f"{at} {prompt}", heading["title"], at, at)

"""Reads what aichat keeps: a YAML file for each session, and a log of prompts outside sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from moa_cli.store.incoming.conversation import (
    IncomingConversation,
    TurnBuilder,
    list_in,
    seconds_of,
    table_in,
    text_in,
)

PROFILE = "aichat"
# Characters of a session, or of an entry of the log.
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
    """Whether these values are those of a session."""
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
    """The value that a YAML file holds.

    Aliases are refused: aichat writes none, and with them a short file can stand for billions of
    values.

    Raises:
        ValueError: The text cannot be read as YAML.
    """
    import yaml as library

    depth = 0
    try:
        for event in library.parse(text, Loader=_loader()):
            if isinstance(event, library.AliasEvent):
                raise ValueError("not YAML that can be read: it holds an alias")
            depth += isinstance(event, library.CollectionStartEvent)
            depth -= isinstance(event, library.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError("not YAML that can be read: it is nested too deeply")
        return library.load(text, Loader=_loader())  # noqa: S506
    except library.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"not YAML: {error.problem}{place}") from None
    except library.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


def _loader() -> Any:
    """A loader of plain values only, written in C where that is available."""
    import yaml as library

    return getattr(library, "CSafeLoader", library.SafeLoader)


def session(values: dict[str, Any], name: str, at: float, where: str) -> IncomingConversation:
    """The conversation of a session.

    Args:
        values: What its file holds.
        name: The name of the session, which is that of its file.
        at: When the file was written, in seconds since 1970.
        where: How messages name it.
    """
    builder = TurnBuilder(PROFILE)
    model = text_in(values, "model") or None
    earlier = list_in(values, "compressed_messages")
    for place, message in enumerate([*earlier, *list_in(values, "messages")]):
        if isinstance(message, dict):
            # After aichat compresses a session, its first message only sums up earlier ones.
            summed_up = bool(earlier) and place == len(earlier)
            _add(builder, message, model, at, skip_system=summed_up)
    return builder.conversation(where, None, title=name, created=at, updated=at)


def _add(
    builder: TurnBuilder,
    message: dict[str, Any],
    model: str | None,
    at: float,
    *,
    skip_system: bool,
) -> None:
    role, content = text_in(message, "role"), message.get("content")
    if isinstance(content, dict):
        # The answer, and the tools that were called with their results.
        calls = len(list_in(content, "tool_results"))
        builder.left["tool call"] += calls
        builder.left["tool result"] += calls
        builder.assistant(text_in(content, "text"), model=model)
        return
    text, images = _said(content)
    builder.left["image"] += images
    if role == "system":
        if not skip_system and text.strip():
            builder.system(text)
    elif role == "user":
        builder.user(text, at, more=bool(images))
    elif role == "assistant":
        said, thought, calls = _apart(text)
        builder.left["tool call"] += calls
        builder.assistant(said, model=model, reasoning=thought)
    elif role == "tool":
        builder.left["tool result"] += 1
    else:
        builder.left["message of an unknown role"] += 1


def _said(content: Any) -> tuple[str, int]:
    """The text of a message, and how many images come with it."""
    if isinstance(content, str):
        return content, 0
    parts = content if isinstance(content, list) else []
    tables = [part for part in parts if isinstance(part, dict)]
    texts = [text_in(part, "text") for part in tables if text_in(part, "type") == "text"]
    images = sum(bool(table_in(part, "image_url")) for part in tables)
    return "\n\n".join(filter(None, texts)), images


def _apart(text: str) -> tuple[str, str, int]:
    """The answer, the reasoning before it, and how many lists of tool calls came between."""
    thought = ""
    if match := _THOUGHT.match(text):
        thought, text = match["thought"], text[match.end() :]
    calls = 0
    if match := _TOOL_CALLS.match(text):
        calls, text = 1, text[match.end() :]
    return text, thought, calls


def log(lines: Iterable[str]) -> Iterator[IncomingConversation]:
    """The entries of the log, each as a conversation of one turn: nothing in the log joins them.

    Raises:
        ValueError: An entry is broken or too long.
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
    at = seconds_of(heading["at"].replace("Z", "+00:00"))
    prompt, found, rest = f"\n{text}".replace("\r\n", "\n").partition(_RULE)
    if not found:
        raise ValueError(f"{where} has no line of dashes after the prompt")
    reply = rest.rstrip("\n")
    reply = f"\n{reply}".removesuffix(_RULE.rstrip("\n"))
    said, thought, calls = _apart(reply.removeprefix("\n"))
    builder.left["tool call"] += calls
    builder.user(prompt.removeprefix("\n"), at)
    builder.assistant(said, reasoning=thought)
    source = f"{heading['at']} {prompt}"
    return builder.conversation(where, source, title=heading["title"], created=at, updated=at)

"""aichat's sessions, a YAML file each, and its log of what was asked outside of sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from moa_cli.store.incoming.bounds import seconds_of
from moa_cli.store.incoming.coming import (
    IncomingConversation,
    TurnBuilder,
    list_in,
    table_in,
    text_in,
)

PROFILE = "aichat"
# Characters of a session, and of an entry of the log.
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
    """Whether these are a session's values."""
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
    """The value that a YAML file holds. Raises ValueError.

    Aliases are refused: aichat writes none, and a short file could mean billions of values.
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
    """YAML's plain values only; in C, where there is such a library."""
    import yaml as library

    return getattr(library, "CSafeLoader", library.SafeLoader)


def session(values: dict[str, Any], name: str, at: float, where: str) -> IncomingConversation:
    """A session. name: its own, which is that of its file; at: when it was written."""
    messages = TurnBuilder(PROFILE)
    model = text_in(values, "model") or None
    earlier = list_in(values, "compressed_messages")
    for place, message in enumerate([*earlier, *list_in(values, "messages")]):
        if isinstance(message, dict):
            # After a compression, the first message sums up those that are still there.
            summed_up = bool(earlier) and place == len(earlier)
            _add(messages, message, model, at, skip_system=summed_up)
    return messages.coming(where, None, title=name, created=at, updated=at)


def _add(
    messages: TurnBuilder,
    message: dict[str, Any],
    model: str | None,
    at: float,
    *,
    skip_system: bool,
) -> None:
    role, content = text_in(message, "role"), message.get("content")
    if isinstance(content, dict):
        # Its answer, and the tools that it called with what they said.
        calls = len(list_in(content, "tool_results"))
        messages.left["tool call"] += calls
        messages.left["tool result"] += calls
        messages.assistant(text_in(content, "text"), model=model)
        return
    text, images = _said(content)
    messages.left["image"] += images
    if role == "system":
        if not skip_system and text.strip():
            messages.system(text)
    elif role == "user":
        messages.user(text, at, more=bool(images))
    elif role == "assistant":
        said, thought, calls = _apart(text)
        messages.left["tool call"] += calls
        messages.assistant(said, model=model, reasoning=thought)
    elif role == "tool":
        messages.left["tool result"] += 1
    else:
        messages.left["message of an unknown role"] += 1


def _said(content: Any) -> tuple[str, int]:
    """The text of a message, and how many images there are beside it."""
    if isinstance(content, str):
        return content, 0
    parts = content if isinstance(content, list) else []
    tables = [part for part in parts if isinstance(part, dict)]
    texts = [text_in(part, "text") for part in tables if text_in(part, "type") == "text"]
    images = sum(bool(table_in(part, "image_url")) for part in tables)
    return "\n\n".join(filter(None, texts)), images


def _apart(text: str) -> tuple[str, str, int]:
    """What was said, what was thought before, and how many lists of tools were called."""
    thought = ""
    if match := _THOUGHT.match(text):
        thought, text = match["thought"], text[match.end() :]
    calls = 0
    if match := _TOOL_CALLS.match(text):
        calls, text = 1, text[match.end() :]
    return text, thought, calls


def log(lines: Iterable[str]) -> Iterator[IncomingConversation]:
    """The entries of the log, each a conversation of one turn, as aichat keeps nothing that
    joins them. Raises ValueError."""
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
            raise ValueError(f"entry {number}: is longer than {LONGEST >> 20} MB")
        said.append(line)
    if heading is not None:
        yield _entry(heading, "".join(said), f"entry {number}")


def _entry(heading: re.Match[str], text: str, where: str) -> IncomingConversation:
    messages = TurnBuilder(PROFILE)
    at = seconds_of(heading["at"].replace("Z", "+00:00"))
    prompt, found, rest = f"\n{text}".replace("\r\n", "\n").partition(_RULE)
    if not found:
        raise ValueError(f"{where}: lacks the line of dashes after the prompt")
    reply = rest.rstrip("\n")
    reply = f"\n{reply}".removesuffix(_RULE.rstrip("\n"))
    said, thought, calls = _apart(reply.removeprefix("\n"))
    messages.left["tool call"] += calls
    messages.user(prompt.removeprefix("\n"), at)
    messages.assistant(said, reasoning=thought)
    source = f"{heading['at']} {prompt}"
    return messages.coming(where, source, title=heading["title"], created=at, updated=at)

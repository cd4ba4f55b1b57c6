"""Recognises by a file's content which program exported it, and chooses the reader for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from moa_cli.store import archive
from moa_cli.store.incoming import aichat, chatgpt, claude
from moa_cli.store.incoming.conversation import IncomingConversation, Table
from moa_cli.store.incoming.json_stream import JsonFault, JsonStream
from moa_cli.store.incoming.parts import ImportedFile, lines_of

# The sources by their names on the command line, with their names in messages.
SOURCES = {
    "moa": "an export of moa",
    "chatgpt": "a ChatGPT export",
    "claude": "a Claude export",
    "llm": "llm's log",
    "aichat": "aichat",
}
_SQLITE = b"SQLite format 3\0"
_OURS_TOO = "moa reads its own exports and those of ChatGPT, Claude, llm and aichat"
_LISTS = {"mapping": "chatgpt", "chat_messages": "claude"}
# An aichat session in YAML begins with the first pattern, and contains the second.
_FIRST_KEY, _MESSAGES = re.compile("(?:path|model):"), re.compile("^messages:", re.MULTILINE)
# If none of this many items of a list is recognised, the list counts as unknown.
_LOOKED_AT = 100


def recognise(part: ImportedFile) -> str | None:
    """The program that exported a file, a key of `SOURCES`; None if the file is not an export.

    Raises ValueError if it looks like an export but is broken.
    """
    start = part.start()
    if start.startswith(_SQLITE):
        return "llm" if part.given or part.path is None or _is_log(part.path) else None
    text = _begun(start)
    if text[:1] in ("{", "["):
        return _json_source(part)
    if aichat.HEADING.match(text):
        return "aichat"
    return "aichat" if _session(part) is not None else None


def _is_log(path: Path) -> bool:
    from moa_cli.store.incoming import llm_logs

    return llm_logs.is_log(path)


def refuse(part: ImportedFile) -> ValueError:
    """The error for a file that is not an export. Raises ValueError if it is not even JSON."""
    with part.open() as file:
        stream = JsonStream(file)
        stream.value()
        stream.end()
    return ValueError(f"not an export of conversations ({_OURS_TOO})")


@contextmanager
def reading(part: ImportedFile, source: str) -> Iterator[Iterator[IncomingConversation]]:
    """Read the conversations of a file one at a time.

    source: which program exported it, a key of `SOURCES`. Raises ValueError if the file is broken,
    StoreError if a newer version of moa wrote it.
    """
    if source == "llm":
        if part.path is None:
            raise ValueError("an SQLite file cannot be read from a pipe or an archive")
        from moa_cli.store.incoming import llm_logs

        yield llm_logs.conversations(part.path)
    elif source == "aichat":
        yield _aichat(part)
    else:
        if source == "moa":
            with part.open() as file:
                archive.check_heading(_heading(JsonStream(file)), part.name)
        with part.open() as file:
            stream = JsonStream(file)
            yield archive.conversations(stream) if source == "moa" else _listed(stream, source)


def _begun(start: bytes) -> str:
    """The beginning of a text file, without white space before it."""
    encoding = json.detect_encoding(start[:4]) if len(start) > 1 else "utf-8"
    return start.decode(encoding, "ignore").lstrip(" \t\r\n")


def _json_source(part: ImportedFile) -> str | None:
    with part.open() as file:
        stream = JsonStream(file)
        if stream.next() == "{":
            return _object_source(stream)
        for number in stream.items():
            if stream.next() != "{" or number > _LOOKED_AT:
                return None
            if source := _object_source(stream, whole=True):
                return source
    return None


def _object_source(stream: JsonStream, *, whole: bool = False) -> str | None:
    """The source of an object, recognised by its keys; None if it is unknown. whole: read the
    object to its end if it is unknown."""
    for key in stream.members():
        if key in _LISTS:
            return _LISTS[key]
        if not whole and key == "format":
            return "moa" if stream.value() == archive.FORMAT else None
        if not whole and key == "conversations":
            # Other programs may have a key of that name, so only `format` decides.
            _skip_items(stream)
        else:
            stream.value()
    return None


def _heading(stream: JsonStream) -> dict[str, Any]:
    """The `format` and `version` of a file. They may come in any order."""
    heading: dict[str, Any] = {}
    for key in stream.members():
        if key == "conversations":
            if heading.keys() >= {"format", "version"}:
                break
            _skip_items(stream)
        else:
            heading[key] = stream.value()
    return heading


def _skip_items(stream: JsonStream) -> None:
    if stream.next() != "[":
        stream.value()
        return
    for _ in stream.items():
        stream.value()


def _listed(stream: JsonStream, source: str) -> Iterator[IncomingConversation]:
    """The conversations of a list; or the only one, if the file has no list."""
    if stream.next() != "[":
        yield _conversation(stream.value(), source, "the conversation")
    else:
        for number in stream.items():
            yield _conversation(stream.value(), source, f"conversation {number}")
    stream.end()


def _conversation(values: Any, source: str, where: str) -> IncomingConversation:
    key = next(key for key, named in _LISTS.items() if named == source)
    if not isinstance(values, Mapping) or key not in values:
        raise ValueError(f"{where} is not from {SOURCES[source]}: it has no `{key}`")
    read = chatgpt.conversation if source == "chatgpt" else claude.conversation
    try:
        return read(Table(values))
    except JsonFault:
        raise
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _aichat(part: ImportedFile) -> Iterator[IncomingConversation]:
    start = part.start()
    if aichat.HEADING.match(_begun(start)):
        with part.open() as file:
            encoding = json.detect_encoding(start[:4])
            yield from aichat.log(lines_of(file, encoding, aichat.LONGEST))
        return
    values = _session(part)
    if values is None:
        raise ValueError(f"not {SOURCES['aichat']}")
    name = PurePath(part.name).name
    yield aichat.session(Table(values), name.rpartition(".")[0] or name, part.modified)


def _session(part: ImportedFile) -> dict[str, Any] | None:
    """The values of a session of aichat; None if the file is something else.

    Raises ValueError for a broken file that looks like a session.
    """
    if not _FIRST_KEY.match(_begun(part.start())):
        return None
    data = b""
    with part.open() as file:
        while len(data) <= aichat.LONGEST and (piece := file.read(1 << 20)):
            data += piece
    try:
        text = data.decode(json.detect_encoding(data[:4]))
    except UnicodeDecodeError:
        return None
    if len(data) > aichat.LONGEST or not _MESSAGES.search(text):
        return None
    values = aichat.yaml(text)
    return values if aichat.is_session(values) else None

"""Small exports of other programs, made by hand after their formats."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "AICHAT_LOG",
    "AICHAT_SESSION",
    "chatgpt",
    "claude",
    "claude_said",
    "grown_llm_log",
    "llm_log",
    "said",
    "zipped",
]

T0 = 1_700_000_000.0


def said(role: str, *parts: Any, kind: str = "text", **more: Any) -> dict[str, Any]:
    """A message as ChatGPT keeps it."""
    content = {"content_type": kind, "parts": list(parts)} if parts else {"content_type": kind}
    return {
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": more.pop("at", T0),
        "content": content | more.pop("content", {}),
        "status": "finished_successfully",
        "recipient": more.pop("recipient", "all"),
        "metadata": more.pop("metadata", {"model_slug": "gpt-4o"} if role == "assistant" else {}),
        **more,
    }


def chatgpt(
    identity: str,
    *messages: Mapping[str, Any] | None,
    title: str | None = "Zebras",
    edited: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """A conversation of ChatGPT's: one message after the other. edited: other ends, each of
    which follows the root."""
    nodes: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None}}
    above = "root"
    for number, message in enumerate(messages):
        name = f"node-{number}"
        nodes[name] = {"id": name, "message": message, "parent": above}
        above = name
    for number, message in enumerate(edited):
        nodes[f"edited-{number}"] = {"message": message, "parent": "root", "children": []}
    for name, node in nodes.items():
        node["children"] = [other for other, item in nodes.items() if item["parent"] == name]
    return {
        "title": title,
        "create_time": T0,
        "update_time": T0 + 60,
        "mapping": nodes,
        "current_node": above,
        "conversation_id": identity,
        "id": identity,
        "default_model_slug": "gpt-4o",
        **more,
    }


def claude_said(sender: str, text: str, **more: Any) -> dict[str, Any]:
    """A message as Claude keeps it."""
    return {
        "uuid": more.pop("uuid", f"{sender} {text}"),
        "text": text,
        "content": [{"type": "text", "text": text}],
        "sender": sender,
        "created_at": "2024-03-01T10:00:00.000000Z",
        "updated_at": "2024-03-01T10:00:00.000000Z",
        "attachments": [],
        "files": [],
        **more,
    }


def claude(identity: str, *messages: Mapping[str, Any], name: str = "Horses") -> dict[str, Any]:
    """A conversation of Claude's."""
    return {
        "uuid": identity,
        "name": name,
        "created_at": "2024-03-01T10:00:00.000000Z",
        "updated_at": "2024-03-01T11:00:00.000000+00:00",
        "account": {"uuid": "someone"},
        "chat_messages": list(messages),
    }


def zipped(files: Mapping[str, Any]) -> bytes:
    """An archive of files; what is no bytes is written as JSON."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            archive.writestr(name, data)
    return held.getvalue()


def llm_log(path: Path) -> Path:
    """A log of llm's as releases up to 0.26 or so write it."""
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
        CREATE TABLE responses (
            id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT,
            options_json TEXT, response TEXT, response_json TEXT, conversation_id TEXT,
            duration_ms INTEGER, datetime_utc TEXT, input_tokens INTEGER, output_tokens INTEGER
        );
        CREATE TABLE fragments (id INTEGER PRIMARY KEY, hash TEXT, content TEXT);
        CREATE TABLE prompt_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
        CREATE TABLE system_fragments (response_id TEXT, fragment_id INTEGER, "order" INTEGER);
        CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT);
        CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);
        CREATE TABLE tool_calls (id INTEGER PRIMARY KEY, response_id TEXT, name TEXT);
        CREATE TABLE tool_results (id INTEGER PRIMARY KEY, response_id TEXT, output TEXT);
        INSERT INTO conversations VALUES ('c1', 'About owls', 'gpt-4o-mini');
        INSERT INTO responses VALUES
            ('r1', 'gpt-4o-mini', 'do owls sleep?', 'be brief', NULL, NULL, 'by day', NULL, 'c1',
             1500, '2024-05-01T08:00:00.000000', 10, 3),
            ('r2', 'gpt-4o-mini', 'look it up', 'be brief', NULL, NULL, '', NULL, 'c1', 500,
             '2024-05-01T08:01:00', NULL, NULL),
            ('r3', 'gpt-4o-mini', '', 'be brief', NULL, NULL, 'they do', NULL, 'c1', 500,
             '2024-05-01T08:01:05', NULL, NULL),
            ('r4', 'gpt-4o', 'sum it up', NULL, NULL, NULL, 'a novel', NULL, NULL, 100,
             '2024-05-02T08:00:00', NULL, NULL);
        INSERT INTO fragments VALUES (1, 'h', 'Call me Ishmael.');
        INSERT INTO prompt_fragments VALUES ('r4', 1, 0);
        INSERT INTO attachments VALUES ('a1', 'image/png');
        INSERT INTO prompt_attachments VALUES ('r4', 'a1', 0);
        INSERT INTO tool_calls VALUES (1, 'r2', 'search');
        INSERT INTO tool_results VALUES (1, 'r3', 'found');
        """
    )
    connection.close()
    return path


def grown_llm_log(path: Path) -> Path:
    """The same log after a newer llm has gone on in it, with messages by their hashes."""
    llm_log(path)
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT);
        CREATE TABLE parts (
            id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT,
            tool_name TEXT, text TEXT, payload TEXT
        );
        CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT);
        CREATE TABLE turns (
            id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT,
            model TEXT, resolved_model TEXT, input_tokens INTEGER, output_tokens INTEGER,
            duration_ms INTEGER, datetime_utc TEXT
        );
        INSERT INTO threads VALUES ('t1', 'Pelicans', 'm5');
        INSERT INTO messages VALUES ('m0', NULL, 'system'), ('m1', 'm0', 'user'),
            ('m2', 'm1', 'assistant'), ('m3', 'm2', 'user'), ('m4', 'm3', 'assistant'),
            ('m5', 'm4', 'user'), ('m6', 'm5', 'assistant');
        INSERT INTO parts VALUES
            (1, 'm0', 0, 'text', NULL, 'be kind', NULL),
            (2, 'm1', 0, 'text', NULL, 'name a pelican', NULL),
            (3, 'm2', 0, 'reasoning', NULL, 'hm', NULL),
            (4, 'm2', 1, 'text', NULL, 'Percy', NULL),
            (5, 'm3', 0, 'text', NULL, NULL,
             '{"text_ref": [{"fragment": 1}, {"literal": " Who?"}]}'),
            (6, 'm4', 0, 'tool_call', 'search', NULL, '{}'),
            (7, 'm5', 0, 'tool_result', 'search', NULL, '{}'),
            (8, 'm6', 0, 'text', NULL, 'A sailor', NULL);
        INSERT INTO turns VALUES
            ('u1', 't1', 'm1', 'm2', 'alias', 'scripted-2', 5, 1, 10, '2026-08-01T08:00:00'),
            ('u2', 't1', 'm3', 'm4', 'scripted', NULL, 5, 1, 10, '2026-08-01T08:01:00'),
            ('u3', 't1', 'm5', 'm6', 'scripted', NULL, 5, 1, 10, '2026-08-01T08:02:00');
        """
    )
    connection.close()
    return path


AICHAT_SESSION = """\
model: openai:gpt-4o
temperature: 0.5
compressed_messages:
- role: system
  content: Speak plainly.
- role: user
  content: what do foxes eat?
- role: assistant
  content: |-
    Mice,
    and berries.
messages:
- role: system
  content: This is a summary of the talk so far.
- role: user
  content:
  - type: text
    text: and this one?
  - type: image_url
    image_url:
      url: data:image/png;base64,AAAA
- role: assistant
  content:
    text: Let me see.
    tool_results:
    - call:
        name: look
        arguments: {}
      output: {}
- role: assistant
  content: Cake.
"""

AICHAT_LOG = """\
# CHAT: foxes and rules [2024-07-01T09:00:00+02:00]
what is a rule?
--------
A line:
--------
like that.
--------

# CHAT: who calls [2024-07-02T09:00:00Z] (coder#docs)
who calls?
--------
<tool_calls>
[{"call":{"name":"x"}}]
</tool_calls>

Nobody.
--------

"""

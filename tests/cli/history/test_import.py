"""Conversations come from other programs: each export is known by its content, what was said is
taken and can be gone on with, what is left is told, and what is none is refused in one line."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.store.archive import read
from moa_cli.store.terms import register
from tests.support.command import Moa
from tests.support.exports import (
    AICHAT_LOG,
    AICHAT_SESSION,
    chatgpt,
    claude,
    claude_said,
    grown_llm_log,
    llm_log,
    said,
    zipped,
)
from tests.support.kept import keep, open_store
from tests.support.upstream import Upstream

OWL = chatgpt("one", said("user", "do owls sing?"), said("assistant", "They hoot."), title="Owls")
FOX = claude("two", claude_said("human", "do foxes bark?"), claude_said("assistant", "Some do."))


def put(moa: Moa, name: str, content: Any) -> str:
    path = moa.folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return name


def imported(moa: Moa, *arguments: str) -> list[str]:
    """What is told of an import that goes well."""
    ran = moa.run("history", "import", *arguments)
    assert (ran.code, ran.out) == (0, b""), ran.err
    return ran.err.splitlines()


def listed(moa: Moa, *options: str) -> list[dict[str, Any]]:
    return list(json.loads(moa.run("history", "list", "--json", *options).out))


def turns(moa: Moa) -> list[Turn]:
    """The turns of all conversations, in the order in which they began."""
    store = open_store(moa.state.parent / "data" / "conversations.db")
    try:
        return [kept.turn for conversation in read(store) for kept in conversation.turns]
    finally:
        store.close()


def talk(moa: Moa) -> list[tuple[str, str | None]]:
    return [(turn.user, turn.reply) for turn in turns(moa)]


def refused(moa: Moa, *arguments: str, stdin: bytes | None = None) -> str:
    """The one line that an import is refused with; nothing is taken then."""
    ran = moa.run("history", "import", *arguments, stdin=stdin)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1), ran.err
    assert listed(moa) == []
    return ran.err


def test_chatgpt_s_zip_is_taken_as_downloaded_and_gone_on_with(
    moa: Moa, upstream: Upstream
) -> None:
    archive = {
        "chat.html": b"<html>",
        "conversations.json": [OWL],
        "user.json": {"id": "someone"},
        "message_feedback.json": [{"id": "x", "rating": "up"}],
        "file-1.png": b"\x89PNG\r\n\x1a\n\0",
    }
    put(moa, "anything", zipped(archive))
    assert imported(moa, "anything") == [
        "moa: imported 1 conversation, 1 turn from a ChatGPT export; left: 4 other files"
    ]
    (row,) = listed(moa)
    assert (row["title"], row["profile"], row["turns"]) == ("Owls", "chatgpt", 1)
    assert row["updated"] == 1_700_000_060.0
    (turn,) = turns(moa)
    assert (turn.model, turn.status, turn.profile) == ("gpt-4o", "finished", "chatgpt")
    assert "[hoot]" in moa.run("history", "search", "hoot").text
    assert "They hoot." in moa.run("history", "show", row["id"]).text
    assert "# Owls" in moa.run("history", "export", row["id"]).text
    assert moa.run("ask", "-c", "and at night?").code == 0
    sent = [message["content"] for message in upstream.chats("agg")[-1].messages[1:]]
    assert sent == ["do owls sing?", "They hoot.", "and at night?"]
    assert listed(moa)[0]["profile"] == "lab"
    # What was said here since does not make another conversation of it.
    (skipped, nothing) = imported(moa, "anything")
    assert skipped == f"moa: skipped 1 that exist already: {row['id']}"
    assert nothing.startswith("moa: imported 0 conversations")
    assert len(listed(moa)) == 1


def test_a_chatgpt_conversation_is_the_branch_seen_last_and_the_rest_is_told(moa: Moa) -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    voice = {"content_type": "audio_transcription", "text": "spoken"}
    thoughts = [{"summary": "S", "content": "C"}]
    attached = {"attachments": [{"name": "a.pdf", "mime_type": "application/pdf"}]}
    conversation = chatgpt(
        "tree",
        said("system", ""),
        said(
            "user",
            kind="user_editable_context",
            content={"user_profile": "I am a baker.", "user_instructions": "Be brief."},
        ),
        said("user", "look", picture, kind="multimodal_text", at=1_700_000_001.5),
        said("assistant", kind="thoughts", content={"thoughts": thoughts}),
        said("assistant", kind="code", content={"text": "search()"}, recipient="python"),
        said("tool", kind="execution_output", content={"text": "42"}),
        said("assistant", kind="reasoning_recap", content={"content": "Thought for 2 s"}),
        said("assistant", "A bun.\ue200cite\ue202turn0search1\ue201"),
        said("assistant", "With jam."),
        said("user", "unanswered"),
        said("user", voice, picture, kind="multimodal_text", metadata=attached),
        said("assistant", kind="code", content={"text": "x = 1", "language": "python"}),
        said("user", picture, kind="multimodal_text"),
        said("assistant", "Nice", metadata={"finish_details": {"type": "interrupted"}}),
        title=None,
        edited=[said("user", "no, this"), said("assistant", "other"), said("system", "")],
    )
    put(moa, "c.json", [conversation])
    (told,) = imported(moa, "c.json")
    assert told == (
        "moa: imported 1 conversation, 4 turns from a ChatGPT export; left: 3 images, 1 file,"
        " 1 tool call, 1 tool result, 2 branches that an edit replaced"
    )
    assert talk(moa) == [
        ("look", "A bun.\n\nWith jam."),
        ("unanswered", None),
        ("spoken", "python:\n```\nx = 1\n```"),
        ("(something other than text, which was not imported)", "Nice"),
    ]
    first, second, _, last = turns(moa)
    assert (first.reasoning, first.model) == ("S\nC", "gpt-4o")
    assert (second.status, second.model, last.status) == ("interrupted", None, "interrupted")
    store = open_store(moa.state.parent / "data" / "conversations.db")
    (kept,) = read(store)
    settings = tomllib.loads(kept.turns[0].settings)
    assert settings == {"system": "I am a baker.\n\nBe brief."}
    assert (kept.title, kept.turns[0].started) == ("look", 1_700_000_001.5)
    store.close()


def test_a_split_export_is_read_from_its_folder_whatever_its_files_are_called(moa: Moa) -> None:
    other = chatgpt("three", said("user", "x"), said("assistant", "y"))
    put(moa, "export/conversations-000.json", [OWL])
    put(moa, "export/deep/renamed.txt", [other])
    put(moa, "export/user.json", {"broken": 1})
    put(moa, "export/broken.json", b'{"a": nope}')
    (moa.folder / "export" / "link.json").symlink_to(moa.folder / "export" / "user.json")
    (told,) = imported(moa, "export")
    assert told == (
        "moa: imported 2 conversations, 2 turns from a ChatGPT export; left: 2 other files"
    )


def test_claude_s_export_with_its_attachments_and_edited_messages(moa: Moa) -> None:
    root = "00000000-0000-4000-8000-000000000000"
    attachment = {"file_name": "notes.txt", "extracted_content": "buy hay"}
    fancy = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Hay."},
        {"type": "tool_use", "name": "web", "input": {}},
        {"type": "tool_result", "content": []},
        {"type": "text", "text": "And oats."},
    ]
    conversation = claude(
        "tree",
        claude_said("human", "old", uuid="a", parent_message_uuid=root),
        claude_said("assistant", "old reply", uuid="b", parent_message_uuid="a"),
        claude_said(
            "human",
            "what do they eat?",
            uuid="c",
            parent_message_uuid=root,
            attachments=[attachment],
            files=[{"file_name": "notes.txt"}, {"file_name": "horse.JPG"}, {"file_name": "a.pdf"}],
        ),
        claude_said("assistant", "(shown)", uuid="d", parent_message_uuid="c", content=fancy),
    )
    empty = claude("empty", name="")
    lonely = claude("lonely", claude_said("human", "hello?"))
    put(moa, "c.json", [conversation, empty, lonely])
    (told,) = imported(moa, "c.json")
    assert told == (
        "moa: imported 1 conversation, 1 turn from a Claude export; left: 1 image, 1 file,"
        " 1 tool call, 1 tool result, 1 branch that an edit replaced,"
        " 2 conversations without a reply"
    )
    ((prompt, reply),) = talk(moa)
    assert prompt == "what do they eat?\n\nnotes.txt:\n```\nbuy hay\n```"
    assert (reply, turns(moa)[0].reasoning) == ("Hay.\n\nAnd oats.", "hm")
    assert turns(moa)[0].model is None
    (row,) = listed(moa)
    assert (row["title"], row["updated"]) == ("Horses", 1_709_290_800.0)


def test_llm_s_log_is_read_and_never_written_to(moa: Moa) -> None:
    log = llm_log(moa.folder / "some.file")
    before = log.read_bytes()
    (told,) = imported(moa, "some.file")
    assert told == (
        "moa: imported 2 conversations, 3 turns from llm's log; left: 1 tool result, 1 tool call,"
        " 1 image"
    )
    assert talk(moa) == [
        ("do owls sleep?", "by day"),
        ("look it up", "they do"),
        ("Call me Ishmael.\nsum it up", "a novel"),
    ]
    first, _, last = turns(moa)
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (10, 3)
    assert (first.usage.unpriced_calls, first.seconds, first.model) == (1, 1.5, "gpt-4o-mini")
    assert last.usage.calls == 0
    assert {row["title"] for row in listed(moa)} == {"About owls", "Call me Ishmael. sum it up"}
    assert log.read_bytes() == before
    assert [path.name for path in moa.folder.iterdir()] == ["some.file"]
    assert imported(moa, "some.file")[0].startswith("moa: skipped 2 that exist already")


def test_both_generations_of_llm_s_tables_are_read(moa: Moa) -> None:
    grown_llm_log(moa.folder / "logs.db")
    (told,) = imported(moa, "logs.db")
    assert told.startswith("moa: imported 3 conversations, 5 turns from llm's log")
    assert talk(moa)[-2:] == [
        ("name a pelican", "Percy"),
        ("Call me Ishmael. Who?", "A sailor"),
    ]
    *_, named, told_of = turns(moa)
    assert (named.reasoning, named.answered_by, told_of.model) == ("hm", "scripted-2", "scripted")


def test_what_llm_has_not_moved_into_its_file_yet_is_read_too(moa: Moa) -> None:
    log = llm_log(moa.folder / "logs.db")
    writer = sqlite3.connect(log)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE responses SET response = 'at noon' WHERE id = 'r1'")
    writer.commit()
    names = sorted(path.name for path in moa.folder.iterdir())
    held = {path: path.read_bytes() for path in moa.folder.iterdir() if path.suffix != ".db-shm"}
    imported(moa, "logs.db")
    assert talk(moa)[0] == ("do owls sleep?", "at noon")
    assert sorted(path.name for path in moa.folder.iterdir()) == names
    assert {path: path.read_bytes() for path in held} == held
    writer.close()


def test_aichat_s_sessions_and_its_log(moa: Moa) -> None:
    put(moa, "aichat/sessions/foxes.yaml", AICHAT_SESSION.encode())
    put(moa, "aichat/messages.md", AICHAT_LOG.encode())
    put(moa, "aichat/config.yaml", b"model: openai:gpt-4o\nsave: true\n")
    os.utime(moa.folder / "aichat/sessions/foxes.yaml", (1_600_000_000, 1_600_000_000))
    (told,) = imported(moa, "aichat")
    assert told == (
        "moa: imported 3 conversations, 4 turns from aichat; left: 2 tool calls, 1 image,"
        " 1 tool result, 1 other file"
    )
    assert talk(moa) == [
        ("what do foxes eat?", "Mice,\nand berries."),
        ("and this one?", "Let me see.\n\nCake."),
        ("what is a rule?", "A line:\n--------\nlike that."),
        ("who calls?", "Nobody."),
    ]
    assert turns(moa)[0].model == "openai:gpt-4o"
    assert [row["title"] for row in listed(moa)] == ["who calls", "foxes and rules", "foxes"]
    assert imported(moa, "aichat")[0].startswith("moa: skipped 3 that exist already")
    assert len(listed(moa)) == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-8"])
@pytest.mark.parametrize("kind", ["json", "yaml", "log"])
def test_any_encoding_of_unicode_is_read(moa: Moa, encoding: str, kind: str) -> None:
    texts = {"json": json.dumps([OWL]), "yaml": AICHAT_SESSION, "log": AICHAT_LOG}
    put(moa, "x", texts[kind].replace("\n", "\r\n").encode(encoding))
    assert imported(moa, "x")[0].startswith("moa: imported ")
    assert listed(moa)


def test_a_second_export_that_has_grown_adds_what_is_new(moa: Moa) -> None:
    more = chatgpt(
        "one",
        said("user", "do owls sing?"),
        said("assistant", "They hoot."),
        said("user", "all?"),
        said("assistant", "Most."),
        update_time=1_700_009_000.0,
    )
    other = chatgpt("one", said("user", "do owls dance?"), said("assistant", "No."))
    imported(moa, put(moa, "old.json", [OWL]))
    identity = listed(moa)[0]["id"]
    # Also beside the old one, whose conversation it goes on with.
    told = imported(moa, "old.json", put(moa, "new.json", [more]))
    assert told[0] == f"moa: {identity} has more turns in the file: imported 1 more turn"
    assert [row["turns"] for row in listed(moa)] == [2]
    assert listed(moa)[0]["updated"] == 1_700_009_000.0
    told = imported(moa, put(moa, "other.json", [other]))
    assert told[0].startswith(f"moa: {identity} exists with other content: imported as ")
    assert "skipped 1" in imported(moa, "other.json")[0]
    assert len(listed(moa)) == 2


def test_several_exports_at_once_are_tagged_or_only_looked_at(moa: Moa) -> None:
    llm_log(moa.folder / "logs.db")
    files = [put(moa, "a.json", [OWL]), put(moa, "b.zip", zipped({"c.json": [FOX]})), "logs.db"]
    told = imported(moa, *files, "--dry-run", "--tag", "old")
    assert [line.split(" from ")[1].split(";")[0] for line in told] == [
        "a ChatGPT export",
        "a Claude export",
        "llm's log",
    ]
    assert all(line.startswith("moa: would be imported ") for line in told)
    assert listed(moa) == []
    assert len(imported(moa, *files, "--tag", "Old", "--tag", "elsewhere")) == 3
    assert [row["tags"] for row in listed(moa, "--tag", "old")] == [["elsewhere", "old"]] * 4
    assert moa.run("history", "import", "a.json", "--tag", "two words").code == 2


def test_a_pipe_is_read_like_a_file(moa: Moa) -> None:
    ran = moa.run("history", "import", "-", stdin=zipped({"x": [OWL]}))
    assert ran.err == "moa: imported 1 conversation, 1 turn from a ChatGPT export\n"
    os.mkfifo(moa.folder / "pipe")
    with moa.start("history", "import", "pipe") as process:
        (moa.folder / "pipe").write_bytes(json.dumps([FOX]).encode())
        assert process.wait(60) == 0
    assert len(listed(moa)) == 2


def test_from_says_what_a_file_is_meant_to_be(moa: Moa) -> None:
    put(moa, "a.json", [OWL])
    ran = moa.run("history", "import", "a.json", "--from", "claude")
    assert (ran.code, ran.err) == (
        1,
        "moa: a.json: conversation 1 is not from a Claude export: it has no `chat_messages`\n",
    )
    assert imported(moa, "a.json", "--from", "chatgpt")[0].startswith("moa: imported 1 conv")


def ring() -> dict[str, Any]:
    conversation = json.loads(json.dumps(OWL))
    conversation["mapping"]["root"]["parent"] = "node-1"
    return dict(conversation)


def bomb() -> bytes:
    """An archive that says it is small, and is not."""
    return zipped({"c.json": b'[{"mapping": "' + b"a" * 70_000_000})


ALIASES = "model: x\nmessages:\n- &a\n  role: user\n  content: hi\n- *a\n"
FAULTS: dict[str, tuple[Any, str]] = {
    "no list": ({"mapping": []}, "the conversation: mapping is not a table of messages"),
    "later item": ([OWL, 5], "conversation 2 is not from a ChatGPT export: it has no `mapping`"),
    "mixed": ([OWL, FOX], "conversation 2 is not from a ChatGPT export"),
    "ring": ([OWL, ring()], "conversation 2: its messages form a loop"),
    "broken": (
        b'[{"mapping": {}},\n {"mapping": }]',
        "Expecting value (line 2, column 14)",
    ),
    "cut": (json.dumps([OWL]).encode()[:-9], "not JSON: "),
    "more": (json.dumps([OWL]).encode() + b"x", "not JSON: Extra data (line 1, column "),
    "deep": (b'[{"mapping": ' + b"[" * 100_000, "nested too deeply"),
    "long": (b'[{"mapping": "' + b"a" * 70_000_000, "a value is longer than 64 MB"),
    "bomb": (bomb(), "a value is longer than 64 MB"),
    "no export": ([{"a": 1}], "not an export of conversations (moa reads its own"),
    "text": (b"hello", "not JSON: Expecting value (line 1, column 1)"),
    "empty zip": (zipped({}), "holds no export of conversations"),
    "other zip": (zipped({"a.json": {"a": 1}}), "holds no export of conversations"),
    "half a zip": (zipped({"a.json": [OWL]})[:-30], "cannot be read as a zip archive"),
    "claude": ([{"chat_messages": [1]}], "conversation 1: chat_messages is not a list of messages"),
    "aliases": (ALIASES.encode(), "not YAML that can be read: it holds an alias"),
    "yaml": (b"model: x\nmessages:\n- [\n", "not YAML: "),
    "log": (b"# CHAT: x [2024-07-02T09:00:00Z]\nno answer\n", "entry 1 has no line of dashes"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_one_line_and_nothing_is_taken(moa: Moa, name: str) -> None:
    content, message = FAULTS[name]
    put(moa, "good.json", [FOX])
    line = refused(moa, "good.json", put(moa, "bad", content))
    assert line.startswith("moa: bad: ")
    assert message in line


def test_what_is_no_text_is_told_with_the_place(moa: Moa) -> None:
    put(moa, "bad.png", b"\x89PNG\r\n\x1a\n\xff\xff")
    put(moa, "bad.json", b'[\n{"mapping": {}, "title": "' + b"a" * 70_000 + b'\xfc"}]')
    for name, place in (("bad.png", "byte 1 of line 1 is 0x89"), ("bad.json", "byte 70027 of")):
        ran = moa.run("history", "import", name)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert ran.err.startswith(f"moa: {name}: is not UTF-8 text: {place}")


def test_an_archive_whose_file_is_damaged_is_refused(moa: Moa) -> None:
    data = bytearray(zipped({"c.json": [OWL] * 50}))
    data[200] ^= 0xFF
    assert "cannot be read as a zip archive" in refused(moa, put(moa, "c.zip", bytes(data)))


def test_an_archive_with_a_password_is_refused(moa: Moa) -> None:
    data = bytearray(zipped({"c.json": [OWL]}))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = data.index(mark) + (6 if mark == b"PK\x03\x04" else 8)
        struct.pack_into("<H", data, at, 1)
    assert "encrypted" in refused(moa, put(moa, "c.zip", bytes(data)))


def test_names_in_an_archive_lead_nowhere(moa: Moa) -> None:
    with zipfile.ZipFile(moa.folder / "x.zip", "w") as archive:
        archive.writestr("../../evil.json", json.dumps([OWL]))
        archive.writestr("/tmp/evil-import.json", json.dumps([FOX]))
    assert len(imported(moa, "x.zip")) == 2
    assert [path.name for path in moa.folder.iterdir()] == ["x.zip"]
    assert not (moa.folder.parent.parent / "evil.json").exists()
    assert not Path("/tmp/evil-import.json").exists()


def test_an_sqlite_file_that_is_no_log_of_llm_s_is_refused(moa: Moa) -> None:
    path = moa.folder / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("CREATE VIEW responses AS SELECT 1 AS id, 2 AS prompt, 3 AS response")
    connection.close()
    assert "is an SQLite file, but not a log of llm" in refused(moa, "other.db")
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert "cannot be read as an SQLite file" in refused(moa, "other.db")
    assert "cannot be read from a pipe" in refused(moa, "-", stdin=path.read_bytes())
    llm_log(moa.folder / "inside")
    put(moa, "in.zip", zipped({"logs.db": (moa.folder / "inside").read_bytes()}))
    assert "cannot be read from a pipe or an archive" in refused(moa, "in.zip")


def test_llm_s_folder_is_taken_whatever_databases_are_beside_its_log(moa: Moa) -> None:
    folder = moa.folder / "io.datasette.llm"
    folder.mkdir()
    llm_log(folder / "logs.db")
    with closing(sqlite3.connect(folder / "embeddings.db")) as connection:
        connection.execute("CREATE TABLE collections (id)")
    (line,) = imported(moa, folder.name)
    assert line.startswith("moa: imported ")
    assert "1 other file" in line


def test_a_copy_of_a_history_and_a_compressed_export_are_named(moa: Moa) -> None:
    assert moa.run("history", "backup", "copy.db").code == 0
    assert "`moa history recover FILE`" in refused(moa, "copy.db")
    assert "gunzip" in refused(moa, put(moa, "x.json.gz", gzip.compress(b"[]")))


def test_the_conversations_own_file_is_refused(moa: Moa) -> None:
    keep(moa, ("hi", "yes"))
    file = moa.run("history", "path").text.strip()
    ran = moa.run("history", "import", file)
    assert ran.code == 1
    assert "conversations" in ran.err
    assert ran.err.count("\n") == 1
    assert len(listed(moa)) == 1


def test_odd_values_are_taken_as_far_as_they_make_sense(moa: Moa, upstream: Upstream) -> None:
    odd = chatgpt(
        "odd",
        said("user", "a \x1b[31m\u202e\ud800 \0 b", at=float("nan")),
        said("assistant", "c\x9b2J", at=-5, metadata={"model_slug": 7}),
        said("assistant", 5, None, {"content_type": []}),
        said("narrator", "once"),
        title="t\x1b]0;x\x07\nu" * 100,
        create_time=1e308,
        update_time=4_000_000_000.0,
        extra={"anything": [1, 2]},
    )
    put(moa, "c.json", json.dumps([odd]).encode())
    (told,) = imported(moa, "c.json")
    assert "1 message of an unknown role" in told
    assert "changed: " in told
    assert "times in the future (taken as now)" in told
    ((prompt, reply),) = talk(moa)
    assert (prompt, reply) == ("a \x1b[31m\u202e? \0 b", "c\x9b2J")
    (row,) = listed(moa)
    assert row["updated"] <= time.time()
    assert len(row["title"]) == 200
    assert "\x1b" not in moa.run("history", "list").text
    assert moa.run("ask", "later").code == 0
    assert moa.run("ask", "-c", "go on").code == 0
    assert upstream.chats("agg")[-1].messages[1]["content"] == "later"


def test_what_a_killed_import_left_is_taken_away_by_the_next(moa: Moa) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    identity = keep(moa, ("hi", "yes"))
    connection = sqlite3.connect(data, isolation_level=None)
    register(connection)
    # As it is when the process ends between two transactions.
    connection.execute("INSERT INTO unfinished VALUES ('2345678923')")
    connection.execute(
        "INSERT INTO turns (conversation_id, started, process, profile, settings, prompt, status)"
        " SELECT '2345678923', 0, 0, 'p', '', 'secretword', 'finished' FROM"
        " (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        " SELECT i FROM n)"
    )
    connection.close()
    assert [row["id"] for row in listed(moa)] == [identity]
    assert moa.run("history", "search", "secretword").text == ""
    imported(moa, put(moa, "c.json", [OWL]))
    connection = sqlite3.connect(data)
    assert connection.execute("SELECT count(*) FROM turns").fetchone()[0] == 2
    assert connection.execute("SELECT count(*) FROM unfinished").fetchone()[0] == 0
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_a_conversation_that_was_deleted_comes_back_whole(moa: Moa) -> None:
    data = moa.state.parent / "data" / "conversations.db"
    path = many_turns(moa.folder, 2, 150)
    imported(moa, path.name)
    identities = [row["id"] for row in listed(moa)]
    store = open_store(data)
    # Out of every list, but not wiped yet: another process would do that later.
    store.delete(identities, seconds=0)
    store.close()
    imported(moa, path.name)
    assert moa.run("history", "clean").code == 0
    assert [row["turns"] for row in listed(moa)] == [150, 150]
    connection = sqlite3.connect(data)
    assert connection.execute("SELECT count(*) FROM turns").fetchone()[0] == 300
    connection.close()


def many_turns(folder: Path, conversations: int, turns: int) -> Path:
    """An own export of that size, written piece by piece."""
    usage = {"prompt_tokens": 100, "completion_tokens": 200, "calls": 1, "cost": 0.01}
    words = " ".join(f"word{number}" for number in range(250))
    answers = [
        {"layer": 1, "index": place, "proposer": "p", "model": "lab:p", "text": words[place:]}
        | {"usage": usage}
        for place in range(3)
    ]
    turn = {"prompt": words[:200], "reply": words, "status": "finished", "started": 1.7e9}
    text = json.dumps(turn | {"profile": "lab", "proposals": [answers], "usage": usage})
    letters = "23456789abcdefghjkmnpqrstuvwxyz"
    path = folder / "many.json"
    with path.open("w") as file:
        file.write('{"format": "moa-conversations", "version": 1, "conversations": [')
        for number in range(conversations):
            identity = "".join(letters[number // 31**place % 31] for place in range(10))
            head = {"id": identity, "title": "t", "profile": "p", "created": 1, "updated": 2}
            file.write(("," if number else "") + json.dumps(head)[:-1] + ', "turns": [')
            file.write(",".join([text] * turns) if turns < 100 else "")
            for place in range(turns if turns >= 100 else 0):
                file.write(("," if place else "") + text)
            file.write("]}")
        file.write("]}")
    return path


# How many turns the large export has; with 100,000 the test takes some minutes.
TURNS = int(os.environ.get("MOA_IMPORT_TURNS", "20000"))
# Not `ru_maxrss`, which a process inherits from the one that started it.
PEAK = (
    "import re, sys; from pathlib import Path; from moa_cli.cli.app import main; code = main();"
    "status = Path('/proc/self/status').read_text();"
    "print(code, re.search(r'VmHWM:\\s+(\\d+) kB', status)[1], file=sys.stderr)"
)


def peak(moa: Moa, *arguments: str) -> int:
    """The most memory that the command takes, in MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell how much memory a process took")
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments],
        cwd=moa.folder,
        env=moa.environment,
        capture_output=True,
        check=True,
    )
    code, size = ran.stderr.split()[-2:]
    assert code == b"0"
    return int(size) // 1024


def test_memory_does_not_grow_with_the_export(moa: Moa) -> None:
    path = many_turns(moa.folder, 1, 1500)
    # The whole of it as values takes more than 100 MB.
    small = put(moa, "c.json", [OWL])
    base = peak(moa, "history", "import", small)
    assert peak(moa, "history", "import", path.name) < base + 25
    for name in ("x.json", "x.md"):
        assert peak(moa, "history", "export", "--all", "-o", name) < base + 40


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("conversations", "turns"), [(TURNS // 10, 10), (1, TURNS // 5)])
def test_an_export_of_many_turns_takes_little_memory(
    moa: Moa, conversations: int, turns: int
) -> None:
    path = many_turns(moa.folder, conversations, turns)
    assert peak(moa, "history", "import", path.name) < 120
    assert peak(moa, "history", "export", "--all", "-o", "out.json") < 120


def test_other_processes_write_while_a_long_import_runs(moa: Moa) -> None:
    path = many_turns(moa.folder, 1, 1500)
    with moa.start("history", "import", path.name) as process:
        while process.poll() is None:
            assert moa.run("ask", "in between").code == 0
            # It is there wholly or not at all.
            assert {row["turns"] for row in listed(moa, "-n", "100")} <= {1, 1500}
        assert process.returncode == 0
    assert max(row["turns"] for row in listed(moa, "-n", "100")) == 1500


def test_two_imports_at_once_make_no_copies(moa: Moa) -> None:
    path = many_turns(moa.folder, 20, 10)
    with (
        moa.start("history", "import", path.name) as first,
        moa.start("history", "import", path.name) as second,
    ):
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert len(listed(moa, "-n", "100")) == 20


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.2, 1.5])
def test_an_import_that_is_killed_leaves_whole_conversations_only(moa: Moa, delay: float) -> None:
    path = many_turns(moa.folder, 3, 200)
    with moa.start("history", "import", path.name) as process:
        time.sleep(delay)
        process.kill()
    assert {row["turns"] for row in listed(moa)} <= {200}
    assert imported(moa, path.name)[-1].startswith("moa: imported ")
    assert [row["turns"] for row in listed(moa)] == [200] * 3
    connection = sqlite3.connect(moa.state.parent / "data" / "conversations.db")
    assert connection.execute("SELECT count(*) FROM turns").fetchone()[0] == 600
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()

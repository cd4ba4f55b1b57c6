"""The images and files of prompts are kept with their turns, from the first call to the export and
back; searches, lists and deletions know of them."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from moa_cli.core import paths
from moa_cli.core.conversation import Part
from moa_cli.core.errors import StoreError
from moa_cli.core.events import TurnStarted
from moa_cli.core.tools import ToolCall
from moa_cli.store.archive import read, text_of
from moa_cli.store.database import put_aside
from moa_cli.store.incoming.take import ImportResult, take
from moa_cli.store.recovery import recover
from moa_cli.store.store import Store
from tests.support.attached import PNG, data_uri, pdf, png
from tests.support.command import Moa
from tests.support.kept import open_store
from tests.support.recording import RecorderAlone, events, record
from tests.support.upstream import Reply, Upstream

IMAGE = Part("image", url=data_uri(PNG), name="photo.png", detail="low")
PARTS = (
    Part("text", "why?"),
    IMAGE,
    Part("file", "its \x1b[31m words \ud83d", name="paper.pdf"),
    Part("image", url="https://example.com/a.png"),
)
CALLS = (ToolCall("call_1", "look", '{"at": 1}'), ToolCall("call_2", "grep", "x", "custom"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "one" / "conversations.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    opened = open_store(file)
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "two" / "conversations.db")
    yield opened
    opened.close()


def with_parts(parts: tuple[Part, ...] = PARTS) -> str:
    return "why?\n[image: photo.png]\n[file: paper.pdf]\nits words" if parts else "why?"


def asked(store: Store, parts: tuple[Part, ...] = PARTS, *, conversation: str | None = None) -> str:
    """A conversation with a turn of these parts; its id."""
    first, *rest = events(with_parts(parts))
    assert isinstance(first, TurnStarted)
    recorder = RecorderAlone(store, conversation, "", print)
    for event in [replace(first, parts=parts), *rest]:
        recorder.handle(event)
    recorder.close()
    assert recorder.conversation is not None
    return recorder.conversation


def loaded(store: Store, identity: str) -> tuple[Part, ...]:
    return store.load(identity).turns[-1].parts


def told(store: Store) -> bytes:
    return "".join(text_of(read(store), parts=store.has_parts())).encode()


def add(store: Store, content: bytes) -> ImportResult:
    (took,) = take(store, ["-"], io.BytesIO(content))
    return took


# Half of a surrogate pair cannot be kept; its place can.
KEPT = (*PARTS[:2], replace(PARTS[2], text="its \x1b[31m words ?"), PARTS[3])


def test_the_parts_of_a_prompt_come_back_with_their_turn(store: Store) -> None:
    assert loaded(store, asked(store)) == KEPT
    assert loaded(store, asked(store, ())) == ()


def test_a_turn_that_has_only_begun_has_its_parts(store: Store, tmp_path: Path) -> None:
    first = events()[0]
    assert isinstance(first, TurnStarted)
    recorder = RecorderAlone(store, None, "", print)
    recorder.handle(replace(first, parts=PARTS))
    again = open_store(tmp_path / "one" / "conversations.db")
    assert recorder.conversation is not None
    assert loaded(again, recorder.conversation) == KEPT
    again.close()


def test_a_copy_has_them_too_and_keeps_them(store: Store) -> None:
    identity = asked(store)
    copy = store.fork(identity)
    store.delete([identity])
    assert loaded(store, copy) == KEPT


def test_a_turn_that_was_taken_back_does_not_count(store: Store, other: Store) -> None:
    identity = asked(store, ())
    asked(store, conversation=identity)
    assert store.has_parts([identity])
    store.withdraw(store.turn_numbers(identity)[-1])
    assert not store.has_parts([identity])
    # As it is not in the file, a release that knows no parts may read that; and what is imported
    # is exported as it came.
    exported = told(store)
    assert json.loads(exported)["version"] == 1
    add(other, exported)
    assert told(other) == exported


def test_what_is_deleted_is_in_no_byte_of_the_file(store: Store, file: Path) -> None:
    mark = b"a mark that is in no other place"
    large = png(more=bytes(range(256)) * 2000 + mark * 400)
    keep = asked(store)
    identity = asked(store, (Part("image", url=data_uri(large)),))
    with closing(sqlite3.connect(file)) as connection, connection:
        [packed] = [
            row[0]
            for row in connection.execute(
                "SELECT part FROM parts ORDER BY length(part) DESC LIMIT 1"
            )
        ]
    probe = bytes(packed)[2000:2040]
    assert any(probe in path.read_bytes() for path in file.parent.iterdir() if path.is_file())
    assert store.delete([identity], seconds=30).words is False
    assert not any(probe in path.read_bytes() for path in file.parent.iterdir() if path.is_file())
    assert loaded(store, keep) == KEPT


def test_an_export_comes_back_the_same_to_the_byte(store: Store, other: Store) -> None:
    identity = asked(store)
    number = store.turn_numbers(identity)[0]
    turn = store.load(identity).turns[0]
    store.end_turn(number, replace(turn, tool_calls=CALLS, speaker="ann"))
    asked(store, ())
    content = told(store)
    assert json.loads(content)["version"] == 3
    assert len(add(other, content).new) == 2
    assert told(other) == content
    back = other.load(identity).turns[0]
    assert (back.parts, back.tool_calls, back.speaker) == (KEPT, CALLS, "ann")
    assert add(other, content).new == []


def test_calls_of_tools_alone_make_an_export_that_older_releases_refuse(store: Store) -> None:
    identity = asked(store, ())
    assert json.loads(told(store))["version"] == 1
    number = store.turn_numbers(identity)[0]
    store.end_turn(number, replace(store.load(identity).turns[0], tool_calls=CALLS))
    assert json.loads(told(store))["version"] == 3


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "file:///etc/passwd", 'data:image/png;base64,"><script>', "x y", "//h"],
)
def test_an_import_takes_no_odd_address(store: Store, other: Store, url: str) -> None:
    asked(store)
    values = json.loads(told(store))
    values["conversations"][0]["turns"][0]["parts"][1]["url"] = url
    took = add(other, json.dumps(values).encode())
    assert len(took.new) == 1
    assert sum(took.left.values()) == 1
    [conversation] = other.conversations()
    parts = loaded(other, conversation.id)
    assert (parts[1].url, parts[1].name) == ("", "photo.png")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"kind": "video"}, "kind is none of text, image, file"),
        ({"kind": "image", "url": 1}, "url is not text"),
        ({"text": "x"}, "Part lacks kind"),
        ({"kind": "text", "colour": "x"}, "Part has no colour"),
        ("text", "Part: not a table"),
    ],
)
def test_a_broken_part_is_refused_in_one_line(
    store: Store, other: Store, part: object, said: str
) -> None:
    asked(store)
    values = json.loads(told(store))
    values["conversations"][0]["turns"][0]["parts"] = [part]
    with pytest.raises(StoreError) as caught:
        add(other, json.dumps(values).encode())
    assert said in caught.value.message
    assert other.conversations() == []


def test_data_beyond_the_limit_of_a_turn_is_left_out(store: Store) -> None:
    uri = "data:image/png;base64," + "A" * 40_000_000
    parts = tuple(Part("image", url=uri, name=name) for name in ("a.png", "b.png"))
    found = loaded(store, asked(store, parts))
    assert [(part.name, len(part.url)) for part in found] == [("a.png", len(uri)), ("b.png", 0)]


def test_a_damaged_part_costs_the_parts_and_not_the_turn(store: Store, file: Path) -> None:
    identity = asked(store)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE parts SET part = x'00' WHERE place = 1")
    connection.close()
    turn = store.load(identity).turns[0]
    assert (turn.parts, turn.user, turn.reply) == ((), with_parts(), "so.")
    assert store.unreadable == 1


def test_parts_come_back_from_a_file_without_its_head(store: Store, file: Path) -> None:
    large = Part("image", url=data_uri(png(more=bytes(range(256)) * 100)), name="large.png")
    identities = [asked(store, (*PARTS, large)), asked(store, ())]
    store.close()
    with file.open("r+b") as opened:
        opened.write(b"\0" * 100)
    aside = put_aside(file)
    new = open_store(file)
    # Where a recovery puts its copies.
    paths.make_private(paths.data_dir())
    recover(new, aside, lambda progress: None)
    assert [loaded(new, identity) for identity in identities] == [(*KEPT, large), ()]
    new.close()


def test_a_file_of_an_older_version_is_read_and_gets_the_table(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    old = open_store(file)
    conversation = record(old, events())
    old.close()
    connection = sqlite3.connect(file)
    connection.executescript("DROP TABLE parts; PRAGMA user_version = 7;")
    connection.close()
    store = open_store(file)
    [summary] = store.conversations()
    assert loaded(store, summary.id) == ()
    assert loaded(store, asked(store)) == KEPT
    assert conversation is not None
    store.close()


def test_a_turn_that_waited_for_a_locked_file_has_its_parts(moa: Moa) -> None:
    (moa.folder / "photo.png").write_bytes(PNG)
    assert moa.run("ask", "before").code == 0
    database = moa.state.parent / "data" / "conversations.db"
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert moa.run("ask", "meanwhile", "-f", "photo.png").code == 0
    connection.execute("ROLLBACK")
    connection.close()
    [turn] = json.loads(moa.run("history", "show", "--json").out)["turns"]
    assert turn["parts"][1]["url"] == f"data:image/png;base64,… ({len(PNG)} bytes)"
    assert "photo.png (image/png" in moa.run("history", "show").text


def test_a_killed_turn_is_asked_again_with_its_image(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "photo.png").write_bytes(PNG)
    upstream.always("agg", Reply(stall_after=0))
    with moa.start("ask", "What is it?", "-f", "photo.png") as process:
        upstream.wait_for(lambda: bool(upstream.chats("agg")))
        process.kill()
        process.wait()
    upstream.always("agg", Reply())
    assert moa.run("ask", "--remerge").text == "ok\n"
    assert upstream.chats("agg")[-1].messages[-1]["content"][1]["image_url"]["url"] == data_uri(PNG)


def test_a_search_finds_names_and_the_text_of_pdf_files_and_no_data(moa: Moa) -> None:
    (moa.folder / "photo.png").write_bytes(PNG)
    (moa.folder / "paper.pdf").write_bytes(pdf("A peculiar hypothesis"))
    assert moa.run("ask", "Sum up", "-f", "photo.png", "-f", "paper.pdf").code == 0
    assert "[hypothesis]" in moa.run("history", "search", "hypothesis").text
    assert "[photo]" in moa.run("history", "search", "photo").text
    for word in [*re.findall(r"\w{6,}", data_uri(PNG).partition(",")[2]), "base64"]:
        assert moa.run("history", "search", word).text == ""


def test_exports_name_what_was_attached(moa: Moa) -> None:
    (moa.folder / "photo.png").write_bytes(PNG)
    (moa.folder / "paper.pdf").write_bytes(pdf("A peculiar hypothesis"))
    assert moa.run("ask", "Sum up", "-f", "photo.png", "-f", "paper.pdf").code == 0
    said = f"photo.png (image/png, {len(PNG)} bytes); paper.pdf (21 characters of text)"
    assert f"(attached: {said})" in moa.run("history", "show").text
    assert f"*attached: {said}*" in moa.run("history", "export", "--all").text
    page = moa.run("history", "export", "--all", "--format", "html").text
    assert f'<img class="attached" src="{data_uri(PNG)}" alt="photo.png">' in page
    assert "img-src data:" in page
    assert "moa history" not in page
    exported = moa.run("history", "export", "--all", "--format", "json").out
    turn = json.loads(exported)["conversations"][0]["turns"][0]
    assert [part["kind"] for part in turn["parts"]] == ["text", "image", "file"]
    assert turn["parts"][1]["url"] == data_uri(PNG)
    assert moa.run("history", "delete", "--all", "-y").code == 0
    assert moa.run("history", "import", "-", stdin=exported).code == 0
    assert f"(attached: {said})" in moa.run("history", "show").text

"""Lines of `moa batch` with messages as chat completions have them: images, files, calls of tools;
and what cannot be done, refused before anything is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch.test_batch import lines_of
from tests.server.test_client_fields import CALL
from tests.server.test_images_and_files import IMAGE, asking, file
from tests.support.attached import images, pdf
from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

WORD = {"type": "text", "text": "what is it?"}
WORK: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
    {"role": "tool", "tool_call_id": "c1", "content": "wet"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Sure?", "name": "ann"},
]


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.configure(profile="one", providers=moa.settings()["providers"])
    return moa


def run(moa: Moa, *conversations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{"messages": messages} for messages in conversations]
    write_lines(moa.folder / "in.jsonl", rows)
    ran = moa.run("batch", "in.jsonl", "out.jsonl")
    assert ran.code == 0, ran.err
    told = lines_of(moa.folder / "out.jsonl")
    assert [row["messages"] for row in told] == list(conversations)
    return told


def test_images_and_texts_of_files_go_to_the_models(moa: Moa, upstream: Upstream) -> None:
    paper = file(pdf("A claim"))
    earlier = [*asking(paper), {"role": "assistant", "content": "so"}]
    [told] = run(moa, [*earlier, *asking(IMAGE, file(b"its notes", "text/plain", "notes.txt"))])
    assert told["reply"].startswith("agg says ")
    for model in ("a", "agg"):
        [request] = upstream.chats(model)
        said = [message["content"] for message in request.messages if message["role"] == "user"]
        assert said[0] == "what is it?\n[file: paper.pdf]\nA claim"
        notes = {"type": "text", "text": "notes.txt:\n```\nits notes\n```"}
        assert said[1] == [WORD, IMAGE, notes]


def test_a_model_that_sees_nothing_reads_that_there_is_an_image(
    moa: Moa, upstream: Upstream
) -> None:
    # Its name tells.
    moa.profile("one", "deepseek-chat")
    run(moa, asking(IMAGE))
    assert upstream.chats("deepseek-chat")[0].messages[-1]["content"] == "what is it?\n[image]"
    assert images(upstream.chats("agg")[0].messages[-1])


def test_calls_of_tools_and_names_are_not_lost(moa: Moa, upstream: Upstream) -> None:
    run(moa, WORK)
    [proposer], [aggregator] = upstream.chats("a"), upstream.chats("agg")
    assert '[called tool: weather({"a":1})]' in str(proposer.messages)
    assert "[result of weather]\\nwet" in str(proposer.messages)
    assert aggregator.messages[2]["tool_calls"] == [CALL]
    assert aggregator.messages[3] == {"role": "tool", "tool_call_id": "c1", "content": "wet"}
    assert aggregator.messages[-1]["name"] == "ann"
    assert "hm" not in [message.get("reasoning_content") for message in aggregator.messages]


def test_a_batch_that_goes_on_pays_for_no_call_with_an_image_twice(tmp_path: Path) -> None:
    modalities = {"a": ["text"], "agg": ["text", "image"]}
    listed = [
        {"id": name, "architecture": {"input_modalities": kinds}}
        for name, kinds in modalities.items()
    ]
    with Upstream(models=listed) as upstream:
        moa = Moa(tmp_path, upstream.url)
        moa.profile("one", "a")
        moa.configure(profile="one", providers=moa.settings()["providers"])
        upstream.always("agg", Reply(status=400))
        write_lines(moa.folder / "in.jsonl", [{"messages": asking(IMAGE)}])
        assert moa.run("batch", "in.jsonl", "out.jsonl").code == 1
        [request] = upstream.chats("a")
        assert not images(request.messages[-1])
        upstream.always("agg", ANSWER)
        assert moa.run("batch", "in.jsonl", "out.jsonl").code == 0
        assert len(upstream.chats("a")) == 1


BROKEN: list[tuple[Any, str]] = [
    ({"type": "input_audio", "input_audio": {}}, "`messages[0].content[1].type`"),
    ({"type": "image_url"}, "`messages[0].content[1].image_url` is missing"),
    ({"type": "image_url", "image_url": "photo.png"}, "`messages[0].content[1].image_url` must be"),
    ({"type": "file", "file": {"file_id": "f1"}}, "`messages[0].content[1].file.file_id`"),
    (file(b"%PDF-1.4\nbroken"), "`messages[0].content[1]`: paper.pdf: is a broken PDF file"),
    (file(b"\0\1"), "`messages[0].content[1]`: paper.pdf: is not a text file"),
    (
        {"type": "file", "file": {"file_data": "https://example.com/a.pdf"}},
        "`messages[0].content[1]`: a file: is not a data: URI",
    ),
    ("text", "`messages[0].content[1]`"),
]


@pytest.mark.parametrize(("part", "said"), BROKEN)
def test_a_part_that_cannot_be_sent_is_refused_with_its_line(
    moa: Moa, upstream: Upstream, part: Any, said: str
) -> None:
    write_lines(moa.folder / "in.jsonl", [{"prompt": "fine"}, {"messages": asking(part)}])
    ran = moa.run("batch", "in.jsonl", "out.jsonl")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"in.jsonl:2: {said}" in ran.err
    assert upstream.chats() == []
    assert not (moa.folder / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", "`messages` is not a list of {role, content}"),
        (["hi"], "`messages[0]` is not an object"),
        ([{"role": "robot", "content": "hi"}], "`messages[0].role`"),
        ([{"role": "user"}], "`messages[0].content` is missing"),
        (WORK[:4], "the last of `messages` is not from the user"),
        (WORK[:5], "the last of `messages` is not from the user"),
        ([], "the last of `messages` is not from the user"),
    ],
)
def test_messages_that_are_none_are_refused_by_name(
    moa: Moa, upstream: Upstream, messages: Any, said: str
) -> None:
    (moa.folder / "in.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    ran = moa.run("batch", "in.jsonl", "-")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"in.jsonl:1: {said}" in ran.err
    assert upstream.chats() == []

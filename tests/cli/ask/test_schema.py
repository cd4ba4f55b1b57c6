"""`moa ask --schema`: JSON alone on standard output, or nothing and one line that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.talk import sent
from tests.support.upstream import Reply, Upstream

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
GOOD = '{"city":  "Graz",\n "people": 300000}'
WRONG = '{"city": "Graz"}'


@pytest.fixture
def file(moa: Moa) -> str:
    """A file with the schema in the folder of the command."""
    (moa.folder / "town.json").write_text(json.dumps(SCHEMA), "utf-8")
    return "town.json"


@pytest.mark.parametrize("more", [(), ("--no-stream",), ("-v",), ("--show-proposals",), ("-q",)])
def test_the_json_is_printed_as_it_was_written(
    moa: Moa, upstream: Upstream, file: str, more: tuple[str, ...]
) -> None:
    upstream.always("agg", Reply(chunks=[*f"```json\n{GOOD}\n```\n"]))
    ran = moa.run("ask", "Graz?", "--schema", file, *more)
    assert (ran.code, ran.text) == (0, GOOD + "\n")
    [asking] = upstream.chats("agg")
    assert asking.body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "response_format" not in upstream.chats("a")[0].body


def test_the_schema_may_be_typed(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=GOOD))
    ran = moa.run("ask", "Graz?", "--schema", json.dumps(SCHEMA))
    assert (ran.code, ran.text) == (0, GOOD + "\n")


def test_a_wrong_answer_is_asked_for_once_more(moa: Moa, upstream: Upstream, file: str) -> None:
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=GOOD))
    ran = moa.run("ask", "Graz?", "--schema", file, "--json")
    turn = json.loads(ran.out)
    assert turn["reply"] == GOOD
    assert turn["parsed"] == json.loads(GOOD)
    assert turn["usage"]["calls"] == 5
    assert 'lacks "people"' in sent(upstream)[-1][-1]


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_what_stays_wrong_is_one_line_and_nothing_on_standard_output(
    moa: Moa, upstream: Upstream, file: str, more: tuple[str, ...]
) -> None:
    upstream.always("agg", Reply(text=WRONG))
    ran = moa.run("ask", "Graz?", "--schema", file, "-q", *more)
    assert (ran.code, ran.out) == (1, b"")
    [line] = ran.err.splitlines()
    assert line.startswith("moa: lab:agg: its answer is not the JSON that was asked for: $ lacks")
    assert len(upstream.chats("agg")) == 2


def test_a_failed_turn_has_no_value(moa: Moa, upstream: Upstream, file: str) -> None:
    upstream.always("agg", Reply(text=WRONG))
    ran = moa.run("ask", "Graz?", "--schema", file, "--json")
    turn = json.loads(ran.out)
    assert (ran.code, turn["parsed"], turn["error"]["kind"]) == (1, None, "SchemaMismatch")


def test_the_events_tell_the_second_call(moa: Moa, upstream: Upstream, file: str) -> None:
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=GOOD))
    ran = moa.run("ask", "Graz?", "--schema", file, "--output", "jsonl")
    events = [json.loads(line) for line in ran.text.splitlines()]
    [retry] = [event for event in events if event["kind"] == "retrying"]
    assert (retry["error"]["kind"], retry["withdrawn"]) == ("SchemaMismatch", True)
    assert [e["text"] for e in events if e["kind"] == "aggregator_delta"] == [GOOD]


def test_a_conversation_goes_on_and_its_proposals_are_merged(
    moa: Moa, upstream: Upstream, file: str
) -> None:
    upstream.always("agg", Reply(text=GOOD))
    moa.run("ask", "Graz?")
    ran = moa.run("ask", "-c", "As JSON.", "--schema", file)
    assert (ran.code, ran.text) == (0, GOOD + "\n")
    assert sent(upstream)[-1] == ["Graz?", GOOD, "As JSON."]
    upstream.enqueue("agg", Reply(text=WRONG), Reply(text=WRONG))
    assert moa.run("ask", "-c", "Again.", "--schema", file).code == 1
    before = len(upstream.chats("a"))
    ran = moa.run("ask", "--remerge", "--schema", file)
    assert (ran.code, ran.text) == (0, GOOD + "\n")
    assert len(upstream.chats("a")) == before
    shown = json.loads(moa.run("history", "show", "--json").out)["turns"]
    assert [turn["reply"] for turn in shown] == [GOOD, GOOD, GOOD]


def test_a_cap_holds(moa: Moa, upstream: Upstream, file: str) -> None:
    upstream.always("agg", Reply(text=WRONG, usage=(1000, 10)))
    moa.profile("lab", aggregator={"model": "lab:agg", "max_tokens": 20}, rounds=0)
    ran = moa.run("ask", "Graz?", "--schema", file, "--max-total-tokens", "1020")
    assert (ran.code, ran.out) == (3, b"")
    assert len(upstream.chats("agg")) == 1


def test_what_would_be_sent_and_taken_is_told(moa: Moa, upstream: Upstream, file: str) -> None:
    plan = moa.run("ask", "Graz?", "--schema", file, "--dry-run").text
    assert "response_format {'type': 'json_schema'" in plan
    plain = json.loads(moa.run("ask", "Graz?", "--estimate", "--json").out)
    assert json.loads(moa.run("ask", "Graz?", "--estimate", "--output", "json").out) == plain
    asked = json.loads(moa.run("ask", "Graz?", "--schema", file, "--estimate", "--json").out)
    tokens = [[layer["prompt_tokens"] for layer in told["layers"]] for told in (plain, asked)]
    assert tokens[0][0] == tokens[1][0]
    assert tokens[0][1] < tokens[1][1]
    assert not [request for request in upstream.requests if request.is_chat]


def test_the_value_is_safe_to_show(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=['{"a": "\u009b2J\u202e"}']))
    ran = moa.run("ask", "hi", "--schema", "{}")
    assert ran.text == '{"a": "\\u009b2J\\u202e"}\n'


def test_on_a_terminal_the_json_is_not_drawn_as_markdown(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text='{"a": "**b** [c](d)"}'))
    with moa.terminal("ask", "hi", "--schema", "{}") as terminal:
        assert terminal.wait() == 0
        assert '{"a": "**b** [c](d)"}' in terminal.lines()


@pytest.mark.parametrize(
    ("typed", "content", "words"),
    [
        ("-", "", "--schema -: standard input belongs to the prompt"),
        ("none.json", None, "none.json: "),
        ("s.json", "", "--schema s.json: it is not JSON: Expecting value (line 1)"),
        ("s.json", "[]", "--schema s.json: `schema` is not a JSON object"),
        ("s.json", '{"type": "strin"}', '--schema s.json: `schema.type` is not a type: "strin"'),
        ("s.json", '{"$ref": "https://x.y/z"}', '`schema.$ref` refers to "https://x.y/z"'),
        ('{"type": 3}', None, "--schema: `schema.type` is not a type: 3"),
        ("{", None, "--schema: it is not JSON"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_before_anything_is_asked(
    moa: Moa, upstream: Upstream, typed: str, content: str | None, words: str
) -> None:
    if content is not None and typed != "-":
        Path(moa.folder / typed).write_text(content, "utf-8")
    for more in ((), ("--dry-run",)):
        ran = moa.run("ask", "hi", "--schema", typed, *more)
        assert (ran.code, ran.out) == (2, b"")
        assert words in ran.err
        assert len(ran.err.splitlines()) == 1
    assert upstream.requests == []

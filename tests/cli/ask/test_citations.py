"""The sources that an endpoint names for the reply: shown, stored, exported and served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa_cli.core.events import AggregatorFinished, ProposerFinished, from_dict
from tests.support.bench.own_runs import write_prompts
from tests.support.command import Moa
from tests.support.server import chunks, serving
from tests.support.upstream import Reply, Upstream

SKY = "https://example.org/sky"
PLAIN = "example.org/no-link"
EVIL = "javascript:alert(1)"
FOUND = {"url": SKY, "title": "Why \x1b[31mthe [sky](x) <b>is</b> blue", "date": "2026-01-02"}
NAMED = {"citations": [SKY, PLAIN, SKY, EVIL], "search_results": [FOUND]}
DUST = "https://example.org/dust"
LINES = [
    "sources:",
    f"[1] Why the [sky](x) <b>is</b> blue: {SKY}",
    f"[2] {PLAIN}",
    f"[3] {EVIL}",
]


@pytest.fixture
def cited(moa: Moa, upstream: Upstream) -> Moa:
    """The aggregator names three sources, the proposer another one."""
    upstream.always("agg", Reply(text="Scattering [1].", more=NAMED))
    upstream.always("a", Reply(text="dust", more={"citations": [DUST]}))
    moa.profile("lab", "a")
    return moa


def sources_of(values: Any) -> list[str]:
    return [citation["url"] for citation in values["citations"]]


def test_a_pipe_gets_the_reply_alone_and_standard_error_the_sources(cited: Moa) -> None:
    ran = cited.run("ask", "why?")
    assert (ran.code, ran.text) == (0, "Scattering [1].\n")
    lines = ran.err.splitlines()
    assert lines[lines.index("sources:") :] == LINES
    quiet = cited.run("ask", "-q", "why?")
    assert (quiet.text, quiet.err) == ("Scattering [1].\n", "")


def test_a_terminal_shows_them_below_the_reply(cited: Moa) -> None:
    with cited.terminal("ask", "why?", columns=120, rows=40) as terminal:
        assert terminal.wait() == 0
        lines = [line for line in terminal.lines() if line]
    assert lines[-5:] == ["Scattering [1].", *LINES]


def test_a_conversation_shows_them_too(cited: Moa) -> None:
    with cited.terminal("chat", columns=120, rows=40) as terminal:
        terminal.wait_for("›")
        terminal.send("why?\r")
        terminal.wait_for(LINES[-1])
        lines = [line for line in terminal.lines() if line]
    at = lines.index("sources:")
    assert lines[at - 1 : at + 4] == ["Scattering [1].", *LINES]


def test_those_of_a_proposal_are_shown_with_it(cited: Moa) -> None:
    ran = cited.run("chat", stdin=b"why?\n/show 1\n")
    assert "lab:a (round 1)\ndust\n[1] https://example.org/dust\n" in ran.err
    ran = cited.run("ask", "--show-proposals", "why?")
    assert "\ndust\n[1] https://example.org/dust\n" in ran.err


def test_json_holds_them_as_fields(cited: Moa) -> None:
    ran = cited.run("ask", "--json", "why?")
    told = json.loads(ran.text)
    assert sources_of(told) == [SKY, PLAIN, EVIL]
    assert told["citations"][0]["title"] == FOUND["title"]
    assert sources_of(told["proposals"][0][0]) == ["https://example.org/dust"]
    assert "sources:" not in ran.err
    events = cited.run("ask", "--output", "jsonl", "why?").text.splitlines()
    made = [from_dict(json.loads(line)) for line in events]
    [proposed] = [event for event in made if isinstance(event, ProposerFinished)]
    [replied] = [event for event in made if isinstance(event, AggregatorFinished)]
    assert [source.url for source in replied.citations] == [SKY, PLAIN, EVIL]
    assert [source.url for source in proposed.proposal.citations] == ["https://example.org/dust"]


def test_without_sources_there_is_no_field_and_no_list(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "--output", "jsonl", "why?")
    assert "citations" not in ran.text
    assert "citations" not in moa.run("ask", "--json", "why?").text
    assert "citations" not in moa.run("history", "export", "--all").text
    assert "sources" not in moa.run("ask", "why?").err


def test_they_are_stored_shown_and_exported(cited: Moa) -> None:
    assert cited.run("ask", "why?").code == 0
    shown = cited.run("history", "show").text
    assert shown.splitlines()[-4:] == LINES
    assert "example.org/dust" in cited.run("history", "show", "--proposals").text
    assert sources_of(json.loads(cited.run("history", "show", "--json").text)["turns"][0]) == [
        SKY,
        PLAIN,
        EVIL,
    ]
    markdown = cited.run("history", "export", "--all", "--format", "md").text
    assert rf"1. [Why the \[sky\](x) \<b\>is\</b\> blue](<{SKY}>)" in markdown
    assert f"2. {PLAIN}\n3. {EVIL}\n" in markdown
    page = cited.run("history", "export", "--all", "--format", "html").text
    assert f'<a href="{SKY}" rel="noopener noreferrer nofollow">Why the [sky](x) &lt;b&gt;' in page
    assert f"<li>{EVIL}</li>" in page
    assert 'href="javascript' not in page
    assert "\x1b" not in shown + markdown + page


def test_an_export_with_sources_comes_back_the_same(cited: Moa) -> None:
    assert cited.run("ask", "why?").code == 0
    out = cited.run("history", "export", "--all", "--format", "json").out
    elsewhere = {"MOA_DATA_DIR": str(cited.folder / "elsewhere")}
    assert cited.run("history", "import", "-", stdin=out, env=elsewhere).code == 0
    again = cited.run("history", "export", "--all", "--format", "json", env=elsewhere)
    assert again.out == out
    assert SKY.encode() in out


def test_the_server_gives_them_as_perplexity_does(cited: Moa) -> None:
    with serving(cited) as server:
        told = server.ask().json()
        streamed = chunks(server.ask(stream=True).text)
    assert told["citations"] == [SKY, PLAIN, EVIL]
    assert told["search_results"][0] == {"title": FOUND["title"], "url": SKY}
    assert streamed[-1]["citations"] == [SKY, PLAIN, EVIL]
    assert not any("citations" in chunk for chunk in streamed[:-1])


def test_the_server_gives_no_field_where_there_are_none(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        assert "citations" not in server.ask().text


def test_a_batch_writes_them_down_and_takes_them_from_its_journal(
    cited: Moa, upstream: Upstream
) -> None:
    (cited.folder / "in.jsonl").write_text('{"prompt": "why?", "citations": "mine"}\n', "utf-8")
    command = ("batch", "in.jsonl", "out.jsonl", "--proposals")
    out = cited.folder / "out.jsonl"
    # A prompt that cannot be answered keeps the journal of the others.
    upstream.always("agg", Reply(status=500))
    assert cited.run(*command).code != 0
    calls = [json.loads(line) for line in read(cited, "out.jsonl.state/calls.jsonl")]
    assert [sources_of(call) for call in calls if not call["error"]] == [[DUST]]
    upstream.always("agg", Reply(text="Scattering [1].", more=NAMED))
    assert cited.run(*command).code == 0
    line = json.loads(out.read_text("utf-8"))
    assert sources_of(line) == [SKY, PLAIN, EVIL]
    assert [sources_of(proposal) for [proposal] in line["proposals"]] == [[DUST]]
    assert line["input"] == {"citations": "mine"}
    assert len(upstream.chats("a")) == 1


def test_a_run_of_a_bench_keeps_them(cited: Moa, upstream: Upstream) -> None:
    run = ("bench", "run", write_prompts(cited, 1), "-y", "--arms", "mixture", "-o", "kept")
    assert cited.run(*run).code == 0
    [item] = [json.loads(line) for line in read(cited, "kept/items.jsonl")]
    [turn] = item["turns"]
    assert sources_of(turn["reply"]) == [SKY, PLAIN, EVIL]
    assert [sources_of(proposal) for [proposal] in turn["proposals"]] == [[DUST]]
    # Made again from the journal, to the byte.
    before = (cited.folder / "kept/items.jsonl").read_bytes()
    (cited.folder / "kept/items.jsonl").unlink()
    asked = len(upstream.requests)
    assert cited.run(*run).code == 0
    assert (cited.folder / "kept/items.jsonl").read_bytes() == before
    assert len(upstream.chats()) <= asked


def read(moa: Moa, name: str) -> list[str]:
    return (moa.folder / name).read_text("utf-8").splitlines()

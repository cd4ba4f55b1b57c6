"""`/compact`: the models get a summary in place of the turns before the last. It can be read,
edited and removed, and it is kept with the conversation."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import Talk, at_empty_prompt, sent
from tests.support.upstream import Reply, Request, Upstream

SUMMARY = "The user likes **okapis**, and wants short answers."
READ = "I have read the summary. Let us go on from there."


def summary(text: str = SUMMARY) -> str:
    """The message that tells a summary."""
    return f"A summary of our conversation so far:\n\n{text}"


def is_asked_to_sum_up(request: Request) -> bool:
    return str(request.messages[-1]["content"]).startswith("Sum up our conversation so far.")


def sums_up(upstream: Upstream, *texts: str) -> None:
    """The aggregator gives these summaries, and `ok` to everything else."""
    left = list(texts)

    def reply(request: Request) -> Reply:
        return Reply(text=left.pop(0) if is_asked_to_sum_up(request) else "ok")

    upstream.always("*", Reply(text="ok"))
    upstream.always("agg", reply)


def test_a_summary_stands_in_place_of_all_turns_but_the_last(talk: Talk) -> None:
    sums_up(talk.upstream, SUMMARY)
    talk.do("one", "two", "three")
    said = talk.do("/compact")
    assert said.startswith(f"summary of 2 turns:\n{SUMMARY}")
    assert "the models get the summary in place of 2 turns" in said
    # A pipe is given replies only.
    assert talk.out == ""
    [request] = [call for call in talk.upstream.chats("agg") if is_asked_to_sum_up(call)]
    assert [message["content"] for message in request.messages[1:-1]] == ["one", "ok", "two", "ok"]
    assert len(talk.upstream.chats("a")) == 3
    talk.do("four")
    for model in ("a", "agg"):
        assert talk.sent(model)[-1] == [summary(), READ, "three", "ok", "four"]
    assert [turn.user for turn in talk.session.conversation.turns] == [
        "one",
        "two",
        "three",
        "four",
    ]
    assert talk.session.spent["lab:agg"].calls == 5


def test_what_to_keep_in_particular_is_told(talk: Talk) -> None:
    sums_up(talk.upstream, SUMMARY)
    talk.do("one", "two", "/compact the names of the animals")
    asked = str(talk.upstream.chats("agg")[-1].messages[-1]["content"])
    assert asked.endswith("Keep in particular: the names of the animals")


def test_it_is_shown_and_taken_away(talk: Talk) -> None:
    sums_up(talk.upstream, SUMMARY)
    assert talk.do("/compact show") == "moa: there is no summary (/compact makes one)"
    assert talk.do("/compact off") == "moa: there is no summary (/compact makes one)"
    talk.do("one", "two", "/compact")
    assert talk.do("/compact show") == f"summary of 1 turn:\n{SUMMARY}"
    assert talk.do("/compact edit") == "moa: /compact edit needs a terminal"
    assert talk.do("/compact off") == "the summary is removed: 1 turn is sent again"
    talk.do("three")
    assert talk.sent("agg")[-1] == ["one", "ok", "two", "ok", "three"]


def test_a_later_summary_is_made_of_the_one_before_it_and_falls_back_to_it(talk: Talk) -> None:
    sums_up(talk.upstream, "First.", "Second.")
    talk.do("one", "two", "/compact", "three", "four", "/compact")
    [_, request] = [call for call in talk.upstream.chats("agg") if is_asked_to_sum_up(call)]
    told = [message["content"] for message in request.messages[1:-1]]
    assert told == [summary("First."), READ, "two", "ok", "three", "ok"]
    talk.do("five")
    assert talk.sent("agg")[-1] == [summary("Second."), READ, "four", "ok", "five"]
    assert talk.do("/compact off").endswith("2 turns are sent again, after the earlier summary")
    talk.do("six")
    assert talk.sent("agg")[-1][:3] == [summary("First."), READ, "two"]


def test_undo_takes_turns_back_that_were_summed_up_with_their_summary(talk: Talk) -> None:
    sums_up(talk.upstream, SUMMARY)
    talk.do("one", "two", "three", "/compact", "/undo", "/undo", "next")
    assert talk.sent("agg")[-1] == ["one", "ok", "next"]


@pytest.mark.parametrize("lines", [[], ["one"]])
def test_there_is_nothing_to_sum_up_before_the_last_turn(talk: Talk, lines: list[str]) -> None:
    talk.do(*lines)
    assert talk.do("/compact") == "moa: there are no turns before the last one to summarize"
    assert len(talk.upstream.chats("agg")) == len(lines)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(status=400), "lab:agg: lab refused the request (400)"),
        (Reply(text="<think>hm</think> \n"), "gave"),
    ],
)
def test_without_a_summary_the_conversation_stays_as_it_is(
    talk: Talk, reply: Reply, why: str
) -> None:
    talk.upstream.always("*", Reply(text="ok"))
    talk.do("one", "two")
    talk.upstream.enqueue("agg", reply)
    said = talk.do("/compact")
    assert "there is no summary: " in said
    assert why in said
    assert "from now on" not in said
    talk.do("three")
    assert talk.sent("agg")[-1] == ["one", "ok", "two", "ok", "three"]


def test_what_a_summary_took_that_came_to_nothing_is_told(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a")
    upstream.enqueue("agg", Reply(), Reply(), Reply(text="A summary. It", drop_after=2))
    ran = moa.run("chat", stdin=b"one\ntwo\n/compact\n")
    assert re.search(r"^moa: there is no summary: .*\n\(1 call, ", ran.err, re.MULTILINE)


def test_an_aggregator_without_room_for_all_turns_sums_up_in_steps(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "context": 2400, "max_tokens": 300})
    long = "word " * 400
    prompts = [f"{number} {long}" for number in range(1, 9)]
    sums_up(upstream, *(f"Summary {number}." for number in range(1, 9)))
    lines = "\n".join([*prompts, "/compact", "go on", ""])
    ran = moa.run("chat", stdin=lines.encode())
    assert ran.code == 0, ran.err
    steps = [call for call in upstream.chats("agg") if is_asked_to_sum_up(call)]
    assert len(steps) > 1
    seen: list[str] = []
    for number, step in enumerate(steps):
        texts = [str(message["content"]).split()[0] for message in step.messages[1:-1]]
        first = str(step.messages[1]["content"])
        assert first == summary(f"Summary {number}.") if number else first == prompts[0].strip()
        seen += [text for text in texts if text.isdigit()]
    assert seen == [str(number) for number in range(1, 8)]
    last = [str(message["content"]) for message in upstream.chats("agg")[-1].messages]
    assert last[-5:-3] == [summary(f"Summary {len(steps)}."), READ]
    assert "left out" not in ran.err.partition("summary of")[2]


def kept_with_summary(moa: Moa, upstream: Upstream) -> str:
    """A conversation of three turns with a summary, and its id."""
    moa.profile("lab", "a")
    sums_up(upstream, SUMMARY)
    ran = moa.run("chat", stdin=b"one\ntwo\nthree\n/compact\n")
    assert ran.code == 0, ran.err
    return moa.run("history", "list").text.split()[0]


def test_it_is_kept_and_a_conversation_that_is_continued_is_sent_it(
    moa: Moa, upstream: Upstream
) -> None:
    identity = kept_with_summary(moa, upstream)
    assert moa.run("ask", "--cid", identity, "four").code == 0
    assert sent(upstream)[-1] == [summary(), READ, "three", "ok", "four"]
    told = moa.run("chat", "-c", stdin=b"/compact show\n/fork\nfive\n/compact off\nsix\n")
    assert f"summary of 2 turns:\n{SUMMARY}" in told.err
    assert sent(upstream)[-2][:3] == [summary(), READ, "three"]
    assert sent(upstream)[-1][:3] == ["one", "ok", "two"]
    # The copy alone has lost it.
    assert moa.run("ask", "--cid", identity, "again").code == 0
    assert sent(upstream)[-1][:3] == [summary(), READ, "three"]


def test_history_exports_and_search_know_it(moa: Moa, upstream: Upstream) -> None:
    identity = kept_with_summary(moa, upstream)
    heading = "summary, sent to the models in place of all turns up to here"
    shown = moa.run("history", "show", identity).text
    assert (
        shown.index("› two") < shown.index(heading) < shown.index(SUMMARY) < shown.index("› three")
    )
    page = moa.run("history", "export", identity, "--format", "html").text
    assert f"<summary>{heading.capitalize()}</summary>" in page
    assert "<strong>okapis</strong>" in page
    written = moa.run("history", "export", identity, "--format", "md").text
    assert f"**{heading.capitalize()}**\n\n{SUMMARY}" in written
    exported = moa.run("history", "export", identity, "--format", "json")
    values = json.loads(exported.text)
    assert values["version"] == 4
    turns = values["conversations"][0]["turns"]
    assert [turn.get("summary_so_far") for turn in turns] == [None, SUMMARY, None]
    elsewhere = {"MOA_DATA_DIR": str(moa.folder / "elsewhere")}
    assert moa.run("history", "import", "-", stdin=exported.out, env=elsewhere).code == 0
    again = moa.run("history", "export", identity, "--format", "json", env=elsewhere)
    assert again.out == exported.out
    for environment in ({}, elsewhere):
        found = json.loads(moa.run("history", "search", "okapis", "--json", env=environment).text)
        assert [(hit["conversation"], hit["turn"], hit["where"]) for hit in found] == [
            (identity, 2, "summary")
        ]
    assert moa.run("history", "check").code == 0


def test_a_file_that_the_chat_writes_keeps_the_summary(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a")
    for saving in ("--save", "--no-save"):
        sums_up(upstream, SUMMARY)
        name = f"out{saving}.json"
        lines = f"one\ntwo\nthree\n/compact\n/export {name}\n"
        assert moa.run("chat", saving, stdin=lines.encode()).code == 0
        written = json.loads((moa.folder / name).read_text("utf-8"))
        assert written["version"] == 4
        elsewhere = {"MOA_DATA_DIR": str(moa.folder / f"elsewhere{saving}")}
        read = moa.run("history", "import", name, env=elsewhere)
        assert read.code == 0, read.err
        [conversation] = written["conversations"]
        again = moa.run("history", "export", conversation["id"], "--format", "json", env=elsewhere)
        turns = json.loads(again.text)["conversations"][0]["turns"]
        assert [turn.get("summary_so_far") for turn in turns] == [None, SUMMARY, None]


def test_what_the_call_took_counts_for_the_conversation(moa: Moa, upstream: Upstream) -> None:
    identity = kept_with_summary(moa, upstream)
    listed = json.loads(moa.run("history", "export", identity, "--format", "json").text)
    usages = [turn["usage"]["calls"] for turn in listed["conversations"][0]["turns"]]
    assert usages == [2, 3, 2]


def was_told(terminal: Terminal, turns: int) -> bool:
    """Whether the figures of so many turns are on the screen or above it."""
    text = "\n".join(terminal.lines())
    return len(re.findall(r"^\(\d+ calls?, ", text, re.MULTILINE)) >= turns


def test_at_a_terminal_it_comes_as_it_is_written_and_the_editor_changes_it(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    moa.profile("lab", "a")
    sums_up(upstream, SUMMARY)
    script = tmp_path / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text().replace('okapis', 'zebras') + ' Always.\\n')\n"
    )
    with moa.terminal("chat", rows=40, env={"EDITOR": f"{sys.executable} {script}"}) as terminal:
        for number, line in enumerate(("one", "two", "/compact"), 1):
            at_empty_prompt(terminal)
            terminal.send(f"{line}\r")
            terminal.wait_for(partial(was_told, terminal, number))
        at_empty_prompt(terminal)
        lines = terminal.lines()
        place = lines.index("summary of 1 turn:")
        assert lines[place + 1 : place + 3] == [
            "",
            "The user likes okapis, and wants short answers.",
        ]
        terminal.send("/compact edit\r")
        terminal.wait_for("the summary is changed")
        at_empty_prompt(terminal)
        terminal.send("/compact show\r")
        terminal.wait_for("The user likes **zebras**, and wants short answers. Always.")
        at_empty_prompt(terminal)
        terminal.send("three\r")
        upstream.wait_for(lambda: sent(upstream)[-1][-1] == "three")
    assert sent(upstream)[-1][0] == summary(
        "The user likes **zebras**, and wants short answers. Always."
    )

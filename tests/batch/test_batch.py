"""`moa batch`: prompts in, lines of answers out, and nothing paid for twice."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.money import usd
from tests.support.bench.own_runs import ANSWER, answered_twice, call_lines, write_lines
from tests.support.command import PATIENCE, Moa, Ran
from tests.support.upstream import Reply, Request, Upstream

SILENT = Reply(stall_after=0)
BUSY = Reply(status=500, error={"error": {"message": "out of order"}})


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command; the upstream's models say something of their own to each request."""
    upstream.always("*", ANSWER)
    moa = Moa(tmp_path, upstream.url)
    moa.profile("one", "a")
    moa.configure(profile="one", providers=moa.settings()["providers"])
    return moa


def prompts(moa: Moa, count: int) -> str:
    """A file of so many prompts; its name."""
    rows = [{"id": f"q{n}", "prompt": f"what is thing {n}"} for n in range(1, count + 1)]
    return write_lines(moa.folder / "in.jsonl", rows).name


def lines_of(data: bytes | Path) -> list[dict[str, Any]]:
    """The lines of an output."""
    raw = data.read_bytes() if isinstance(data, Path) else data
    assert raw == b"" or raw.endswith(b"\n")
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def ids(data: bytes | Path) -> list[Any]:
    """Whose lines they are."""
    return [line["id"] for line in lines_of(data)]


def names(folder: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in folder.iterdir())


def test_a_line_tells_what_came_of_a_prompt(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("batch", prompts(moa, 2), "out.jsonl", "--proposals")
    assert (ran.code, ran.out) == (0, b"")
    first, second = lines_of(moa.folder / "out.jsonl")
    assert (first["id"], second["id"]) == ("q1", "q2")
    assert first["prompt"] == "what is thing 1"
    assert first["reply"].startswith("agg says ")
    assert (first["profile"], first["model"], first["finish_reason"]) == ("one", "agg", "stop")
    assert first["usage"]["calls"] == 2
    assert first["cost"] is None
    assert first["seconds"] > 0
    [[proposal]] = first["proposals"]
    assert (proposal["model"], proposal["text"][:7]) == ("lab:a", "a says ")
    assert not {"error", "lost", "input"} & first.keys()
    assert "moa: 2 of 2 answers in out.jsonl" in ran.err
    assert stat.S_IMODE((moa.folder / "out.jsonl").stat().st_mode) == 0o600
    # What is left is enough to tell whether the same is asked for.
    assert names(moa.folder / "out.jsonl.state") == ["batch.json"]


def test_fields_are_carried_and_none_of_ours_is_overwritten(moa: Moa) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "prompt": "p", "topic": {"deep": [1, None]}, "reply": "gold", "cost": 3},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {"id": [1], "prompt": "q", "input": "theirs"},
    ]
    write_lines(moa.folder / "in.jsonl", rows)
    assert moa.run("batch", "in.jsonl", "out.jsonl").code == 0
    first, second, third = lines_of(moa.folder / "out.jsonl")
    assert (first["id"], first["topic"], first["input"]) == (
        7,
        {"deep": [1, None]},
        {"reply": "gold", "cost": 3},
    )
    assert first["reply"].startswith("agg says ")
    assert (second["id"], second["messages"]) == (2, rows[1]["messages"])
    assert (third["id"], third["input"]) == (3, {"input": "theirs", "id": [1]})


def test_messages_are_sent_as_they_are(moa: Moa, upstream: Upstream) -> None:
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    write_lines(moa.folder / "in.jsonl", [{"messages": said}])
    assert moa.run("batch", "in.jsonl", "out.jsonl").code == 0
    assert upstream.chats("a")[0].messages == said


def test_plain_lines_and_unicode_through_pipes(moa: Moa, upstream: Upstream) -> None:
    text = "eins – zwei\r\n\n  \n日本語 \u2028 한국어\n🦜 last line without end"
    ran = moa.run("batch", "-", "-", "--lines", stdin=b"\xef\xbb\xbf" + text.encode())
    assert ran.code == 0, ran.err
    rows = lines_of(ran.out)
    assert [(row["id"], row["prompt"]) for row in rows] == [
        (1, "eins – zwei"),
        (4, "日本語 \u2028 한국어"),
        (5, "🦜 last line without end"),
    ]
    asked = {request.messages[-1]["content"] for request in upstream.chats("a")}
    assert asked == {row["prompt"] for row in rows}


def test_a_name_tells_what_a_file_holds(moa: Moa) -> None:
    (moa.folder / "in.txt").write_text('{"prompt": "p"}\n')
    assert moa.run("batch", "in.txt", "a.jsonl").code == 0
    assert lines_of(moa.folder / "a.jsonl")[0]["prompt"] == '{"prompt": "p"}'
    assert moa.run("batch", "in.txt", "b.jsonl", "--jsonl").code == 0
    assert lines_of(moa.folder / "b.jsonl")[0]["prompt"] == "p"


def test_a_huge_line(moa: Moa, upstream: Upstream) -> None:
    huge = "word " * 300_000 + "end"
    write_lines(moa.folder / "in.jsonl", [{"prompt": "small"}, {"prompt": huge}])
    upstream.always("agg", Reply(chunks=[huge]))
    assert moa.run("batch", "in.jsonl", "out.jsonl").code == 0
    assert [len(line["prompt"]) for line in lines_of(moa.folder / "out.jsonl")] == [5, len(huge)]
    assert lines_of(moa.folder / "out.jsonl")[1]["reply"] == huge


def one_is_late(moa: Moa, upstream: Upstream, *options: str) -> tuple[int, list[Any], list[Any]]:
    """Which of the first two prompts is not answered until all is killed; the ids that are
    written by then, and at the end."""
    upstream.enqueue("agg", SILENT)
    moa.profile("alone", aggregator="agg", rounds=0)
    start = ["batch", prompts(moa, 4), "out.jsonl", "-p", "alone", "--concurrency", "2", *options]
    out = moa.folder / "out.jsonl"
    with moa.start(*start) as process:
        calls = moa.folder / "out.jsonl.state"
        upstream.wait_for(lambda: len(call_lines(calls)) == 3)
        [late] = [request for request in upstream.chats() if not request.finished]
        number = int(str(late.messages[-1]["content"])[-1])
        written = 3 if options else number - 1
        upstream.wait_for(lambda: (len(ids(out)) if out.exists() else 0) == written)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = ids(out) if out.exists() else []
    assert moa.run(*start).code == 0
    # Answers that were held back when it was killed are not asked for again.
    assert len(upstream.chats()) == 5
    return number, before, ids(out)


def test_lines_come_in_the_order_of_the_input(moa: Moa, upstream: Upstream) -> None:
    late, before, after = one_is_late(moa, upstream)
    assert before == ["q1"][: late - 1]
    assert after == ["q1", "q2", "q3", "q4"]


def test_lines_come_as_they_end_if_asked_for(moa: Moa, upstream: Upstream) -> None:
    late, before, after = one_is_late(moa, upstream, "--as-finished")
    assert sorted(before) == sorted({"q1", "q2", "q3", "q4"} - {f"q{late}"})
    assert after == [*before, f"q{late}"]


@pytest.mark.parametrize("order", [[], ["--as-finished"]], ids=["in order", "as finished"])
def test_killed_it_goes_on_and_repeats_no_answered_call(
    moa: Moa, upstream: Upstream, order: list[str]
) -> None:
    start = ["batch", prompts(moa, 30), "out.jsonl", "--concurrency", "4", *order]
    state, out = moa.folder / "out.jsonl.state", moa.folder / "out.jsonl"
    upstream.enqueue("*", *[ANSWER] * 25)
    upstream.always("*", SILENT)
    with moa.start(*start) as process:
        upstream.wait_for(lambda: len(call_lines(state)) == 25)
        # Lines are written a moment after the calls.
        upstream.wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
    upstream.always("*", ANSWER)
    there = [json.loads(line) for line in out.read_bytes().split(b"\n")[:-1]]
    assert len(there) >= 5
    # Killed in the middle of a line.
    with out.open("ab") as file:
        file.write(b'{"id": "q30", "repl')
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert "moa: resuming out.jsonl: " in ran.err
    assert answered_twice(upstream) == []
    assert len([request for request in upstream.chats() if request.finished]) == 60
    assert lines_of(out)[: len(there)] == there
    assert sorted(ids(out), key=lambda identity: int(identity[1:])) == [
        f"q{n}" for n in range(1, 31)
    ]
    if not order:
        assert ids(out) == [f"q{n}" for n in range(1, 31)]


def test_what_is_complete_is_left_alone(moa: Moa, upstream: Upstream) -> None:
    start = ["batch", prompts(moa, 2), "out.jsonl"]
    assert moa.run(*start).code == 0
    before = (moa.folder / "out.jsonl").read_bytes()
    ran = moa.run(*start)
    assert (ran.code, len(upstream.chats())) == (0, 4)
    assert (
        ran.err == "moa: resuming out.jsonl: 2 answers and 0 calls are there and not asked"
        " for again\n"
    )
    assert (moa.folder / "out.jsonl").read_bytes() == before


def test_a_batch_needs_no_shared_memory(moa: Moa, upstream: Upstream) -> None:
    """Some file systems lack it."""
    upstream.always("*", SILENT)
    with moa.start("batch", prompts(moa, 2), "out.jsonl") as process:
        upstream.wait_for(lambda: upstream.in_flight > 0)
        kept = names(moa.folder / "out.jsonl.state")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert ("index.db" in kept, "index.db-shm" in kept) == (True, False)


def test_lines_that_were_taken_out_are_asked_for_again(moa: Moa, upstream: Upstream) -> None:
    start = ["batch", prompts(moa, 3), "out.jsonl"]
    assert moa.run(*start).code == 0
    out = moa.folder / "out.jsonl"
    first, _, last = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(first + last)
    assert moa.run(*start).code == 0
    assert ids(out) == ["q1", "q2", "q3"]
    assert len(upstream.chats()) == 8


def test_failed_lines_are_tried_again_at_the_end_and_by_the_next_start(
    moa: Moa, upstream: Upstream
) -> None:
    # The second prompt's aggregator fails in both passes.
    upstream.enqueue("agg", ANSWER, BUSY, ANSWER, BUSY)
    start = ["batch", prompts(moa, 3), "out.jsonl", "--concurrency", "1"]
    ran = moa.run(*start)
    assert ran.code == 1
    assert "\nmoa: q2: lab:agg: lab failed (500): out of order\n" in ran.err
    assert ran.err.splitlines()[-1] == "moa: 1 failed; the same command tries them again"
    out = moa.folder / "out.jsonl"
    assert ids(out) == ["q1", "q2", "q3"]
    bad = lines_of(out)[1]
    assert (bad["reply"], bad["error"]["kind"]) == (None, "ServerFailed")
    assert bad["prompt"] == "what is thing 2"
    asked = len(upstream.chats())
    assert moa.run(*start).code == 0
    # Only what was missing is sent, and its line stands where it belongs.
    assert [request.model for request in upstream.chats()[asked:]] == ["agg"]
    assert ids(out) == ["q1", "q2", "q3"]
    assert not [line for line in lines_of(out) if "error" in line]


def test_a_mixture_without_a_proposer_is_marked(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", "a", "b")
    upstream.always("b", BUSY)
    ran = moa.run("batch", prompts(moa, 1), "out.jsonl", "-p", "two")
    assert ran.code == 0
    [line] = lines_of(moa.folder / "out.jsonl")
    assert line["reply"].startswith("agg says ")
    assert line["lost"] == ["lab:b: lab failed (500): out of order"]
    assert "1 of 1 answer in out.jsonl, 1 without some of the proposals" in ran.err


def test_strict_makes_that_a_failure(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", "a", "b")
    upstream.always("b", BUSY)
    ran = moa.run("batch", prompts(moa, 1), "out.jsonl", "-p", "two", "--strict")
    assert ran.code == 1
    [line] = lines_of(moa.folder / "out.jsonl")
    assert line["reply"] is None
    assert line["error"]["message"] == "lab:b: lab failed (500): out of order"
    assert not upstream.chats("agg")


@pytest.mark.parametrize(("setting", "code"), [("fail", 1), ("solo", 0)])
def test_where_all_failed_the_profile_decides(
    moa: Moa, upstream: Upstream, setting: str, code: int
) -> None:
    moa.profile("one", "a", on_all_failed=setting)
    upstream.always("a", BUSY)
    assert moa.run("batch", prompts(moa, 1), "out.jsonl").code == code
    [line] = lines_of(moa.folder / "out.jsonl")
    assert (line["reply"] is None) == bool(code)
    assert line["lost"] or code


def test_a_fallback_is_named(moa: Moa, upstream: Upstream) -> None:
    moa.profile("one", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:other"]})
    upstream.always("agg", BUSY)
    assert moa.run("batch", prompts(moa, 1), "out.jsonl").code == 0
    [line] = lines_of(moa.folder / "out.jsonl")
    assert (line["model"], line["finish_reason"]) == ("other", "stop")
    assert line["usage"]["calls"] == 2
    assert len(line["lost"]) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["-t", "0.3"], "`profile.temperature` was unset, is 0.3"),
        (["--strict"], "`strict` was false, is true"),
        (["--proposals"], "`proposals` was false, is true"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_other_settings_are_refused_by_naming_what_differs(
    moa: Moa, upstream: Upstream, changed: list[str], told: str
) -> None:
    start = ["batch", prompts(moa, 2), "out.jsonl"]
    assert moa.run(*start, "-n", "1").code == 0
    ran = moa.run(*start, *changed)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert told in ran.err
    assert ran.err.endswith("(use the same, or name another OUT)\n")
    assert len(upstream.chats()) == 2
    # More of the same is no other setting.
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == ["q1", "q2"]


def test_a_changed_input_is_refused(moa: Moa) -> None:
    source = moa.folder / prompts(moa, 2)
    assert moa.run("batch", source.name, "out.jsonl").code == 0
    prompts(moa, 3)
    source.write_text(source.read_text("utf-8").replace("thing 1", "other"), "utf-8")
    ran = moa.run("batch", source.name, "out.jsonl")
    assert ran.code == 1
    assert "`input.lines` was 2, is 3; `input.sha256` was " in ran.err


def test_lines_without_an_id_that_change_their_numbers_are_other_prompts(moa: Moa) -> None:
    """The answer of one would stand under the number of another."""
    source = moa.folder / "in.jsonl"
    lines = [json.dumps({"prompt": word}) for word in "abcd"]
    lines.insert(2, "")
    source.write_text("\n".join(lines), "utf-8")
    start = ["batch", source.name, "out.jsonl"]
    assert moa.run(*start, "-n", "3").code == 0
    written = (moa.folder / "out.jsonl").read_bytes()
    source.write_text("\n".join(filter(None, lines)), "utf-8")
    ran = moa.run(*start)
    assert (ran.code, (moa.folder / "out.jsonl").read_bytes()) == (1, written)
    assert "`input.ids` was " in ran.err
    source.write_text("\n".join(lines), "utf-8")
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == [1, 2, 4, 5]


def test_what_was_not_checked_is_not_sent(moa: Moa, upstream: Upstream) -> None:
    """The file is written anew while its lines are worked off."""
    source = moa.folder / "in.jsonl"
    # Longer than what is read at once.
    before, after = (
        [{"id": f"q{n}", "prompt": word + " as such" * 9000} for n in range(1, 9)]
        for word in ("kept", "other")
    )

    def reply(request: Request) -> Reply:
        write_lines(source, after)
        return ANSWER

    upstream.always("agg", reply)
    write_lines(source, before)
    start = ["batch", source.name, "out.jsonl", "--concurrency", "1"]
    ran = moa.run(*start)
    assert (ran.code, "has changed since it was checked" in ran.err) == (1, True), ran.err
    told = {str(request.messages[-1]["content"]).split()[0] for request in upstream.chats("a")}
    assert told == {"kept"}
    write_lines(source, before)
    upstream.always("agg", ANSWER)
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, 9)]
    assert len(upstream.chats("agg")) == 8


@pytest.mark.parametrize("killed", [False, True], ids=["complete", "killed"])
def test_lines_that_were_added_go_on(moa: Moa, upstream: Upstream, killed: bool) -> None:
    start = ["batch", prompts(moa, 3), "out.jsonl", "--concurrency", "1"]
    if killed:
        upstream.enqueue("agg", ANSWER, SILENT)
        with moa.start(*start) as process:
            upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
            process.send_signal(signal.SIGKILL)
            process.wait()
    else:
        assert moa.run(*start).code == 0
    for count in (5, 6):
        prompts(moa, count)
        ran = moa.run(*start)
        assert ran.code == 0, ran.err
        assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, count + 1)]
    assert answered_twice(upstream) == []
    assert len([request for request in upstream.chats() if request.finished]) == 12
    # Fewer are another input.
    prompts(moa, 4)
    assert moa.run(*start).code == 1


def test_other_line_ends_and_another_encoding_are_no_other_input(
    moa: Moa, upstream: Upstream
) -> None:
    source = moa.folder / prompts(moa, 3)
    assert moa.run("batch", source.name, "out.jsonl", "-n", "1").code == 0
    text = source.read_text("utf-8")
    for limit, content in (
        ("2", text.replace("\n", "\r\n").encode("utf-8-sig")),
        ("3", text.encode("utf-16")),
        ("4", gzip.compress(text.encode())),
    ):
        source.write_bytes(content)
        ran = moa.run("batch", source.name, "out.jsonl", "-n", limit)
        assert ran.code == 0, ran.err
    assert ids(moa.folder / "out.jsonl") == ["q1", "q2", "q3"]
    assert len(upstream.chats()) == 6


def test_a_file_of_somebody_else_s_is_not_touched(moa: Moa, upstream: Upstream) -> None:
    out = moa.folder / "out.jsonl"
    out.write_text("my notes\n")
    ran = moa.run("batch", prompts(moa, 1), "out.jsonl")
    assert ran.code == 1
    assert ran.err.endswith(
        "out.jsonl: already exists, without the state of a batch (name another OUT)\n"
    )
    assert out.read_text() == "my notes\n"
    assert not (moa.folder / "out.jsonl.state").exists()
    assert not upstream.chats()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "in.jsonl: holds no prompts"),
        (
            '{"prompt": "a"}\n{"x": 1, "text": "b"}\n',
            "in.jsonl:2: `prompt` is missing or is not text (it has `x`, `text`; --column names",
        ),
        ('{\n  "prompt": "a"\n}\n', "(each object stands on a line of its own)"),
        ('{"prompt": "a"}\n[1\n', "in.jsonl:2: is not JSON"),
        ('{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}\n', "two lines have the id 1"),
    ],
    ids=["empty", "no prompt", "one object", "no JSON", "one id twice"],
)
def test_a_wrong_input_is_refused_before_anything_is_sent(
    moa: Moa, upstream: Upstream, text: str, told: str
) -> None:
    (moa.folder / "in.jsonl").write_text(text)
    ran = moa.run("batch", "in.jsonl", "out.jsonl")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert told in ran.err
    assert not upstream.chats()
    assert names(moa.folder) == ["in.jsonl"]


def test_the_lines_of_a_web_page_are_no_prompts(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "data").write_text("\n<!DOCTYPE html>\n<html>\nLog in\n</html>\n")
    ran = moa.run("batch", "data", "out.jsonl")
    assert (ran.code, ran.err) == (2, "moa: data: is a web page, and not a list of prompts\n")
    assert not upstream.chats()


def test_in_and_out_are_two_files(moa: Moa) -> None:
    name = prompts(moa, 1)
    ran = moa.run("batch", name, f"./{name}")
    assert (ran.code, ran.err) == (2, "moa: IN and OUT are the same file\n")


def priced(moa: Moa) -> None:
    """Each call costs 0.00001 USD for a token."""
    price = {"prompt": 10, "completion": 10}
    prices = {f"lab:{name}": price for name in ("a", "agg")}
    moa.configure(profile="one", providers=moa.settings()["providers"], prices=prices)


def capped(moa: Moa, *options: str) -> Ran:
    """A batch that reaches a cap."""
    ran = moa.run(
        "batch", prompts(moa, 40), "out.jsonl", "--max-tokens", "20", "--concurrency", "2", *options
    )
    assert ran.code == 3, ran.err
    return ran


def test_a_cap_ends_it_and_a_higher_one_goes_on(moa: Moa, upstream: Upstream) -> None:
    priced(moa)
    ran = capped(moa, "--max-cost", "0.01")
    assert "run the same command with a higher cap" in ran.err.splitlines()[-1]
    done = ids(moa.folder / "out.jsonl")
    assert 0 < len(done) < 40
    start = ["batch", "in.jsonl", "out.jsonl", "--max-tokens", "20", "--max-cost", "1"]
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, 41)]
    assert answered_twice(upstream) == []
    assert sum(line["cost"] for line in lines_of(moa.folder / "out.jsonl")) > 0.01


def test_a_cap_counts_what_was_answered_before_there_was_more_to_do(
    moa: Moa, upstream: Upstream
) -> None:
    priced(moa)
    out = moa.folder / "out.jsonl"
    start = ("batch", prompts(moa, 40), out.name, "--max-tokens", "20", "--concurrency", "2")
    assert moa.run(*start, "-n", "10", "--max-cost", "1").code == 0
    spent = sum(line["cost"] for line in lines_of(out))
    # Killed at its first call, which no index knows yet.
    upstream.always("a", SILENT)
    with moa.start(*start) as process:
        while len(upstream.chats("a")) < 11:
            threading.Event().wait(0.02)
        process.kill()
    upstream.always("a", ANSWER)
    ran = moa.run(*start, "--max-cost", str(spent * 2))
    assert ran.code == 3, ran.err
    assert spent < sum(line["cost"] for line in lines_of(out)) < spent * 2
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    whole = sum(line["cost"] for line in lines_of(out))
    assert usd(whole) in ran.err.splitlines()[-1]
    models = json.loads((moa.folder / "out.jsonl.card.json").read_bytes())["models"]
    assert sum(model["known_cost"] for model in models.values()) == pytest.approx(whole)


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_proposer_that_no_item_can_have_stops_the_batch(
    moa: Moa, upstream: Upstream, status: int
) -> None:
    moa.profile("one", "a", "b")
    upstream.always("b", Reply(status=status, error={"error": {"message": "not here"}}))
    start = ("batch", prompts(moa, 60), "out.jsonl")
    ran = moa.run(*start)
    assert ran.code == 1, ran.err
    assert "stopped: lab:b failed for 3 items in a row" in ran.err
    there = ids(moa.folder / "out.jsonl")
    assert 3 <= len(there) < 10
    upstream.always("b", ANSWER)
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, 61)]
    assert answered_twice(upstream) == []


def test_a_fallback_goes_on_in_the_place_of_a_dead_model(moa: Moa, upstream: Upstream) -> None:
    moa.profile("one", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:b"]})
    upstream.always("agg", Reply(status=404, error={"error": {"message": "not here"}}))
    ran = moa.run("batch", prompts(moa, 9), "out.jsonl")
    assert ran.code == 0, ran.err
    assert [line["model"] for line in lines_of(moa.folder / "out.jsonl")] == ["b"] * 9


def test_the_day_s_budget_holds(moa: Moa) -> None:
    priced(moa)
    moa.configure(**{**moa.settings(), "budget": {"day": 0.01}})
    assert "budget.day" in capped(moa).err


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("*", *[ANSWER] * 6)
    upstream.always("*", SILENT)
    start = ["batch", prompts(moa, 9), "out.jsonl", "--concurrency", "2"]
    with moa.start(*start) as process:
        state = moa.folder / "out.jsonl.state"
        upstream.wait_for(lambda: len(call_lines(state)) == 6 and upstream.in_flight == 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = err.decode().splitlines()[-1]
    assert last.startswith("moa: interrupted at ")
    assert last.endswith("; run the same command again to resume")
    assert b"Traceback" not in err
    upstream.always("*", ANSWER)
    assert moa.run(*start).code == 0
    assert answered_twice(upstream) == []
    assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, 10)]


def test_lines_that_went_through_a_pipe_are_not_gone_on_with(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("*", *[ANSWER] * 2)
    upstream.always("*", SILENT)
    with moa.start("batch", prompts(moa, 3), "-", "--concurrency", "1") as process:
        upstream.wait_for(lambda: upstream.in_flight == 1 and len(upstream.chats()) == 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, ids(out)) == (130, ["q1"])
    last = err.decode().splitlines()[-1]
    assert last.startswith("moa: interrupted at ")
    assert "the same command" not in last


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "out.jsonl.state: another process is running it\n"),
        (["--no-save"], "out.jsonl: another process is writing it (name another OUT)\n"),
    ],
    ids=["kept", "not kept"],
)
def test_two_processes_do_not_write_one_file(
    moa: Moa, upstream: Upstream, options: list[str], told: str
) -> None:
    upstream.always("*", SILENT)
    start = ["batch", prompts(moa, 2), "out.jsonl", *options]
    with moa.start(*start) as first:
        upstream.wait_for(lambda: upstream.in_flight > 0)
        ran = moa.run(*start)
        assert ran.code == 1
        assert ran.err.endswith(told)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=PATIENCE)
    assert not (moa.folder / "out.jsonl").exists()


def test_a_single_call_is_one_call(moa: Moa) -> None:
    ran = moa.run("batch", prompts(moa, 1), "out.jsonl", "--rounds", "0", "-y")
    assert "moa: 1 call; tokens in: between " in ran.err


def test_at_a_terminal_it_asks_first(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("batch", prompts(moa, 2), "out.jsonl") as terminal:
        terminal.wait_for("Go on? [y/N]:")
        assert "moa: 4 calls; tokens in: between " in "\n".join(terminal.lines())
        terminal.send("n\r")
        assert terminal.wait() == 1
    assert not upstream.chats()
    assert names(moa.folder) == ["in.jsonl"]
    with moa.terminal("batch", "in.jsonl", "out.jsonl", "-y") as terminal:
        assert terminal.wait() == 0
        assert "2 of 2 answers in out.jsonl" in "\n".join(terminal.lines())


def test_a_reader_that_goes_away_ends_it(moa: Moa, upstream: Upstream) -> None:
    read, write = os.pipe()
    os.close(read)
    with moa.start("batch", prompts(moa, 2), "-", stdout=write) as process:
        os.close(write)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 141


_JSON = '{"id": "a", "prompt": "one\u2028still one"}\n{"id": "b", "prompt": "zw\u00f6lf"}\n'


@pytest.mark.parametrize(
    "content",
    [
        _JSON.encode("utf-8-sig"),
        _JSON.replace("\n", "\r\n").encode("utf-16"),
        ("\ufeff" + _JSON).encode("utf-16-be"),
        _JSON.replace("\n", "\r").encode(),
        f"[{_JSON.strip()}]".replace("}\n", "},\r\n ").encode(),
    ],
    ids=["byte order mark", "utf-16 le", "utf-16 be", "lone carriage returns", "a list"],
)
@pytest.mark.parametrize("name", ["in.jsonl", "-"])
def test_json_is_read_as_other_systems_write_it(moa: Moa, content: bytes, name: str) -> None:
    (moa.folder / "in.jsonl").write_bytes(content)
    ran = moa.run("batch", name, "-", "-y", stdin=content)
    assert ran.code == 0, ran.err
    found = [(row["id"], row["prompt"]) for row in lines_of(ran.out)]
    assert found == [("a", "one\u2028still one"), ("b", "zw\u00f6lf")]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_end_where_the_system_of_the_file_ends_them(moa: Moa, ends: str) -> None:
    text = ends.join(["one\u2028still one", "", "two\x0cform feed", "three\x85"])
    (moa.folder / "in.txt").write_bytes(text.encode("utf-8-sig"))
    rows = lines_of(moa.run("batch", "in.txt", "-", "-y").out)
    assert [(row["id"], row["prompt"]) for row in rows] == [
        (1, "one\u2028still one"),
        (3, "two\x0cform feed"),
        (4, "three\x85"),
    ]


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl"])
def test_prompts_in_another_encoding_are_refused(moa: Moa, upstream: Upstream, name: str) -> None:
    content = b'"one"\n"zw\xf6lf"\n'
    (moa.folder / name).write_bytes(content)
    for source, told in ((name, name), ("-", "standard input")):
        ran = moa.run("batch", source, "-", "-y", stdin=content)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
        said = f"moa: {told}: is not UTF-8 text: byte 4 of line 2 is 0xF6"
        assert ran.err.startswith(said)
    assert upstream.requests == []


def test_the_head_of_a_table_is_never_sent_as_a_prompt(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "table.CSV").write_text("id,question\n1,Who?\n")
    ran = moa.run("batch", "table.CSV", "-", "-y")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "table.CSV: is a table" in ran.err
    assert "--lines takes each line as a prompt" in ran.err
    assert upstream.requests == []
    assert len(lines_of(moa.run("batch", "table.CSV", "-", "-y", "--lines").out)) == 2


def test_a_list_that_is_no_json_is_named_by_its_line(moa: Moa) -> None:
    (moa.folder / "in.json").write_text('[\n {"prompt": "one"},\n {"prompt" "two"}\n]')
    ran = moa.run("batch", "in.json", "-", "-y")
    assert (ran.code, ran.err) == (1, "moa: in.json:3: is not JSON: Expecting ':' delimiter\n")


def test_answers_that_an_editor_on_windows_saved_go_on(moa: Moa, upstream: Upstream) -> None:
    source = prompts(moa, 3)
    assert moa.run("batch", source, "out.jsonl", "-y").code == 0
    out = moa.folder / "out.jsonl"
    first, _, third = out.read_text("utf-8").splitlines()
    out.write_bytes(f"{first}\r\n{third}\r\n".encode("utf-8-sig"))
    upstream.requests.clear()
    ran = moa.run("batch", source, "out.jsonl", "-y")
    assert (ran.code, len(upstream.chats("a"))) == (0, 1)
    found = out.read_text("utf-8-sig").splitlines()
    assert [json.loads(line)["id"] for line in found] == ["q1", "q2", "q3"]


def test_to_a_pipe_nothing_is_written_while_it_runs(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", ANSWER, SILENT)
    scratch = moa.folder / "scratch"
    scratch.mkdir()
    start = ["batch", prompts(moa, 2), "-", "--concurrency", "1"]
    with moa.start(*start, env={"TMPDIR": str(scratch)}) as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        assert names(scratch) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(moa.folder) == ["in.jsonl", "scratch"]


@pytest.mark.parametrize("room", [20_000, 90_000], ids=["its index", "its lines"])
def test_a_full_disk_is_told_and_costs_no_answer(moa: Moa, upstream: Upstream, room: int) -> None:
    rows = [{"id": f"q{n}", "prompt": f"what is {n}" + " x" * 3000} for n in range(1, 31)]
    write_lines(moa.folder / "in.jsonl", rows)
    start = ["batch", "in.jsonl", "out.jsonl", "--concurrency", "1"]
    # Python would cut its own files, too.
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    with moa.start(*start, env=env, preexec_fn=partial(small_files, room)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    told = err.decode().splitlines()[-1]
    assert process.returncode == 1
    assert told.startswith(f"moa: {moa.folder}/out.jsonl"), err
    assert moa.run(*start).code == 0
    assert ids(moa.folder / "out.jsonl") == [f"q{n}" for n in range(1, 31)]


@pytest.mark.parametrize("how", ["--no-save", "MOA_SAVE"])
def test_where_nothing_is_saved_only_the_answers_are_there(
    moa: Moa, upstream: Upstream, how: str
) -> None:
    start = ["batch", prompts(moa, 3), "out.jsonl", *([how] if how == "--no-save" else [])]
    env = {"MOA_SAVE": "0"} if how == "MOA_SAVE" else {}
    upstream.enqueue("agg", ANSWER, BUSY, ANSWER, BUSY)
    failed = moa.run(*start, "--concurrency", "1", env=env)
    assert failed.code == 1
    assert "1 failed" in failed.err
    assert "tries them again" not in failed.err
    assert names(moa.folder) == ["in.jsonl", "out.jsonl"]
    again = moa.run(*start, env=env)
    assert (again.code, "name another OUT" in again.err) == (1, True)
    (moa.folder / "out.jsonl").unlink()
    assert moa.run(*start, env=env).code == 0
    assert ids(moa.folder / "out.jsonl") == ["q1", "q2", "q3"]


def test_a_batch_that_keeps_its_calls_is_not_gone_on_with_unsaved(moa: Moa) -> None:
    start = ["batch", prompts(moa, 1), "out.jsonl"]
    assert moa.run(*start).code == 0
    refused = moa.run(*start, "--no-save")
    assert refused.code == 2
    assert "out.jsonl.state" in refused.err
    assert "--save resumes it" in refused.err


def test_replies_that_were_cut_are_counted(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="half", finish_reason="length"))
    ran = moa.run("batch", prompts(moa, 3), "out.jsonl", "-y")
    assert ran.code == 0
    assert ", 1 cut (see `finish_reason`)" in ran.err
    reasons = [line["finish_reason"] for line in lines_of(moa.folder / "out.jsonl")]
    assert sorted(reasons) == ["length", "stop", "stop"]


def few_files(most: int) -> None:
    """As `ulimit -n` does it."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def small_files(most: int) -> None:
    """No file may have more bytes, as on a disk that is full; in the process that is to start."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_where_few_files_may_be_open_nothing_is_lost(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(delay=0.2))
    start = ["batch", prompts(moa, 60), "out.jsonl", "--concurrency", "200"]
    with moa.start(*start, preexec_fn=partial(few_files, 90)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert b"moa: 26 calls at once, not 200: " in err
    rows = lines_of(moa.folder / "out.jsonl")
    assert [row["id"] for row in rows] == [f"q{n}" for n in range(1, 61)]
    assert len(upstream.chats()) == 120


def test_a_line_s_usage_holds_its_failed_and_lost_calls(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", "a", "b")
    # One proposer breaks off in the middle of its answer, and the aggregator in both attempts of
    # the first start.
    upstream.always("b", Reply(text="some words", drop_after=1))
    upstream.always("agg", Reply(text="more words", drop_after=1))
    start = ["batch", prompts(moa, 1), "out.jsonl", "-p", "two"]
    assert moa.run(*start).code == 1
    failed = lines_of(moa.folder / "out.jsonl")[0]["usage"]
    before = len(call_lines(moa.folder / "out.jsonl.state"))
    assert failed["calls"] == before > 3
    upstream.always("agg", ANSWER)
    assert moa.run(*start).code == 0
    [line] = lines_of(moa.folder / "out.jsonl")
    assert line["usage"]["calls"] > before
    assert line["usage"]["estimated_calls"] >= failed["estimated_calls"] > 0


def test_a_card_tells_how_the_data_came_about(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", "a", "b", aggregator={"model": "lab:agg", "seed": 7})
    priced(moa)
    upstream.always("b", BUSY)
    upstream.enqueue("agg", Reply(text="half", finish_reason="length"), ANSWER, BUSY, BUSY)
    start = ["batch", prompts(moa, 3), "out.jsonl", "-p", "two", "--concurrency", "1"]
    path = moa.folder / "out.jsonl.card.json"
    assert moa.run(*start).code == 1
    card = json.loads(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    out = card["output"]
    assert (out["answers"], out["failed"], out["degraded"], out["cut"]) == (2, 1, 3, 1)
    assert out["errors"] == {"ServerFailed": 1}
    assert card["profile"]["name"] == "two"
    assert card["seeds"] == {"aggregator.seed": 7}
    assert (card["input"]["name"], card["input"]["rows"]) == ("in.jsonl", 3)
    assert moa.run(*start).code == 0
    # More prompts behind them: their calls are added to those of the starts before.
    prompts(moa, 4)
    assert moa.run(*start).code == 0
    card = json.loads(path.read_bytes())
    out = card["output"]
    assert (out["answers"], out["failed"], out["answered_by"]) == (4, 0, {"agg": 4})
    assert card["models"]["lab:a"]["answered_by"] == {"a": 4}
    assert card["models"]["lab:agg"]["calls"] == 4
    assert card["models"]["lab:agg"]["price"]
    total = sum(told["known_cost"] for told in card["models"].values())
    assert out["cost"] == pytest.approx(total)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        # Its price is unknown, but the endpoint tells what each call costs.
        ({"usage_style": "with_choices", "more": {"cost": 0.25}}, "$1.00"),
        # It tells no cost for the first answer.
        ({}, "$0.50 + ?"),
        # It counts no tokens of the first answer, which costs what it says.
        ({"usage": (0, 0), "usage_style": "with_choices", "more": {"cost": 0.25}}, "~$1.00"),
    ],
)
def test_a_batch_that_goes_on_tells_the_cost_of_all_starts(
    moa: Moa, upstream: Upstream, first: Any, told: str
) -> None:
    moa.profile("one", "a", aggregator="agg")
    cost = Reply(usage=(10, 5), usage_style="with_choices", more={"cost": 0.25})
    upstream.always("*", cost)
    upstream.enqueue("*", *[Reply(**{"usage": (10, 5), **first})] * 2)
    start = ["batch", prompts(moa, 2), "out.jsonl", "-p", "one"]
    assert moa.run(*start, "--limit", "1").code == 0
    ran = moa.run(*start)
    assert "moa: 2 of 2 results, " in ran.err
    assert ran.err.splitlines()[-1] == f"moa: 2 of 2 answers in out.jsonl, {told}"


def test_a_batch_goes_on_from_a_former_card_without_counts_of_estimates(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("one", "a", aggregator="agg")
    cost = Reply(usage=(10, 5), usage_style="with_choices", more={"cost": 0.25})
    upstream.always("*", cost)
    start = ["batch", prompts(moa, 1), "out.jsonl", "-p", "one"]
    assert moa.run(*start).code == 0
    path = moa.folder / "out.jsonl.card.json"
    card = json.loads(path.read_text())
    for told in card["models"].values():
        del told["estimated_calls"], told["unpriced_calls"]
    path.write_text(json.dumps(card))
    prompts(moa, 2)
    ran = moa.run(*start)
    assert ran.err.splitlines()[-1] == "moa: 2 of 2 answers in out.jsonl, $1.00 + ?"
    models = json.loads(path.read_text())["models"].values()
    assert sum(told["known_cost"] for told in models) == 1.0


def test_progress_tells_which_provider_bounds_it(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.at_once = 2
        upstream.always("*", Reply(delay=0.05))
        moa = Moa(tmp_path, upstream.url)
        moa.profile("alone", aggregator="agg", rounds=0)
        moa.configure(profile="alone", retries=2, providers=moa.settings()["providers"])
        ran = moa.run("batch", prompts(moa, 60), "out.jsonl", "--concurrency", "16")
        assert ran.code == 0, ran.err
        assert "bound by: provider lab (429)" in ran.err


def test_progress_tells_when_more_calls_at_once_would_help(moa: Moa, upstream: Upstream) -> None:
    moa.profile("alone", aggregator="agg", rounds=0)
    upstream.always("*", Reply(delay=0.5))
    start = ["batch", prompts(moa, 12), "out.jsonl", "-p", "alone", "--concurrency", "2"]
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert "bound by: --concurrency 2 (an answer takes " in ran.err
    # In the end there is less to do than could be done at once.
    assert "bound by: the endpoint (an answer takes " in ran.err

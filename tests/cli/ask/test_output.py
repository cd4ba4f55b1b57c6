"""`moa ask`: what is on standard output, and what a reply can do to a terminal (nothing).

The reply is alone there, byte for byte as the model wrote it but for what could act on a
terminal, with one line end after it; everything else is on standard error."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from moa_cli.core.events import Event, TurnFinished, from_dict
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Upstream

MARKUP = "arr[i] [/INST] [red]x[/red] [/usr/bin]"
HOSTILE = "a\x1b]52;c;aGVsbG8=\x07b\x1b[2J\x1b[10;10Hc\x07d\x9b31me\x1b[31mf\u202eg"
HARMLESS = "abcdefg"
LONG = "word " * 400 + "end"


@pytest.mark.parametrize(
    ("reply", "printed"),
    [
        (MARKUP, MARKUP + "\n"),
        (HOSTILE, HARMLESS + "\n"),
        (LONG, LONG + "\n"),
        ("no line end", "no line end\n"),
        ("one\n", "one\n"),
        ("three\n\n\n", "three\n"),
        ("# Title\n\n- *a*\n\n```\nx  =  1\n```", "# Title\n\n- *a*\n\n```\nx  =  1\n```\n"),
        ("a\r\nb", "a\nb\n"),
        ("<b>é→😀漢字</b>  ", "<b>é→😀漢字</b>  \n"),
    ],
)
def test_a_pipe_gets_the_reply_as_it_was_written(
    moa: Moa, upstream: Upstream, reply: str, printed: str
) -> None:
    upstream.always("agg", Reply(chunks=list(reply)))
    ran = moa.run("ask", "hi")
    assert (ran.code, ran.out.decode()) == (0, printed)


def test_without_streaming_it_is_the_same(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=list(f"{HOSTILE}\n{MARKUP}\n\n")))
    ran = moa.run("ask", "hi", "--no-stream")
    assert (ran.code, ran.out.decode()) == (0, f"{HARMLESS}\n{MARKUP}\n")


def test_without_streaming_nothing_is_written_before_the_reply_is_whole(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(chunks=["one ", "two"], drop_after=1))
    ran = moa.run("ask", "hi", "--no-stream")
    assert (ran.code, ran.out) == (1, b"one \n")


def test_a_file_gets_the_reply_only(moa: Moa, upstream: Upstream, tmp_path: Path) -> None:
    upstream.always("agg", Reply(text=LONG))
    with (tmp_path / "out.md").open("wb") as file, moa.start("ask", "hi", stdout=file) as process:
        process.communicate(timeout=PATIENCE)
    assert (tmp_path / "out.md").read_text() == LONG + "\n"


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"])
def test_variables_that_force_colour_change_nothing_in_a_pipe(
    moa: Moa, upstream: Upstream, variable: str
) -> None:
    upstream.always("agg", Reply(text="# Title\n\n**bold** " + LONG))
    plain = moa.run("ask", "hi", "--show-proposals")
    forced = moa.run("ask", "hi", "--show-proposals", env={variable: "1"})
    assert (forced.out, forced.err) == (plain.out, plain.err)
    assert b"\x1b" not in plain.out
    assert "\x1b" not in plain.err


def test_a_locale_without_unicode_still_gets_utf_8_in_a_pipe(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="é→😀"))
    ran = moa.run("ask", "hi", env={"PYTHONIOENCODING": "ascii"})
    assert (ran.code, ran.out.decode()) == (0, "é→😀\n")


def test_markup_in_a_reply_is_shown_on_a_terminal(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text=MARKUP))
    with moa.terminal("ask", "hi") as terminal:
        assert terminal.wait() == 0
        assert MARKUP in terminal.lines()


def test_escape_sequences_of_models_do_not_reach_a_terminal(moa: Moa, upstream: Upstream) -> None:
    hostile = f"{HOSTILE} `{HOSTILE}` <http://x/%1b%5d52;c;eA%1b%5c>\n\n    {HOSTILE}\n"
    upstream.always("*", Reply(chunks=list(hostile), pause=0.001))
    with moa.terminal("ask", "hi", "--show-proposals") as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    for active in (b"\x07", b"]52;", b"10;10H", b"\x1b[2J", b"\xc2\x9b", "\u202e".encode()):
        assert active not in terminal.raw
    assert sum(line.startswith(f"{HARMLESS} ") for line in lines) == 4


def test_an_error_of_an_endpoint_cannot_act_on_a_terminal(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=400, error={"error": {"message": f"[red]{HOSTILE}[/x]"}}))
    with moa.terminal("ask", "hi") as terminal:
        assert terminal.wait() == 1
        assert f"[red]{HARMLESS}[/x]" in " ".join(terminal.lines())
    assert b"\x07" not in terminal.raw
    assert b"]52;" not in terminal.raw


def test_an_error_is_folded_between_words_at_a_terminal_only(moa: Moa) -> None:
    line = moa.run("ask", "-p", "nowhere", "hi").err.removesuffix("\n")
    assert "\n" not in line
    with moa.terminal("ask", "-p", "nowhere", "hi", columns=40) as terminal:
        assert terminal.wait() == 2
        assert " ".join(filter(None, terminal.lines())) == line


def test_panels_are_on_stderr_while_standard_output_is_redirected(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    seen, read = threading.Event(), threading.Event()
    upstream.always("*", Reply(text="some words of an answer", stall_after=2, go_on=seen))
    upstream.always("agg", Reply(text="# The *reply*\n", after=read))
    out = tmp_path / "out.md"
    with moa.terminal("ask", "hi", stdout=out, columns=100, rows=40) as terminal:
        terminal.wait_for("╭─ ")
        seen.set()
        terminal.wait_for("reading 3 proposals")
        read.set()
        assert terminal.wait() == 0
        header, *folded = terminal.lines()
    assert header == "moa: profile lab: lab:a, lab:b, lab:c → lab:agg"
    assert [line[:7] for line in folded] == ["✓ lab:a", "✓ lab:b", "✓ lab:c"]
    assert out.read_text() == "# The *reply*\n"


def test_json_is_one_object_with_reply_proposals_usage_and_seconds(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", "b", rounds=2)
    for name in ("a", "b"):
        upstream.always(name, Reply(text=f"from {name}", usage=(3, 2)))
    upstream.always("agg", Reply(text=HOSTILE, usage=(30, 5), model="agg-2026"))
    ran = moa.run("ask", "hi", "--json")
    told = json.loads(ran.out)
    assert ran.code == 0
    assert not set(ran.text) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert list(told)[:2] == ["reply", "status"]
    assert (told["reply"], told["status"], told["prompt"]) == (HOSTILE, "finished", "hi")
    assert [[proposer["text"] for proposer in layer] for layer in told["proposals"]] == [
        ["from a", "from b"],
        ["from a", "from b"],
    ]
    assert [proposer["layer"] for layer in told["proposals"] for proposer in layer] == [1, 1, 2, 2]
    assert told["usage"]["prompt_tokens"] == 4 * 3 + 30
    assert told["usage"]["completion_tokens"] == 4 * 2 + 5
    assert told["usage"]["calls"] == 5
    assert told["seconds"] > 0
    assert (told["model"], told["answered_by"]) == ("lab:agg", "agg-2026")


def test_json_of_a_failed_turn_says_why(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=400, error={"error": {"message": "no"}}))
    ran = moa.run("ask", "hi", "--json")
    told = json.loads(ran.out)
    assert ran.code == 1
    assert (told["reply"], told["status"], len(told["causes"])) == (None, "failed", 3)


def test_the_stream_of_events_can_be_read_back(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text=f"{HOSTILE} \u2028 and more"))
    ran = moa.run("ask", "hi", "--output", "jsonl")
    assert ran.out.endswith(b"}\n")
    events: list[Event] = [from_dict(json.loads(line)) for line in ran.text[:-1].split("\n")]
    assert events[0].kind == "turn_started"
    assert isinstance(events[-1], TurnFinished)
    said = "".join(event.text for event in events if event.kind == "aggregator_delta")
    assert said == f"{HOSTILE} \u2028 and more"
    assert not set(ran.text) & {"\x1b", "\x07", "\x9b", "\u202e", "\u2028"}


def test_the_stream_of_events_tells_usage_as_all_json_does(moa: Moa, upstream: Upstream) -> None:
    prices = {f"lab:{model}": {"prompt": 0.1, "completion": 0.2} for model in ("b", "c", "agg")}
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}, prices=prices
    )
    upstream.always("*", Reply(text="x", usage=(1000, 500)))
    lines = moa.run("ask", "hi", "--output", "jsonl").text.splitlines()
    told = [json.loads(line) for line in lines]
    calls = [event["proposal"]["usage"] for event in told if "proposal" in event]
    # The price of the model `a` is unknown, which is not 0.
    assert sorted(map(str, (call["cost"] for call in calls))) == ["0.0002", "0.0002", "None"]
    usage = told[-1]["usage"]
    assert (usage["cost"], usage["known_cost"], usage["total_tokens"]) == (None, 0.0006, 6000)
    ended = from_dict(told[-1])
    assert isinstance(ended, TurnFinished)
    assert (ended.usage.cost, ended.usage.unpriced_calls) == (0.0006, 1)


def test_proposals_are_shown_on_stderr_in_profile_order(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    upstream.always("a", Reply(text="from a\nto you", delay=0.3))
    upstream.always("b", Reply(text="from b"))
    ran = moa.run("ask", "hi", "--show-proposals")
    assert ran.out == b"ok\n"
    shown = ran.err.partition("\n")[2]
    assert shown == (
        f"{'── lab:a (round 1) ':─<60}\nfrom a\nto you\n\n{'── lab:b (round 1) ':─<60}\nfrom b\n\n"
    )


def test_proposals_and_panels_do_not_run_into_each_other(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text="one two three", pause=0.1))
    upstream.always("b", Reply(text="one two three four five six", pause=0.1))
    with moa.terminal("ask", "hi", "-v", "--show-proposals") as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    assert [line[:7] for line in lines[1:4]] == ["✓ lab:a", "✓ lab:b", "✓ lab:c"]
    assert lines[4:-1] == [
        f"{'── lab:a (round 1) ':─<60}",
        "one two three",
        "",
        f"{'── lab:b (round 1) ':─<60}",
        "one two three four five six",
        "",
        f"{'── lab:c (round 1) ':─<60}",
        "one two three",
        "",
        "",
        "one two three",
    ]
    assert lines[-1].startswith("moa: 4 calls, ")


def test_quiet_leaves_stderr_empty(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(status=400))
    ran = moa.run("ask", "-q", "hi", "--save-profile", "kept")
    assert (ran.code, ran.out, ran.err) == (0, b"ok\n", "")


def test_quiet_still_tells_errors(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=400))
    ran = moa.run("ask", "-q", "hi")
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("moa: ")
    assert ran.err.count("\n") == 1


def test_verbose_tells_each_step_and_the_usage(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    upstream.always("a", Reply(usage=(3, 1)))
    upstream.always("b", Reply(status=400, error={"error": {"message": "no"}}))
    upstream.always("agg", Reply(usage=(30, 6)))
    err = moa.run("ask", "-v", "hi").err
    assert "moa: round 1: asking lab:a, lab:b\n" in err
    assert re.search(r"^moa: lab:a: [\d.]+ s, 1 token$", err, re.MULTILINE)
    assert "moa: lost lab:b: lab refused the request (400): no\n" in err
    assert "moa: round 1: 1 of 2 answered in " in err
    assert "moa: 2 calls, 33 tokens in, 7 out, " in err


def test_retries_are_told_with_v(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a")
    upstream.enqueue("a", Reply(status=503))
    ran = moa.run("ask", "-v", "hi", env={"MOA_RETRIES": "1"})
    assert ran.code == 0
    assert "moa: lab:a: again in 0." in ran.err


DRY = """\
profile lab: nothing is sent

round 1: 2 calls at once
  (about 34 tokens in, about 2,000 out, cost unknown)
  lab:a: lab:a, temperature 0.7
  lab:b: lab:b, temperature 0.2
  [system]
    be brief
  [user]
    what
    now?

aggregator: 1 call
  (about {aggregator} tokens in, about 1,000 out, cost unknown)
  lab:agg, temperature 0.7
  if it fails: lab:spare
  [system]
    be brief

    {prompt}
    1. <answer of lab:a in round 1>
    2. <answer of lab:b in round 1>
  [user]
    what
    now?

3 calls in all: about {whole} tokens in, about 3,000 out, cost unknown
(an answer without max_tokens is counted as 1,000 tokens)
(the prices of lab:a, lab:b, lab:agg are unknown)
"""


def test_a_dry_run_prints_the_calls_with_their_exact_prompts_and_sends_nothing(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile(
        "lab",
        "a",
        {"model": "lab:b", "temperature": 0.2},
        aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]},
        temperature=0.7,
        system="be brief",
    )
    ran = moa.run("ask", "--dry-run", "what\nnow?")
    prompt = AGGREGATE_AND_SYNTHESIZE.replace("\n\n", "\n\n    ")
    assert (ran.code, ran.err) == (0, "")
    # The two answers of a thousand tokens, the paper's prompt, and what the proposers are sent.
    aggregator = int(re.findall(r"about ([\d,]+) tokens", ran.text)[1].replace(",", ""))
    assert 2100 < aggregator < 2300
    figures = {"aggregator": f"{aggregator:,}", "whole": f"{aggregator + 34:,}"}
    assert ran.text == DRY.format(prompt=prompt, **figures)
    assert upstream.requests == []


def test_names_in_a_profile_cannot_control_the_terminal_of_a_dry_run(moa: Moa) -> None:
    moa.profile("odd", {"model": "lab:a", "name": "Al\x1b]0;x\x07ice"}, aggregator="agg")
    told = moa.run("ask", "-p", "odd", "--dry-run", "hi").text
    assert "\n  Alice: lab:a\n" in told
    assert "\x1b" not in told


def test_a_reader_who_leaves_early_sees_no_traceback(moa: Moa, upstream: Upstream) -> None:
    gone = threading.Event()
    # More than the kernel holds for a client that is not reading.
    lines = ["a line\n"] * 1000 + ["a line\n" * 3000] * 1000
    upstream.always("agg", Reply(chunks=lines, stall_after=1000, go_on=gone))
    with moa.start("ask", "hi") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        gone.set()
        assert process.stderr is not None
        err = process.stderr.read().decode()
        code = process.wait(60)
    assert code == 141
    assert err == "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert upstream.chats("agg")[0].disconnected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("arguments", [["ask", "hi"], ["--help"], ["config", "list"]], ids=" ".join)
def test_a_full_disk_is_one_line_and_a_failure(moa: Moa, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full, moa.start(*arguments, stdout=full) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    told = err.decode().removeprefix("moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n")
    assert told == "moa: standard output: No space left on device\n"

"""`moa ask --remerge`: one call writes a reply from the proposals of a turn that failed, was
interrupted, killed or stopped at a cap; nothing that was paid is lost."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.support.command import PATIENCE, Moa, Ran
from tests.support.kept import proposals_in
from tests.support.talk import at_prompt, references, sent
from tests.support.upstream import Reply, Upstream

SILENT = Reply(stall_after=0)
REFUSED = Reply(status=400, error={"error": {"message": "no"}})
HINT = "2 proposals are kept: `moa ask --remerge` writes a reply from them"
FROM = ["from a", "from b"]


@pytest.fixture
def lab(moa: Moa, upstream: Upstream) -> Moa:
    """Proposers a and b, each with a text of its own."""
    moa.profile("lab", "a", "b")
    for model in "ab":
        upstream.always(model, Reply(text=f"from {model}"))
    return moa


def shown(moa: Moa) -> list[dict[str, Any]]:
    """The turns of the last conversation, as they are kept."""
    turns: list[dict[str, Any]] = json.loads(moa.run("history", "show", "--json").out)["turns"]
    return turns


def failed(moa: Moa, upstream: Upstream) -> Ran:
    """A turn whose aggregator gave no reply."""
    upstream.enqueue("agg", REFUSED)
    ran = moa.run("ask", "hi")
    assert ran.code == 1
    return ran


def killed(moa: Moa, upstream: Upstream, number: int) -> None:
    """A turn that was ended by a signal while its aggregator was asked."""
    upstream.enqueue("agg", SILENT)
    before = len(upstream.chats("agg"))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) > before)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)


def test_a_failed_turn_says_how_to_go_on_and_its_proposals_are_merged(
    lab: Moa, upstream: Upstream
) -> None:
    assert failed(lab, upstream).err.splitlines()[-1] == f"moa: {HINT}"
    upstream.enqueue("agg", Reply(text="merged"))
    before = len(upstream.chats())
    ran = lab.run("ask", "--remerge")
    assert (ran.code, ran.out) == (0, b"merged\n")
    assert ran.err == "moa: 2 proposals (lab:a, lab:b) → lab:agg\n"
    assert len(upstream.chats()) == before + 1
    assert (sent(upstream)[-1], references(upstream)) == (["hi"], FROM)
    lab.run("ask", "-c", "more")
    assert sent(upstream)[-1] == ["hi", "merged", "more"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_turn_that_was_ended_from_outside_can_be_merged(
    lab: Moa, upstream: Upstream, number: int
) -> None:
    killed(lab, upstream, number)
    upstream.enqueue("agg", Reply(text="merged"))
    ran = lab.run("ask", "--remerge", "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["reply"], told["status"]) == (0, "merged", "finished")
    assert [proposal["text"] for proposal in told["proposals"][0]] == FROM
    # What this call took.
    assert told["usage"]["calls"] == 1
    assert references(upstream) == FROM
    [turn] = shown(lab)
    assert (turn["reply"], turn["status"]) == ("merged", "finished")
    assert [proposal["text"] for proposal in turn["proposals"][0]] == FROM
    # What all calls took; the one that was killed with the process among them.
    assert turn["usage"]["calls"] == 4


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_route_that_was_ended_in_its_check_can_be_merged(
    lab: Moa, upstream: Upstream, number: int, code: int
) -> None:
    lab.profile("lab", "a", "b", judge="lab:judge", route=[{"proposers": 1, "verify": True}])
    upstream.enqueue("judge", SILENT)
    with lab.start("ask", "hi") as process:
        upstream.wait_for(lambda: bool(upstream.chats("judge")))
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert lab.run("ask", "--remerge").out == b"ok\n"
    assert references(upstream) == ["from a"]
    assert [len(upstream.chats(model)) for model in ("a", "b", "judge", "agg")] == [1, 0, 1, 1]


def test_a_killed_layer_is_merged_as_far_as_it_had_come(lab: Moa, upstream: Upstream) -> None:
    upstream.enqueue("b", SILENT)
    proposals_killed(lab, upstream, 1)
    assert lab.run("ask", "--remerge").out == b"ok\n"
    assert references(upstream) == ["from a"]


def test_a_turn_that_was_stopped_at_a_cap_can_be_merged(lab: Moa, upstream: Upstream) -> None:
    for model in "ab":
        upstream.enqueue(model, Reply(text=f"from {model}", usage=(100, 60)))
    ran = lab.run("ask", "--max-total-tokens", "300", "--max-tokens", "60", "hi")
    assert ran.code == 3
    assert ran.err.splitlines()[-1] == f"moa: {HINT}"
    assert lab.run("ask", "--remerge").out == b"ok\n"
    assert references(upstream) == FROM


def test_of_two_rounds_the_last_with_an_answer_counts(lab: Moa, upstream: Upstream) -> None:
    lab.profile("lab", "a", "b", rounds=2)
    for model in "ab":
        upstream.enqueue(model, Reply(text=f"first of {model}"))
    # Each model has a second answer after this one.
    upstream.enqueue("a", Reply(text="from a"))
    upstream.enqueue("b", SILENT)
    proposals_killed(lab, upstream, 3)
    assert lab.run("ask", "--remerge").code == 0
    assert references(upstream) == ["from a"]
    for model in "ab":
        upstream.enqueue(model, Reply(text=f"first of {model}"), SILENT)
    proposals_killed(lab, upstream, 5)
    assert lab.run("ask", "--remerge").code == 0
    assert references(upstream) == ["first of a", "first of b"]


def proposals_killed(moa: Moa, upstream: Upstream, count: int) -> None:
    """A turn that is killed when so many proposals are written down."""
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: proposals_in(moa) == count)
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_another_model_writes_it(lab: Moa, upstream: Upstream) -> None:
    failed(lab, upstream)
    upstream.always("other", Reply(text="by another"))
    ran = lab.run("ask", "--remerge", "-a", "lab:other")
    assert (ran.code, ran.out) == (0, b"by another\n")
    assert ran.err == "moa: 2 proposals (lab:a, lab:b) → lab:other\n"
    assert references(upstream, model="other") == FROM
    [turn] = shown(lab)
    assert turn["model"] == "lab:other"


def test_the_mixture_is_that_of_the_turn_unless_another_is_named(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("mine", REFUSED)
    assert lab.run("ask", "-a", "lab:mine", "-s", "Be brief.", "hi").code == 1
    assert lab.run("ask", "--remerge").code == 0
    assert len(upstream.chats("mine")) == 2
    assert str(upstream.chats("mine")[-1].messages[0]["content"]).startswith("Be brief.\n\n")
    assert lab.run("ask", "--remerge", "-p", "lab").code == 0
    assert len(upstream.chats("agg")) == 1


def test_a_whole_reply_is_written_anew_and_the_old_one_is_taken_back(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="old"), Reply(text="new"), Reply(text="newest"))
    lab.run("ask", "hi")
    for reply in ("new", "newest"):
        assert lab.run("ask", "--remerge").text == f"{reply}\n"
        assert references(upstream) == FROM
        assert [turn["reply"] for turn in shown(lab)] == [reply]
    assert len(upstream.chats("a")) == 1


def test_in_vain_it_leaves_all_as_it_was(lab: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="old"), REFUSED)
    lab.run("ask", "hi")
    assert lab.run("ask", "--remerge").code == 1
    assert [turn["reply"] for turn in shown(lab)] == ["old"]
    killed_merge(lab, upstream)
    assert lab.run("ask", "--remerge").out == b"ok\n"
    assert references(upstream) == FROM


def killed_merge(moa: Moa, upstream: Upstream) -> None:
    """A `--remerge` that was killed while its call ran."""
    upstream.enqueue("agg", SILENT)
    before = len(upstream.chats("agg"))
    with moa.start("ask", "--remerge") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) > before)
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_it_can_be_tried_until_it_works(lab: Moa, upstream: Upstream) -> None:
    failed(lab, upstream)
    killed_merge(lab, upstream)
    upstream.enqueue("agg", REFUSED, Reply(text="at last"))
    ran = lab.run("ask", "--remerge")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == f"moa: {HINT}"
    assert lab.run("ask", "--remerge").out == b"at last\n"
    [turn] = shown(lab)
    assert (turn["reply"], turn["status"]) == ("at last", "finished")


def test_an_older_conversation_is_named_by_its_id(lab: Moa, upstream: Upstream) -> None:
    failed(lab, upstream)
    identity = json.loads(lab.run("history", "list", "--json").out)[0]["id"]
    lab.run("ask", "another")
    ran = lab.run("ask", "--remerge", "--cid", identity[:6])
    assert ran.code == 0
    assert sent(upstream)[-1] == ["hi"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hi"], "--remerge reuses the last turn's proposals: it takes no prompt"),
        (["--dry-run"], "--remerge reuses the last turn's proposals"),
        ([], "there is no conversation to continue"),
        (["--cid", "xyz"], "there is no conversation `xyz`"),
    ],
)
def test_what_cannot_be_merged_is_said(moa: Moa, arguments: list[str], said: str) -> None:
    ran = moa.run("ask", "--remerge", *arguments)
    assert ran.code in (1, 2)
    assert ran.err.startswith(f"moa: {said}")


def test_a_turn_without_proposals_has_nothing_to_merge(moa: Moa, upstream: Upstream) -> None:
    moa.run("ask", "--rounds", "0", "hi")
    ran = moa.run("ask", "--remerge")
    assert ran.code == 2
    assert "has no proposals to write a reply from" in ran.err
    assert len(upstream.chats()) == 1


def test_a_turn_that_still_runs_is_left_to_the_other_process(lab: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", SILENT)
    with lab.start("ask", "hi"):
        upstream.wait_for(lambda: bool(upstream.chats("agg")))
        ran = lab.run("ask", "--remerge")
    assert ran.code == 2
    assert ran.err.startswith("moa: another moa process is still answering the last turn")


def test_without_saving_the_reply_is_only_printed(lab: Moa, upstream: Upstream) -> None:
    failed(lab, upstream)
    assert lab.run("ask", "--remerge", "--no-save").out == b"ok\n"
    assert [turn["reply"] for turn in shown(lab)] == [None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_chat_that_goes_on_shows_merges_and_asks_again(
    lab: Moa, upstream: Upstream, number: int
) -> None:
    killed(lab, upstream, number)
    upstream.enqueue("agg", Reply(text="merged"), Reply(text="anew"))
    with lab.terminal("chat", "-c", columns=120) as terminal:
        at_prompt(terminal)
        kept = "2 proposals are kept: /remerge writes a reply from them"
        assert f"no reply yet; {kept}" in terminal.lines()
        terminal.send("/show\r")
        terminal.wait_for("2  round 1  lab:b: from b")
        terminal.send("/remerge\r")
        terminal.wait_for("merged")
        at_prompt(terminal)
        assert references(upstream) == FROM
        terminal.send("/why\r")
        terminal.wait_for("too short")
        terminal.send("/retry\r")
        terminal.wait_for("anew")
        at_prompt(terminal)
        terminal.send("more\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 4)
    assert [call[0] for call in sent(upstream, "a")] == ["hi", "hi", "hi"]
    assert sent(upstream)[-1] == ["hi", "anew", "more"]


def test_what_another_process_has_deleted_becomes_a_new_conversation(
    lab: Moa, upstream: Upstream
) -> None:
    failed(lab, upstream)
    upstream.enqueue("agg", Reply(text="merged"))
    with lab.terminal("chat", "-c", columns=120) as terminal:
        at_prompt(terminal)
        assert lab.run("history", "delete", "--all", "--yes").code == 0
        terminal.send("/remerge\r")
        terminal.wait_for("another process has deleted the conversation")
        terminal.wait_for("merged")
        at_prompt(terminal)
    [turn] = shown(lab)
    assert (turn["prompt"], turn["reply"], turn["status"]) == ("hi", "merged", "finished")
    assert [proposal["text"] for proposal in turn["proposals"][0]] == FROM


def test_another_strategy_over_the_same_proposals_pays_no_proposer_again(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", "b", "c", judge="lab:judge")
    upstream.always("*", Reply(text=lambda request: f"from {request.model}"))
    assert moa.run("ask", "hi").out == b"from agg\n"
    asked = {model: len(upstream.chats(model)) for model in "abc"}
    upstream.always("judge", Reply(text='{"points": [], "groups": [[1, 2], [3]]}'))
    fused = moa.run("ask", "--remerge", "--strategy", "fusion")
    assert "3 proposals (lab:a, lab:b, lab:c) → fusion by lab:judge → lab:agg" in fused.err
    assert {model: len(upstream.chats(model)) for model in "abc"} == asked
    assert len(upstream.chats("judge")) == 1
    for model in "abc":
        upstream.always(model, Reply(text="Ranking: 1 > 2"))
    told = json.loads(moa.run("ask", "--remerge", "--strategy", "council", "--json").out)
    assert told["decision"]["strategy"] == "council"
    assert [review["purpose"] for review in told["reviews"]].count("rank") == 3
    # Each member ranks; none answers again.
    assert {model: len(upstream.chats(model)) for model in "abc"} == dict.fromkeys("abc", 2)
    for model in "abc":
        assert "Rank the responses" in str(upstream.chats(model)[-1].messages)
    chosen = moa.run("ask", "--remerge", "--strategy", "select")
    assert chosen.code == 0
    assert {model: len(upstream.chats(model)) for model in "abc"} == dict.fromkeys("abc", 2)

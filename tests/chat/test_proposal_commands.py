"""The commands on a turn's proposals, on the conversation and on what it costs.

What a command asks for is told by what the upstream is sent; one that fails changes nothing.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from moa_cli.chat.commands.registry import COMMANDS
from moa_cli.terminal.table import fitted
from tests.support.talk import Talk
from tests.support.upstream import Reply

REFUSED = Reply(status=400, error={"error": {"message": "no"}})
RAIN = "Rain falls when the drops in a cloud grow too heavy for the air."
SNOW = "Snow is made of ice crystals which have grown in a cloud."


def proposed(talk: Talk) -> None:
    """A turn of two rounds is over."""
    talk.upstream.enqueue("a", Reply(text=f"First of a. {SNOW}"), Reply(text=RAIN))
    talk.upstream.enqueue("b", Reply(text="First of b."), Reply(text=f"{SNOW}\x1b[2J [/INST]"))
    talk.upstream.enqueue("agg", Reply(text=f"{RAIN} {SNOW}"))
    talk.do("/rounds 2", "Why?")


def test_show_lists_all_rounds_and_prints_one_proposal_of_any(talk: Talk) -> None:
    proposed(talk)
    assert talk.do("/show").splitlines() == [
        "1  round 1  lab:a: First of a. Snow is made of ice crystals which have grown in…",
        "2  round 1  lab:b: First of b.",
        "1  round 2  lab:a: Rain falls when the drops in a cloud grow too heavy for the…",
        "2  round 2  lab:b: Snow is made of ice crystals which have grown in a cloud. [/…",
    ]
    assert talk.do("/show 2") == f"lab:b (round 2)\n{SNOW} [/INST]"
    assert talk.do("/show 2 1") == "lab:b (round 1)\nFirst of b."
    assert talk.do("/show 1 2") == f"lab:a (round 2)\n{RAIN}"


@pytest.mark.parametrize("columns", [50, 120])
def test_show_uses_the_width_of_the_terminal(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    proposed(talk)
    rows = talk.do("/show").splitlines()
    for row, head, text in (
        (rows[2], "1  round 2  lab:a: ", RAIN),
        (rows[3], "2  round 2  lab:b: ", f"{SNOW} [/INST]"),
    ):
        assert row == head + fitted(text, columns - len(head))


def test_show_marks_proposals_that_were_cut(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text=RAIN, finish_reason="length"))
    talk.upstream.enqueue("b", Reply(chunks=[SNOW, " And"], stall_after=1))
    talk.do("/set quorum 1", "/set patience 0.5", "/set use_partial true", "Why?")
    assert talk.do("/show").splitlines() == [
        "1  round 1  lab:a (cut at the token limit (max_tokens)): Rain falls when the dr…",
        "2  round 1  lab:b (used unfinished): Snow is made of ice crystals which have gr…",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/show 3", "moa: there is no proposal 3 (1 to 2)"),
        ("/show 1 3", "moa: there is no layer 3 (1 to 2)"),
        ("/show 1 x", "moa: 'x' is not a whole number"),
        ("/diff 1", "moa: /diff needs the numbers of two proposals (/diff 1 2)"),
        ("/diff 1 3", "moa: there is no proposal 3 (1 to 2)"),
        ("/copy it", "moa: /copy, /copy N or /copy code, not /copy it"),
        ("/copy code", "moa: the reply holds no block of code"),
        ("/dry-run", "moa: /dry-run needs a prompt"),
    ],
)
def test_what_is_not_there_is_told(talk: Talk, line: str, said: str) -> None:
    proposed(talk)
    assert talk.do(line) == said


@pytest.mark.parametrize(
    "line", ["/show", "/show all", "/show 1", "/diff 1 2", "/why", "/copy", "/usage", "/remerge"]
)
def test_before_the_first_turn_there_is_nothing_to_look_at(talk: Talk, line: str) -> None:
    assert talk.do(line).startswith("moa: ")
    assert talk.upstream.requests == []


def test_show_all_puts_the_proposals_side_by_side(talk: Talk) -> None:
    proposed(talk)
    lines = [line.rstrip() for line in talk.do("/show all").splitlines()]
    assert re.fullmatch(r" ?lab:a +lab:b", lines[0])
    left, right = zip(*(re.split(r"  +", line.strip()) for line in lines[2:]), strict=True)
    assert " ".join(left) == RAIN
    assert " ".join(right) == f"{SNOW} [/INST]"


def test_more_than_can_be_read_side_by_side_stand_below_one_another(talk: Talk) -> None:
    talk.do("/models lab:a,lab:b,lab:c,lab:d", "hi")
    heads = [line.split() for line in talk.do("/show all").splitlines() if "lab:" in line]
    assert heads == [["lab:a", "lab:b"], ["lab:c", "lab:d"]]


def test_diff_puts_two_side_by_side(talk: Talk) -> None:
    talk.upstream.always("a", Reply(text="one two three"))
    talk.upstream.always("b", Reply(text="one zwei three"))
    talk.do("hi")
    lines = talk.do("/diff 2 1").splitlines()
    assert re.fullmatch(r" ?lab:b +lab:a *", lines[0])
    assert re.fullmatch(r" ?one zwei three +one two three *", lines[2])


def test_why_tells_of_each_passage_where_it_stands_and_of_each_proposal_its_share(
    talk: Talk,
) -> None:
    proposed(talk)
    said = talk.do("/why")
    text = " ".join(said.split())
    assert re.search(r"Rain falls when .* lab:a 100 ", text)
    assert re.search(r"Snow is made .* lab:b 100 ", text)
    assert "closest to: lab:a 53%, lab:b 47%" in text
    assert said.splitlines()[-1].endswith("does not prove where a passage comes from)")


def test_why_claims_nothing_of_a_reply_too_short_to_tell(talk: Talk) -> None:
    assert talk.do("hi", "/why") == "moa: the reply is too short to compare it to anything"


def test_retry_asks_all_again_and_replaces_the_turn(talk: Talk) -> None:
    talk.upstream.enqueue("agg", *(Reply(text=f"reply {n}") for n in range(3)))
    talk.do("first", "second", "/retry")
    second = ["first", "reply 0", "second"]
    assert talk.sent("a") == [["first"], second, second]
    assert talk.remembered() == [("first", "reply 0"), ("second", "reply 2")]


def test_retry_by_another_model_is_for_this_reply_alone(talk: Talk) -> None:
    talk.upstream.always("c", Reply(text="from c"))
    talk.do("first", "/retry lab:c", "second")
    assert talk.out.split("\n")[1] == "from c"
    assert [len(talk.upstream.chats(model)) for model in ("a", "agg", "c")] == [3, 2, 1]
    assert talk.remembered() == [("first", "from c"), ("second", "ok")]
    assert talk.session.profile.aggregator.model == "lab:agg"


@pytest.mark.parametrize("command", ["/retry", "/remerge"])
def test_asking_again_in_vain_leaves_the_old_turn(talk: Talk, command: str) -> None:
    talk.upstream.enqueue("agg", Reply(text="old"), REFUSED)
    talk.do("first", command)
    assert talk.remembered() == [("first", "old")]
    said = talk.do(f"{command} not a model")
    assert said == f"moa: {command}: `aggregator.model` is not a model name: 'not a model'"
    assert talk.remembered() == [("first", "old")]
    talk.do("second")
    assert talk.sent("agg")[-1] == ["first", "old", "second"]


def test_remerge_is_one_call_with_the_references_that_are_there(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text="reference of a"))
    talk.upstream.enqueue("b", Reply(text="reference of b"))
    talk.upstream.enqueue("agg", Reply(text="old"), Reply(text="new"))
    talk.do("first")
    before = len(talk.upstream.requests)
    talk.do("/remerge")
    assert len(talk.upstream.requests) == before + 1
    assert talk.sent("agg") == [["first"], ["first"]]
    assert talk.references() == talk.references(0) == ["reference of a", "reference of b"]
    assert talk.out == "new\n"
    assert talk.remembered() == [("first", "new")]
    talk.do("/remerge lab:c")
    assert talk.references(model="c") == ["reference of a", "reference of b"]
    assert "reference of b" in talk.do("/show 2")


def test_remerge_by_another_strategy_costs_only_what_that_asks(talk: Talk) -> None:
    talk.do("/models lab:a,lab:b,lab:c", "first")
    proposers = ("a", "b", "c")
    paid = [len(talk.upstream.chats(model)) for model in proposers]
    assert paid == [1, 1, 1]
    talk.upstream.enqueue("agg", Reply(text="model_2"))
    talk.upstream.always("b", Reply(text="Ranking: 2 > 1"))
    assert talk.do("/remerge select").startswith("moa: select: lab:agg chose lab:b")
    assert [len(talk.upstream.chats(model)) for model in proposers] == paid
    assert talk.remembered() == [("first", "ok")]
    talk.upstream.enqueue("x", Reply(text='{"points": [], "groups": [[1, 2, 3]]}'))
    talk.upstream.enqueue("x", Reply(text="fused"))
    said = talk.do("/remerge fusion lab:x")
    assert "fusion: compared by lab:x" in said
    assert talk.out == "fused\n"
    assert [len(talk.upstream.chats(model)) for model in proposers] == paid
    talk.upstream.enqueue("agg", Reply(text="chaired"))
    for model in ("a", "c"):
        talk.upstream.enqueue(model, Reply(text="Ranking: 1 > 2"))
    talk.do("/remerge council")
    # Each ranks once; none proposes again.
    assert [len(talk.upstream.chats(model)) for model in proposers] == [2, 2, 2]
    assert talk.out == "chaired\n"
    assert talk.session.profile.strategy == "synthesize"
    listed = talk.do("/show").splitlines()
    assert [line[:10] for line in listed[:3]] == ["1  round 1", "2  round 1", "3  round 1"]
    assert listed[-1].endswith("reviews of them: /show reviews")
    shown = talk.do("/show reviews")
    assert "lab:a (ranking)" in shown
    assert "1. " in shown


def test_a_wrong_strategy_is_told_with_the_known_ones(talk: Talk) -> None:
    talk.do("first")
    said = talk.do("/remerge chorus")
    assert said.startswith("moa: 'chorus' is neither a strategy nor a model (the strategies are ")
    assert "council" in said
    assert talk.do("/show reviews") == "moa: there are no reviews of the last proposals"


def test_remerge_writes_the_reply_that_a_failed_aggregator_did_not(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text="reference of a"))
    talk.upstream.always("b", REFUSED)
    talk.upstream.enqueue("agg", REFUSED, Reply(text="new"))
    talk.do("first", "/remerge", "second")
    assert talk.references(1) == ["reference of a"]
    assert talk.remembered() == [("first", "new"), ("second", "ok")]


def test_proposals_of_a_retry_in_vain_can_be_merged(talk: Talk) -> None:
    talk.upstream.enqueue("a", Reply(text="old of a"), Reply(text="new of a"))
    talk.upstream.enqueue("agg", Reply(text="old"), REFUSED, Reply(text="new"))
    talk.do("first")
    said = talk.do("/retry")
    assert said.splitlines()[-1] == ("moa: 2 proposals are kept: /remerge writes a reply from them")
    assert talk.remembered() == [("first", "old")]
    assert "new of a" in talk.do("/show")
    talk.do("/remerge", "second")
    assert talk.references(2) == ["new of a", "ok"]
    assert talk.remembered() == [("first", "new"), ("second", "ok")]
    assert talk.sent("agg")[2:] == [["first"], ["first", "new", "second"]]


def test_usage_is_what_the_upstream_counted_whatever_became_of_the_turns(talk: Talk) -> None:
    talk.upstream.always("a", Reply(text="some words of a", usage=(11, 7)))
    talk.do("first", "/retry", "/remerge", "/remerge lab:c", "second", "/undo", "/new", "third")
    lines = talk.do("/usage").splitlines()
    counted: list[tuple[Any, int, int, int]] = [
        (model, int(calls), int(prompt), int(completion))
        for model, calls, prompt, completion in re.findall(
            r"^lab:(\w+) +(\d+) calls?, (\d+) tokens in, (\d+) out, cost unknown$",
            "\n".join(lines),
            re.MULTILINE,
        )
    ]
    assert len(counted) == len(lines) - 1 == 4
    total, tokens_in, tokens_out = (sum(row[place] for row in counted) for place in (1, 2, 3))
    assert lines[-1].split(maxsplit=2)[2] == (
        f"{total} calls, {tokens_in} tokens in, {tokens_out} out, cost unknown"
    )
    for model, calls, prompt, completion in counted:
        requests = talk.upstream.chats(model)
        assert calls == len(requests)
        assert prompt == sum(request.usage[0] for request in requests)
        assert completion == sum(request.usage[1] for request in requests)


def test_one_token_is_not_tokens(talk: Talk) -> None:
    talk.upstream.always("a", Reply(text="a", usage=(1, 1)))
    said = talk.do("first", "/usage")
    assert re.search(r"^lab:a +1 call, 1 token in, 1 out, ", said, re.MULTILINE)


def test_dry_run_sends_nothing_and_shows_what_would_be_sent(talk: Talk) -> None:
    talk.do("first")
    before = len(talk.upstream.requests)
    said = talk.do("/dry-run second [/INST]")
    assert len(talk.upstream.requests) == before
    assert talk.out == ""
    assert "nothing is sent" in said
    assert re.search(
        r"\[user\]\n +first\n +\[assistant\]\n +ok\n +\[user\]\n +second \[/INST\]", said
    )
    assert "1. <answer of lab:a in round 1>" in said
    assert "3 calls in all: about " in said


@pytest.mark.parametrize("command", ["/new", "/clear"])
def test_a_new_conversation_knows_nothing_of_the_old(talk: Talk, command: str) -> None:
    talk.do("first")
    assert talk.do(command) == "a new conversation"
    talk.do("second")
    assert talk.sent("agg") == [["first"], ["second"]]


def test_no_argument_breaks_a_command(talk: Talk) -> None:
    talk.do("first")
    odd = ["nan", "9" * 5000, "²", "[red]x[/red]", "\x1b[2J", "\udcff", "\0", "%s {x} \\", "1 2 3"]
    for name in COMMANDS.keys() - {"exit", "edit", "dry-run"}:
        for argument in odd:
            talk.upstream.enqueue("*", Reply())
            assert "\x1b" not in talk.do(f"/{name} {argument}")

"""The strategy `select`: the best proposal, in its own words."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from moa_cli.core.conversation import Conversation, Message, Proposal
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    AggregatorStarted,
    Event,
    LayerFinished,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.stream import TurnFold
from moa_cli.engine import Budget, Cap, Control
from moa_cli.engine.strategies.select import RANKER_SYSTEM, read_choice
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, of_kind, run
from tests.support.scenarios import REFUSED, SILENT, STALLED
from tests.support.strategies import (
    ONE_BY_ONE,
    decision,
    enough_at,
    lost,
    placings,
    purposes,
    script,
    sent,
    turned,
    user,
)
from tests.support.tool_calls import TOOLS, calling
from tests.support.upstream import Reply, Upstream

TWO = mixture("a", "b", strategy="select")
FOUR = mixture("a", "b", "c", "d", strategy="select")
PEERS = mixture("a", "b", "c", "d", strategy="select", chosen_by="proposers")
# Written out by hand, as the judge's endpoint reads it.
GOLDEN = '''\
I require a leaderboard for various large language models. I'll provide you with prompts given to \
these models and their corresponding outputs. Your task is to assess these responses, and select \
the model that produces the best output from a human perspective.

## Instruction

{
    "instruction": """What is rain?""",
}

## Model Outputs

Here are the unordered outputs from the models. Each output is associated with a specific model, \
identified by a unique model identifier.

{
    {
        "model_identifier": "model_1",
        "output": """Water {that} falls."""
    },
    {
        "model_identifier": "model_2",
        "output": """Drops."""
    },
    {
        "model_identifier": "model_3",
        "output": """Wet \\n"quoted"."""
    }
}

## Task

Evaluate the models based on the quality and relevance of their outputs, and select the model that \
generated the best output. Answer by providing the model identifier of the best model. We will use \
your output as the name of the best model, so make sure your output only contains one of the \
following model identifiers and nothing else (no quotes, no spaces, no new lines, ...): model_1, \
model_2 or model_3.

## Best Model Identifier'''
SYSTEM = {
    "role": "system",
    "content": "You are a highly efficient assistant, who evaluates and selects the best large"
    " language model (LLMs) based on the quality of their responses to a given instruction. This"
    " process will be used to create a leaderboard reflecting the most accurate and human-preferred"
    " answers.",
}


def reply(events: list[Event]) -> str:
    [finished] = of_kind(events, AggregatorFinished)
    return finished.text


def test_the_judge_is_asked_once_by_the_rankers_prompt(upstream: Upstream) -> None:
    answers = {
        "a": ["  Water {that} falls.\n"],
        "b": ["<think>hm</think>Drops."],
        "c": ['Wet \\n"quoted".'],
    }
    script(upstream, {**answers, "agg": ["model_2"]})
    profile = mixture("a", "b", "c", strategy="select")
    events = run(upstream, profile, limits=ONE_BY_ONE)
    bare = [user("What is rain?")]
    assert sent(upstream) == [
        ("a", bare),
        ("b", bare),
        ("c", bare),
        ("agg", [SYSTEM, user(GOLDEN)]),
    ]
    assert purposes(events) == ["", "choose"]
    assert reply(events) == "Drops."
    assert lost(events) == ()


def test_the_prompt_is_alpaca_evals(upstream: Upstream) -> None:
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    published = Path(folder, "alpaca_eval", "judge_prompt_alpaca_eval_clf.txt").read_text("utf-8")
    script(upstream, {"a": ["{output_1}"], "b": ["{output_2}"], "agg": ["model_1"]})
    run(upstream, TWO, asked("{instruction}"))
    system, prompt = (message["content"] for message in upstream.chats("agg")[0].messages)
    ours = f"<|im_start|>system\n{system}\n<|im_end|>\n<|im_start|>user\n{prompt}\n<|im_end|>"
    assert ours.replace("model_1", "m").replace("model_2", "M") == published


def test_the_reply_is_the_chosen_proposals_own_words_and_costs_no_call(upstream: Upstream) -> None:
    script(upstream, {"b": ["Drops **of** water."], "agg": ["model_2"]})
    events = run(upstream, TWO)
    [started] = of_kind(events, AggregatorStarted)
    assert (started.name, started.model, started.copied) == ("lab:b", "lab:b", True)
    assert [delta.text for delta in of_kind(events, AggregatorDelta)] == ["Drops **of** water."]
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.usage.calls == 3
    told = decision(events)
    assert (told.strategy, told.chosen) == ("select", 1)
    assert told.summary == "lab:agg chose lab:b from 2 proposals"
    assert placings(events) == [("lab:b", 1, None), ("lab:a", 0, None)]


def test_a_judge_of_its_own_is_asked(upstream: Upstream) -> None:
    script(upstream, {"wise": ["model_1"]})
    events = run(upstream, replace(TWO, judge="lab:wise"))
    assert [model for model, _ in sent(upstream)][2:] == ["wise"]
    assert reply(events) == "from a"


def test_what_stands_before_the_prompt_stays(upstream: Upstream) -> None:
    script(upstream, {"agg": ["model_1"]})
    talk = Conversation.of(
        [
            Message("system", "Answer in French."),
            Message("user", "Hello"),
            Message("assistant", "Salut"),
            Message("user", "What is rain?"),
        ]
    )
    run(upstream, replace(TWO, system="not this"), talk)
    system, first, second, last = upstream.chats("agg")[0].messages
    assert system["content"] == f"Answer in French.\n\n{RANKER_SYSTEM}"
    assert (first["content"], second["content"]) == ("Hello", "Salut")
    assert last["content"].startswith("I require a leaderboard")


def test_a_fallback_judges_where_the_judge_fails(upstream: Upstream) -> None:
    script(upstream, {"agg": [REFUSED], "second": ["model_2"]})
    profile = mixture("a", "b", aggregator=lab("agg", fallbacks=["lab:second"]), strategy="select")
    events = run(upstream, profile)
    assert decision(events).summary == "lab:second chose lab:b from 2 proposals"
    assert [said.partition(":")[0] for said in lost(events)] == ["judge (choice)"]


def test_a_fallback_judges_where_a_choice_cannot_be_read(upstream: Upstream) -> None:
    script(upstream, {"agg": ["Both are good."], "second": ["model_2"]})
    profile = mixture("a", "b", aggregator=lab("agg", fallbacks=["lab:second"]), strategy="select")
    events = run(upstream, profile)
    assert reply(events) == "from b"
    assert lost(events) == ("judge (choice): its answer cannot be read",)


@pytest.mark.parametrize("answer", ["Both are good.", "model_7", REFUSED, SILENT])
def test_without_a_choice_the_aggregator_writes(upstream: Upstream, answer: str | Reply) -> None:
    script(upstream, {"wise": [answer, answer]})
    profile = mixture("a", "b", strategy="select", judge="lab:wise", first_token=5)
    events = run(upstream, profile, limits=replace(AT_ONCE, retries=0))
    assert isinstance(events[-1], TurnFinished)
    [started] = of_kind(events, AggregatorStarted)
    assert (started.model, started.copied, started.references) == ("lab:agg", False, 2)
    system = upstream.chats("agg")[0].messages[0]["content"]
    assert system.endswith("Responses from models:\n1. from a\n2. from b")
    assert lost(events)[-1] == "the choice cannot be read: the reply is written from all proposals"
    assert (decision(events).chosen, decision(events).summary) == (None, "the judge has not chosen")


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("model_2", 1),
        ("  model_2.\n", 1),
        ('"model_2"', 1),
        ("**Model 2**", 1),
        ("model2", 1),
        ("2", 1),
        ("The best is model_3.", 2),
        ("model_1 is short, model_2 is wrong.\n\nmodel_3", 2),
        ("## Best Model Identifier\nmodel_1", 0),
        ("model\\_2", 1),
        ("model-2", 1),
        ("**model_2**\n\nmodel_1 is short, model_3 is wrong.", 1),
        ("model_1 or model_2", None),
        ("model_4", None),
        ("model_0", None),
        ("There are 2 good ones.", None),
        ("remodel_2", None),
        ("model_99999999999999999999", None),
        ("", None),
    ],
)
def test_what_a_choice_may_look_like(answer: str, place: int | None) -> None:
    assert read_choice(answer, count=3) == place


def test_one_proposal_is_the_reply_without_a_choice(upstream: Upstream) -> None:
    script(upstream, {"b": [REFUSED]})
    events = run(upstream, TWO)
    assert purposes(events) == [""]
    assert upstream.chats("agg") == []
    assert reply(events) == "from a"
    assert decision(events).summary == "there is one proposal, by lab:a"
    assert decision(events).chosen == 0


def test_samples_of_one_model_are_chosen_among(upstream: Upstream) -> None:
    script(upstream, {"a": ["first", "second", "third"], "agg": ["model_3"]})
    events = run(upstream, mixture(lab("a", samples=3), strategy="select"), limits=ONE_BY_ONE)
    assert reply(events) == "third"
    assert placings(events)[0] == ("lab:a #3", 1, None)


def test_the_place_of_the_chosen_is_that_in_its_layer(upstream: Upstream) -> None:
    script(upstream, {"a": [REFUSED], "agg": ["model_2"]})
    events = run(upstream, FOUR)
    assert decision(events).chosen == 2
    assert reply(events) == "from c"


# --- chosen by the proposers


def test_each_proposer_chooses_among_the_others(upstream: Upstream) -> None:
    script(
        upstream,
        {
            "a": ["of a", "model_1"],
            "b": ["of b", "model_2"],
            "c": ["of c", "model_2"],
            "d": ["of d", "model_3"],
        },
    )
    events = run(upstream, PEERS, limits=ONE_BY_ONE)
    assert [model for model, _ in sent(upstream)] == ["a", "b", "c", "d"] * 2
    for model, messages in sent(upstream)[4:]:
        text = messages[-1]["content"]
        assert re.findall('"""of (.)"""', text) == [other for other in "abcd" if other != model]
    # a: b. b: c. c: b. d: c.
    assert placings(events)[:2] == [("lab:b", 2, None), ("lab:c", 2, None)]
    assert decision(events).summary == (
        "4 of 4 proposers chose: lab:b 2, lab:c 2; a tie, of which lab:b is taken, the first in the"
        " order of the profile"
    )
    assert reply(events) == "of b"
    assert lost(events) == ()
    assert upstream.chats("agg") == []


def test_most_choices_win(upstream: Upstream) -> None:
    script(
        upstream,
        {
            "a": ["from a", "model_3"],
            "b": ["from b", "model_3"],
            "c": ["from c", "model_3"],
            "d": ["from d", "model_1"],
        },
    )
    events = run(upstream, PEERS, limits=ONE_BY_ONE)
    assert reply(events) == "from d"
    assert decision(events).summary == "4 of 4 proposers chose: lab:d 3, lab:a 1"


def test_choices_that_cannot_be_read_are_told_and_left_out(upstream: Upstream) -> None:
    script(
        upstream,
        {
            "a": ["from a", "all of them"],
            "b": ["from b", REFUSED],
            "c": ["from c", "model_4"],
            "d": ["from d", "model_2"],
        },
    )
    events = run(upstream, PEERS, limits=ONE_BY_ONE)
    assert reply(events) == "from b"
    assert decision(events).summary == "1 of 4 proposers chose: lab:b 1"
    assert [said.partition(": ")[0] for said in lost(events)] == [
        "lab:b (choice)",
        "lab:a (choice)",
        "lab:c (choice)",
        "1 of 4 choices count",
    ]


def test_no_readable_choice_has_the_aggregator_write(upstream: Upstream) -> None:
    script(upstream, {model: [f"from {model}", "none"] for model in "abcd"})
    events = run(upstream, PEERS)
    assert reply(events) == "from agg"
    assert decision(events).summary == "0 of 4 proposers chose"
    assert lost(events)[-1] == "the choice cannot be read: the reply is written from all proposals"


def test_a_lost_proposer_does_not_choose(upstream: Upstream) -> None:
    script(upstream, {"d": [REFUSED], **{m: [f"from {m}", "model_1"] for m in "abc"}})
    events = run(upstream, PEERS, limits=ONE_BY_ONE)
    assert len(upstream.chats("d")) == 1
    assert decision(events).summary == "3 of 4 proposers chose: lab:a 2, lab:b 1"


def test_of_two_proposals_the_judge_chooses(upstream: Upstream) -> None:
    script(upstream, {"agg": ["model_2"]})
    events = run(upstream, replace(TWO, chosen_by="proposers"))
    assert reply(events) == "from b"
    assert decision(events).summary == (
        "2 proposals are too few for proposers to choose from; lab:agg chose lab:b from 2 proposals"
    )


def test_samples_choose_among_the_others(upstream: Upstream) -> None:
    script(upstream, {"a": ["1st", "2nd", "3rd", "model_2", "model_2", "model_1"]})
    profile = mixture(lab("a", samples=3), strategy="select", chosen_by="proposers")
    events = run(upstream, profile, limits=ONE_BY_ONE)
    shown = [request.messages[-1]["content"] for request in upstream.chats("a")[3:]]
    assert [[word in text for word in ("1st", "2nd", "3rd")] for text in shown] == [
        [False, True, True],
        [True, False, True],
        [True, True, False],
    ]
    # The first chose the third, the second the third, the third the first.
    assert reply(events) == "3rd"


# --- limits, cancellation, tools


def test_enough_does_not_end_the_choice(upstream: Upstream) -> None:
    control = Control()
    script(upstream, {"agg": ["model_2"]})
    events = run(upstream, TWO, control=control, watch=enough_at(control, LayerFinished))
    assert purposes(events) == ["", "choose"]


def test_a_cap_that_is_reached_in_the_choice_ends_the_turn(upstream: Upstream) -> None:
    script(upstream, {})
    upstream.always("agg", Reply(chunks=[f"word{n} " for n in range(9_000)]))
    short = (lab(model, max_tokens=20) for model in "ab")
    profile = mixture(*short, strategy="select", max_tokens=900)
    budget = Budget(Cap("--max-total-tokens", "tokens", 1_700), "turns")
    events = run(upstream, profile, limits=replace(AT_ONCE, budgets=(budget,)))
    last = events[-1]
    assert isinstance(last, TurnFailed)
    assert last.error.kind == "BudgetReached"
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    fold.close()
    assert [proposal.text for proposal in fold.turn().proposals[0]] == ["from a", "from b"]


def test_a_cap_that_the_choice_would_pass_asks_nobody(upstream: Upstream) -> None:
    script(upstream, {})
    short = (lab(model, max_tokens=20) for model in "ab")
    profile = mixture(*short, strategy="select", max_tokens=5_000)
    budget = Budget(Cap("--max-total-tokens", "tokens", 4_000), "turns")
    events = turned(upstream, profile, limits=replace(AT_ONCE, budgets=(budget,)))
    assert isinstance(events[-1], TurnFailed)
    assert upstream.chats() == []


def test_a_quorum_holds_for_proposals_not_for_choices(upstream: Upstream) -> None:
    script(upstream, {"c": [STALLED], "agg": ["model_2"]})
    profile = mixture("a", "b", "c", quorum=2, patience=0.1, strategy="select")
    events = run(upstream, profile)
    assert reply(events) == "from b"


def test_where_tools_are_offered_the_aggregator_acts_for_the_chosen(upstream: Upstream) -> None:
    script(upstream, {"wise": ["model_2"], "agg": [calling("read")]})
    aggregator = lab("agg", extra={"tools": TOOLS})
    profile = mixture("a", "b", aggregator=aggregator, judge="lab:wise", strategy="select")
    events = run(upstream, profile)
    [finished] = of_kind(events, AggregatorFinished)
    assert [call.name for call in finished.tool_calls] == ["read"]
    assert "tools" not in upstream.chats("wise")[0].body
    system = upstream.chats("agg")[0].messages[0]["content"]
    assert system.endswith("Responses from models:\n1. from b")


def test_a_reply_by_a_schema_is_written_from_the_chosen(upstream: Upstream) -> None:
    script(upstream, {"wise": ["model_1"], "agg": ['{"rain": true}']})
    profile = mixture("a", "b", judge="lab:wise", strategy="select")
    events = run(upstream, profile, response_format=ResponseFormat("json_object"))
    assert reply(events) == '{"rain": true}'
    assert "response_format" not in upstream.chats("wise")[0].body


def test_without_any_proposal_the_aggregator_answers_alone(upstream: Upstream) -> None:
    script(upstream, {"a": [REFUSED], "b": [REFUSED]})
    events = run(upstream, replace(TWO, on_all_failed="solo"))
    assert reply(events) == "from agg"
    assert upstream.chats("agg")[0].messages == [user("What is rain?")]


def test_kept_proposals_are_chosen_among_without_asking_their_models(upstream: Upstream) -> None:
    script(upstream, {"agg": ["model_2", "model_2"]})
    kept = [Proposal(1, 0, "x", "lab:x", "old x"), Proposal(1, 2, "y", "lab:y", "old y")]
    events = turned(upstream, TWO, kept)
    assert [model for model, _ in sent(upstream)] == ["agg"]
    assert (reply(events), decision(events).chosen) == ("old y", 2)
    events = turned(upstream, TWO, ["one text", "another"])
    assert (reply(events), placings(events)[0][0]) == ("another", "response 2")


def test_what_a_turn_asks_is_foreseen() -> None:
    def stages(profile: Profile) -> list[tuple[str, list[str]]]:
        return [
            (stage.purpose, [settings.model for settings in stage.models])
            for stage in profile.stages()[1:]
        ]

    assert stages(TWO) == [("choose", ["lab:agg"])]
    assert stages(replace(TWO, judge="lab:wise")) == [("choose", ["lab:wise"])]
    assert stages(PEERS) == [("choose", ["lab:a", "lab:b", "lab:c", "lab:d"])]
    assert stages(replace(TWO, chosen_by="proposers")) == [("choose", ["lab:agg"])]
    assert stages(mixture("a", strategy="select")) == []
    acting = mixture("a", "b", aggregator=lab("agg", extra={"tools": TOOLS}), strategy="select")
    assert stages(acting) == [("choose", ["lab:agg"]), ("", ["lab:agg"])]
    assert "lab:agg" in replace(TWO, judge="lab:wise").models()

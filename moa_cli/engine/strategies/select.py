"""The strategy `select`: the best proposal becomes the reply, word for word.

Either the judge chooses, or each proposer chooses among the proposals of the others. The prompt is
that of the LLM-ranker, a baseline of "Mixture-of-Agents Enhances Large Language Model Capabilities"
(arXiv:2406.04692). It is the comparison prompt of AlpacaEval 2 (`alpaca_eval_clf_gpt4_turbo`), with
as many outputs as there are proposals. We changed two things: the models are called `model_1`,
`model_2` and so on, in the order of the profile; and an existing system prompt stays, with the
ranker's after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from moa_cli.core.conversation import Conversation, Proposal
from moa_cli.core.strategy import Placing
from moa_cli.engine.prompts import Wording, worded
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import copy, copy_winner, judged, proposals, read_of, review
from moa_cli.engine.strategies.peers import Peers, peers
from moa_cli.profile import ModelSettings, Profile

RANKER_SYSTEM: Final = """\
You are a highly efficient assistant, who evaluates and selects the best large language model \
(LLMs) based on the quality of their responses to a given instruction. This process will be used \
to create a leaderboard reflecting the most accurate and human-preferred answers."""

RANKER: Final = '''\
I require a leaderboard for various large language models. I'll provide you with prompts given to \
these models and their corresponding outputs. Your task is to assess these responses, and select \
the model that produces the best output from a human perspective.

## Instruction

{
    "instruction": """{prompt}""",
}

## Model Outputs

Here are the unordered outputs from the models. Each output is associated with a specific model, \
identified by a unique model identifier.

{
{references}
}

## Task

Evaluate the models based on the quality and relevance of their outputs, and select the model that \
generated the best output. Answer by providing the model identifier of the best model. We will use \
your output as the name of the best model, so make sure your output only contains one of the \
following model identifiers and nothing else (no quotes, no spaces, no new lines, ...): \
{identifiers}.

## Best Model Identifier'''

_OUTPUT: Final = '''\
    {{
        "model_identifier": "{name}",
        "output": """{text}"""
    }}'''
# A model's name. A number alone counts too, but only if it is the whole answer.
_NAMED = re.compile(r"\bmodel[\s_\\-]*(\d{1,4})\b|\A\W*(\d{1,4})\W*\Z", re.IGNORECASE)
_M = TypeVar("_M", bound=ModelSettings)


async def select(state: TurnState) -> bool:
    """Have a proposal chosen, and give it as the reply. Raises BudgetReached at a cap."""
    found = proposals(state)
    if len(found) == 1:
        [only] = found
        summary = f"there is one proposal, by {only.proposer}"
        return await copy(state, only, summary, [Placing(only.proposer, only.index)])
    group = peers(state, found) if state.profile.chosen_by == "proposers" else None
    if group is not None and group.asked:
        votes, summary = await _chosen_by_peers(state, found, group)
    else:
        votes, summary = await _chosen_by_judge(state, found)
        if group is not None:
            summary = f"{len(found)} proposals are too few for proposers to choose from; {summary}"
    if group is not None and group.asked and 0 < sum(votes) < group.members:
        state.lost.append(f"{sum(votes)} of {group.members} choices count")
    return await copy_winner(state, found, votes, summary)


async def _chosen_by_judge(state: TurnState, found: Sequence[Proposal]) -> tuple[list[int], str]:
    """How often each proposal was chosen, and a sentence on that."""
    votes = [0] * len(found)
    judges = [ranker(judge, state.conversation) for judge in state.profile.judges()]
    read = partial(read_choice, count=len(found))
    answer = await judged(state, "choose", choice_wording(state.profile), read, judges=judges)
    if answer is None:
        return votes, "the judge has not chosen"
    choice, place = answer
    votes[place] = 1
    return votes, f"{choice.model} chose {found[place].proposer} from {len(found)} proposals"


async def _chosen_by_peers(
    state: TurnState, found: Sequence[Proposal], group: Peers
) -> tuple[list[int], str]:
    """As `_chosen_by_judge`, but each proposer chooses among the proposals of the others."""
    votes = [0] * len(found)
    models = [ranker(peer.settings, state.conversation) for peer in group.asked]
    shown = [[found[place] for place in peer.others] for peer in group.asked]
    reads = [partial(read_choice, count=len(peer.others)) for peer in group.asked]
    wording = choice_wording(state.profile)
    for answer in await review(state, "choose", models, wording, shown, reads=reads):
        others = group.asked[answer.index].others
        place = read_of(state, answer, reads[answer.index])
        if place is not None:
            votes[others[place]] += 1
    most = max(votes)
    counts = sorted(zip(votes, found, strict=True), key=lambda counted: -counted[0])
    told = ", ".join(f"{proposal.proposer} {count}" for count, proposal in counts if count)
    summary = f"{sum(votes)} of {group.members} proposers chose" + (f": {told}" if told else "")
    if most and votes.count(most) > 1:
        first = found[votes.index(most)].proposer
        summary += f"; a tie, of which {first} is taken, the first in the order of the profile"
    return votes, summary


def choice_wording(profile: Profile) -> Wording:
    """The profile with the ranker's prompt."""
    return worded(profile, RANKER, _listed)


def _listed(texts: Sequence[str]) -> Mapping[str, str]:
    """The values of the placeholders in the ranker's prompt."""
    names = [f"model_{number}" for number in range(1, len(texts) + 1)]
    outputs = (
        _OUTPUT.format(name=name, text=text) for name, text in zip(names, texts, strict=True)
    )
    identifiers = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return {"references": ",\n".join(outputs), "identifiers": identifiers}


def ranker(settings: _M, conversation: Conversation) -> _M:
    """The settings of a model, with the ranker's system prompt after its usual one."""
    messages = conversation.messages()
    led = messages[0].content if messages[0].role == "system" else settings.system
    return replace(settings, system=f"{led}\n\n{RANKER_SYSTEM}" if led else RANKER_SYSTEM)


def read_choice(text: str, *, count: int) -> int | None:
    """The place of the output that an answer names; None if it names none, or several.

    text: without reasoning. It should hold only the name. If it names several, its last line
    counts, or else its first. count: the number of outputs.
    """
    lines = text.strip().splitlines()
    for said in (text.strip(), *lines[-1:], *lines[:1]):
        numbers = {int(named or alone) for named, alone in _NAMED.findall(said)}
        if len(numbers) == 1 and 1 <= (number := numbers.pop()) <= count:
            return number - 1
    return None

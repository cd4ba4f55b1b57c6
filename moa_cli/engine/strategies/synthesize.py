"""The strategy `synthesize`: the aggregator reads all proposals and writes a new answer
(arXiv:2406.04692).

With `window`, it never reads more than `window` proposals at once. It merges the first ones into
one answer, then merges this answer with the next ones, and so on, and writes the reply from the
last window. So many proposals fit a small context. Source: Self-MoA-Seq (arXiv:2502.00674).
"""

from __future__ import annotations

from collections.abc import Sequence

from moa_cli.core.conversation import Proposal
from moa_cli.core.strategy import Decision
from moa_cli.core.text import plural
from moa_cli.engine.aggregator import run_aggregator
from moa_cli.engine.prompts import EarlierProposal, Reference
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import decide, review


async def synthesize(state: TurnState) -> bool:
    """Have the reply written from the proposals. Returns whether there is a whole reply. Raises
    BudgetReached at a cap."""
    if state.skipped or state.refused:
        count = plural(len(state.references), "proposal")
        decide(state, Decision("synthesize", f"written from {count}"))
    window = state.profile.window
    while window is not None and len(state.references) > window:
        merged = await _merged(state, state.references[:window])
        if merged is None:
            state.lost.append("the reply is written from all answers at once")
            break
        state.references = [merged, *state.references[window:]]
    return await run_aggregator(state)


async def _merged(state: TurnState, references: Sequence[Reference]) -> Proposal | None:
    """One answer made of the references, by the aggregator or the first fallback that gives
    one."""
    for settings in state.profile.mergers():
        for answer in await review(state, "merge", [settings], state.profile, [references]):
            old = any(isinstance(reference, EarlierProposal) for reference in references)
            return EarlierProposal(**vars(answer)) if old else answer
        if state.control.said_enough:
            break
    return None

"""The report on where the proposals of a turn disagree, made by one call after the reply."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from moa_cli.core import events
from moa_cli.core.errors import BudgetReached
from moa_cli.engine.agreement.comparison import COMPARE, read_report
from moa_cli.engine.calls.call import failure
from moa_cli.engine.prompts import Reference, review_wording
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import judged

# The number of proposals that a report needs. A single one cannot be compared.
_FEWEST = 2


async def follow_with_report(state: TurnState, references: Sequence[Reference]) -> None:
    """Make the report that the profile asks for, after a whole reply.

    No report is made if the strategy has compared the proposals already, or if the reply calls
    tools, because then the client goes on in its next request. If the report fails, it counts as
    lost, and the reply stays. references: the proposals that the strategy was given.
    """
    if not state.profile.report or state.calls_tools or state.compared:
        return
    if len(references) < _FEWEST:
        state.lost.append("the report was skipped: there are fewer than two proposals to compare")
        return
    state.references = references
    try:
        await make_report(state)
    except BudgetReached as reached:
        # If the cap stopped a call, the event of the call reports it already.
        if failure(reached) not in state.causes:
            state.lost.append(f"the report was skipped: {reached.message}")


async def make_report(state: TurnState) -> bool:
    """Have a report made on the state's references. Returns whether it succeeded. A report that
    cannot be read counts as lost. Raises BudgetReached at a cap."""
    read = partial(read_report, references=state.references)
    # Only one model is asked: the report costs one more call than the turn without it.
    judges = state.profile.judges()[:1]
    wording = review_wording(state.profile, COMPARE)
    answer = await judged(state, "report", wording, read, judges=judges)
    if answer is None:
        return False
    _, report = answer
    state.emit(events.Reported(at=state.now(), report=report))
    return True

"""How proposals become the reply: a file for each strategy, over the steps that they share.

Each strategy is a coroutine that is given the turn when all proposers have ended, and returns
whether there is a whole reply. Where there are no proposals at all (`rounds = 0`, or all are lost
and the profile says `on_all_failed = "solo"`), the aggregator answers alone, whatever the strategy.
"""

from __future__ import annotations

from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import write
from moa_cli.engine.strategies.council import council
from moa_cli.engine.strategies.fusion import fusion
from moa_cli.engine.strategies.select import select
from moa_cli.engine.strategies.synthesize import run_synthesize


async def run_strategy(state: TurnState) -> bool:
    """Write the reply as the profile's strategy says; whether there is a whole one.

    Raises BudgetReached at a cap.
    """
    if not state.references:
        return await write(state)
    match state.profile.strategy:
        case "synthesize":
            return await run_synthesize(state)
        case "select":
            return await select(state)
        case "council":
            return await council(state)
        case "fusion":
            return await fusion(state)

"""Several arms answer one prompt at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import Arm
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.endpoints import Clients
from moa_cli.core.outcomes import REFUSED, losses, refusal_of
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import to_table
from moa_cli.store.comparisons import Contender


@dataclass(frozen=True)
class ArmAnswer:
    """What an arm answered."""

    arm: Arm
    turn: Turn

    @property
    def reply(self) -> str:
        """Its words, without reasoning."""
        return strip_reasoning(self.turn.reply or "")

    @property
    def trouble(self) -> str | None:
        """Why this is not an answer of that arm as it was meant: a sentence, or None."""
        if words := refusal_of(self.turn):
            return f"{REFUSED}: {words}"
        if self.turn.error is not None:
            return self.turn.error.message
        # A quorum is there only where an option asked for it.
        if lost := losses(self.turn):
            return lost[0]
        return None if self.reply else "it gave no answer"

    def contender(self) -> Contender:
        """As the store keeps it."""
        arm = self.arm
        # Tells the same arm of a profile apart before and after a change of its settings.
        settings = json.dumps(to_table(arm.profile), sort_keys=True)
        return Contender(
            arm=arm.name,
            profile=arm.profile.name,
            settings=hashlib.sha256(settings.encode()).hexdigest()[:7],
            usage=self.turn.usage,
            seconds=self.turn.seconds,
        )


async def answers(
    arms: Sequence[Arm], item: Item, clients: Clients, limits: Limits, ended: Callable[[Turn], None]
) -> list[ArmAnswer]:
    """What the arms answer, in their order; all are asked at once.

    ended: called as soon as an arm's turn has ended.
    """
    conversation = Conversation(before=item.before).ask(item.turns[0])

    async def answer(arm: Arm) -> ArmAnswer:
        turn = await deliver(run_turn(arm.profile, conversation, clients, limits=limits))
        ended(turn)
        return ArmAnswer(arm, turn)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(arm)) for arm in arms]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]

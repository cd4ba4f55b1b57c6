"""Has several arms answer one prompt at once, and merges equal answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import Arm
from moa_cli.core.answers.equality import boxed, stated
from moa_cli.core.answers.final import answer_key
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.endpoints import Clients
from moa_cli.core.outcomes import REFUSED, losses, refusal_of
from moa_cli.core.sanitize import sanitize
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import to_table
from moa_cli.store.comparisons import Contender

# A final answer that is shown beside the answers has at most this many characters.
_LONGEST_FINAL = 60
_MARKUP = " \t*_`\"'“”"


@dataclass(frozen=True)
class ArmAnswer:
    """The answer of an arm."""

    arm: Arm
    turn: Turn

    @property
    def reply(self) -> str:
        """The text of the answer, without reasoning."""
        return strip_reasoning(self.turn.reply or "")

    @property
    def trouble(self) -> str | None:
        """Why the arm did not answer as its profile says: a sentence, or None if it did."""
        if words := refusal_of(self.turn):
            return f"{REFUSED}: {words}"
        if self.turn.error is not None:
            return self.turn.error.message
        # A quorum lets a turn go on without some proposers, but only where an option asked for one.
        if lost := losses(self.turn):
            return lost[0]
        return None if self.reply else "it gave no answer"

    def contender(self) -> Contender:
        """The answer in the form that the store keeps."""
        arm = self.arm
        # The hash of the settings distinguishes an arm before a change of its profile from the same
        # arm after it.
        settings = json.dumps(to_table(arm.profile), sort_keys=True)
        return Contender(
            arm=arm.name,
            profile=arm.profile.name,
            settings=hashlib.sha256(settings.encode()).hexdigest()[:7],
            usage=self.turn.usage,
            seconds=self.turn.seconds,
        )


@dataclass(frozen=True)
class ShownAnswer:
    """One answer as it is shown, with all arms that gave it. first: the place of the first of these
    arms among all arms, in the order in which answers are shown."""

    given: tuple[ArmAnswer, ...]
    first: int

    @property
    def keys(self) -> str:
        """A lower-case letter for each of its arms."""
        return ascii_lowercase[self.first : self.first + len(self.given)]

    @property
    def letters(self) -> str:
        """The letters as they are shown above the answer: `A`, or `A, B`."""
        return ", ".join(self.keys.upper())


def merged(there: Sequence[ArmAnswer]) -> list[ShownAnswer]:
    """The answers as they are shown, each once. Answers that differ only in white space are equal.
    The order is that of the first arm of each."""
    by_words: dict[str, list[ArmAnswer]] = {}
    for answer in there:
        by_words.setdefault(" ".join(sanitize(answer.reply).split()), []).append(answer)
    shown: list[ShownAnswer] = []
    for given in by_words.values():
        before = shown[-1].first + len(shown[-1].given) if shown else 0
        shown.append(ShownAnswer(tuple(given), before))
    return shown


def same_final_answers(shown: Sequence[ShownAnswer]) -> list[tuple[str, list[ShownAnswer]]]:
    """Groups of two or more answers with the same final answer. Each group is the final answer, in
    the words of the first, and the answers. Only a final answer that is stated as such or boxed
    counts, not any number in the text."""
    found: dict[Hashable, tuple[str, list[ShownAnswer]]] = {}
    for answer in shown:
        text = sanitize(answer.given[0].reply)
        said = (boxed(text) or stated(text) or "").strip(_MARKUP)
        if said and len(said) <= _LONGEST_FINAL:
            found.setdefault(answer_key(said), (said, []))[1].append(answer)
    return [(said, answers) for said, answers in found.values() if len(answers) > 1]


async def answers(
    arms: Sequence[Arm], item: Item, clients: Clients, limits: Limits, ended: Callable[[Turn], None]
) -> list[ArmAnswer]:
    """The answers of the arms, in their order. All arms are asked at once.

    ended: called as soon as an arm's turn has ended.
    """
    conversation = item.ask(Conversation(before=item.before), 0)

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

"""The kinds of judges by name."""

from __future__ import annotations

from collections.abc import Mapping

from moa_cli.bench.judge.arena import ARENA
from moa_cli.bench.judge.kinds import RATING, SKILLS, JudgeKind
from moa_cli.bench.judge.pairwise import BOTH_ORDERS, PAIRWISE
from moa_cli.bench.judge.rubric import RUBRIC
from moa_cli.bench.run.folder import JUDGE_FILE, JudgeReader
from moa_cli.core.errors import BenchError

KINDS: Mapping[str, JudgeKind] = {
    kind.name: kind for kind in (PAIRWISE, BOTH_ORDERS, RATING, SKILLS, ARENA, RUBRIC)
}
# Decimal places of an answer's worth. Rounding makes two games that contradict each other exactly a
# draw.
_DIGITS = 9
# The default kind for a user's own prompts.
OWN = PAIRWISE


def kind_of(judge: JudgeReader) -> JudgeKind:
    """The kind of a judge that has judged. Raises BenchError if its kind is not known."""
    name = judge.settings.kind
    if name not in KINDS:
        raise BenchError(
            f"{judge.path / JUDGE_FILE}: there is no kind of judge `{name}`",
            hint=f"there are {', '.join(KINDS)}",
        )
    return KINDS[name]


def worths_of(judge: JudgeReader) -> dict[tuple[str, str, int], float]:
    """What each answer is worth by that judge, by arm, item and turn. It is the mean of all games.

    Answers with a missing game are left out, because the other game would also measure the effect
    of the position."""
    kind = kind_of(judge)
    told: dict[tuple[str, str, int], list[float]] = {}
    for verdict in judge.judgements:
        value = kind.worth(verdict)
        if value is not None:
            name = verdict.arm, verdict.item, verdict.turn // kind.games
            told.setdefault(name, []).append(value)
    return {
        name: round(sum(values) / kind.games, _DIGITS) if kind.games > 1 else values[0]
        for name, values in told.items()
        if len(values) == kind.games
    }

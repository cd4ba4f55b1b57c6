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
# The kind for a user's own prompts.
OWN = PAIRWISE


def kind_of(judge: JudgeReader) -> JudgeKind:
    """The kind of a judge that has judged. Raises BenchError if there is none of its name."""
    name = judge.settings.kind
    if name not in KINDS:
        raise BenchError(
            f"{judge.path / JUDGE_FILE}: there is no kind of judge `{name}`",
            hint=f"there are {', '.join(KINDS)}",
        )
    return KINDS[name]

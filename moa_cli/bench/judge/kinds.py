"""The kinds of judges: by pairs (AlpacaEval 2), by ratings (MT-Bench), by skills (FLASK)."""

from __future__ import annotations

from collections.abc import Mapping

from moa_cli.bench.judge.kind import JudgeKind
from moa_cli.bench.judge.pairwise import PAIRWISE
from moa_cli.bench.judge.rating import RATING
from moa_cli.bench.judge.skills import SKILLS
from moa_cli.bench.run.reader import JUDGE_FILE, JudgeReader
from moa_cli.core.errors import BenchError

KINDS: Mapping[str, JudgeKind] = {kind.name: kind for kind in (PAIRWISE, RATING, SKILLS)}
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

"""The kinds of judges: by pairs (AlpacaEval 2), by ratings (MT-Bench), by skills (FLASK)."""

from __future__ import annotations

from collections.abc import Mapping

from moa_cli.bench.judge.kind import JudgeKind
from moa_cli.bench.judge.pairwise import PAIRWISE
from moa_cli.bench.judge.rating import RATING
from moa_cli.bench.judge.skills import SKILLS

KINDS: Mapping[str, JudgeKind] = {kind.name: kind for kind in (PAIRWISE, RATING, SKILLS)}
# The kind for a user's own prompts.
OWN = PAIRWISE

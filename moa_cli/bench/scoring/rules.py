"""The names of the graders. They are separate from the graders themselves, so that the help of
commands loads nothing else."""

from __future__ import annotations

from typing import Final

GRADERS: Final = ("auto", "exact", "number", "choice", "math")
# The group of entry points in which other packages register scorers.
SCORERS: Final = "moa.scorers"

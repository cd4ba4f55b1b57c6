"""The names of the graders, apart from what they load, for the help of commands."""

from __future__ import annotations

from typing import Final

GRADERS: Final = ("auto", "exact", "number", "choice", "math")
# The group of entry points under which other packages bring scorers.
SCORERS: Final = "moa.scorers"

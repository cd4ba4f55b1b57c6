"""The similarity of texts, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

# Only this many characters of a text are compared, because the time grows quadratically with them.
_LONGEST = 10_000


def levenshtein(text: str, other: str) -> float:
    """1 - edits / length of the longer text, edits counted in characters."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(text, other)


def mean_similarity(texts: Sequence[str]) -> float:
    """The mean of `levenshtein` over all pairs of texts, without regard to case and white space.

    Only the beginnings of long texts are compared. The result is 1 for fewer than two texts.
    """
    bare = [" ".join(text.casefold().split())[:_LONGEST] for text in texts]
    pairs = list(combinations(bare, 2))
    return sum(levenshtein(*pair) for pair in pairs) / len(pairs) if pairs else 1.0

"""How similar texts are, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

# Characters of a text that are compared: the time is quadratic in them.
_LONGEST = 10_000


def levenshtein(text: str, other: str) -> float:
    """1 - edits / length of the longer text, edits counted in characters."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(text, other)


def mean_similarity(texts: Sequence[str]) -> float:
    """The mean of `levenshtein` over all pairs of texts; case and white space make no difference.

    Of long texts, the beginnings are compared. 1 for fewer than two texts.
    """
    bare = [" ".join(text.casefold().split())[:_LONGEST] for text in texts]
    pairs = list(combinations(bare, 2))
    return sum(levenshtein(*pair) for pair in pairs) / len(pairs) if pairs else 1.0

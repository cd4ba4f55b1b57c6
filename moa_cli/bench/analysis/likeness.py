"""Several measures of likeness over the texts of a run, each pair measured once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from moa_cli.bench.analysis.similarity import TfIdf, bleu, has_bleu, levenshtein
from moa_cli.bench.scoring.means import Mean, mean_of

__all__ = ["BLEU", "LEVENSHTEIN", "TFIDF", "Likeness", "Measured", "means"]

BLEU: Final = "BLEU"
LEVENSHTEIN: Final = "Levenshtein"
TFIDF: Final = "TF-IDF"


@dataclass(frozen=True)
class Measured:
    """A mean of one measure. measure: BLEU, LEVENSHTEIN or TFIDF."""

    measure: str
    mean: Mean


class Likeness:
    """Likeness by all measures that can be had, 0 to 1.

    corpus: the texts that terms are weighed over. names: of the measures; BLEU is among them
    where sacrebleu is installed.
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        vectors = TfIdf(corpus)
        self._measures: dict[str, Callable[[str, str], float]] = {
            LEVENSHTEIN: levenshtein,
            TFIDF: vectors.cosine,
        }
        if has_bleu():
            self._measures = {BLEU: bleu, **self._measures}
        self.names = tuple(self._measures)
        self._known: dict[tuple[str, str], tuple[float, ...]] = {}

    def of(self, text: str, reference: str) -> tuple[float, ...]:
        """How alike they are, in the order of `names`."""
        pair = (text, reference)
        if pair not in self._known:
            self._known[pair] = tuple(one(*pair) for one in self._measures.values())
        return self._known[pair]

    def both_ways(self, one: str, other: str) -> tuple[float, ...]:
        """The mean of both directions; BLEU is not symmetric."""
        return tuple(
            (a + b) / 2 for a, b in zip(self.of(one, other), self.of(other, one), strict=True)
        )


def means(
    names: Sequence[str], rows: Sequence[Sequence[float]], groups: Sequence[Hashable]
) -> tuple[Measured, ...]:
    """The mean of each measure. rows: a value for each of `names`. groups: see `mean_of`."""
    return tuple(
        Measured(name, mean_of([row[place] for row in rows], groups=groups))
        for place, name in enumerate(names)
    )

"""How similar texts are, and rank correlation.

The measures and their settings are those of the published analysis of Mixture-of-Agents
(arXiv:2406.04692, section 3.3): BLEU, Levenshtein and the cosine of TF-IDF vectors, all 0 to 1.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations
from typing import Any, Final

from moa_cli.bench.data.json_lines import plain
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.answers.similarity import levenshtein
from moa_cli.core.errors import BenchError
from moa_cli.core.installation import install_command

BLEU: Final = "BLEU"
LEVENSHTEIN: Final = "Levenshtein"
TFIDF: Final = "TF-IDF"
_TERM = re.compile(r"\b\w\w+\b")


def bleu(text: str, reference: str) -> float:
    """The BLEU of `text` against one reference: sacrebleu's sentence score, divided by 100.

    It is not symmetric. Raises BenchError if sacrebleu is not installed.
    """
    return float(_sacrebleu().sentence_score(text, [reference]).score) / 100


def has_bleu() -> bool:
    """Whether `bleu` can be computed here."""
    try:
        _sacrebleu()
    except BenchError:
        return False
    return True


@cache
def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU as Metric
    except ImportError:
        command = install_command("bench")
        raise BenchError("BLEU needs sacrebleu", hint=f"install it with: {command}") from None
    return Metric(effective_order=True)


def pairwise(
    texts: Mapping[str, Sequence[str]],
    measure: Callable[[str, str], float],
    items: Sequence[str] | None = None,
) -> dict[str, Mean]:
    """How similar each model's texts are to those of the other models, averaged over both
    directions.

    texts: for each model its texts, in the same order for all. items: the item that each text
    belongs to, if an item has several texts. With a single model, its mean has no values.
    """
    alike: dict[str, list[tuple[float, Hashable]]] = {model: [] for model in texts}
    for pair in permutations(texts, 2):
        both = (texts[model] for model in pair)
        for place, (text, reference) in enumerate(zip(*both, strict=True)):
            value = measure(text, reference)
            for model in pair:
                alike[model].append((value, items[place] if items else place))
    return {model: grouped_mean(values) for model, values in alike.items()}


class TfIdf:
    """TF-IDF vectors of a corpus, as scikit-learn's `TfidfVectorizer()` makes them.

    Terms are words of two characters or more in lower case; idf = ln((1 + n) / (1 + df)) + 1;
    vectors have the length 1.
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        documents = 0
        frequency: Counter[str] = Counter()
        for text in corpus:
            documents += 1
            frequency.update(set(_terms(text)))
        self._idf = {
            term: math.log((1 + documents) / (1 + count)) + 1 for term, count in frequency.items()
        }

    def vector(self, text: str) -> dict[str, float]:
        """The weight of each term of `text`, without terms that are not in the corpus."""
        counts = Counter(term for term in _terms(text) if term in self._idf)
        weights = {term: count * self._idf[term] for term, count in counts.items()}
        length = math.sqrt(math.fsum(weight**2 for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()}

    def cosine(self, text: str, other: str) -> float:
        """The cosine of the two texts' vectors; 0 if one has no known term."""
        left, right = self.vector(text), self.vector(other)
        return math.fsum(weight * right.get(term, 0.0) for term, weight in left.items())


def _terms(text: str) -> list[str]:
    return _TERM.findall(text.lower())


# In JSON the field keeps its first name, `likeness`, so that the format does not change.
json_values = partial(plain, renamed={"similarity": "likeness"})


@dataclass(frozen=True)
class MeanSimilarity:
    """A mean of one measure. measure: BLEU, LEVENSHTEIN or TFIDF."""

    measure: str
    mean: Mean


class Similarity:
    """Similarity by all available measures, 0 to 1. corpus: the texts that give TF-IDF weights.
    names: of the measures; BLEU is among them if sacrebleu is installed.
    """

    def __init__(self, corpus: Iterable[str]) -> None:
        self._measures: dict[str, Callable[[str, str], float]] = {
            **({BLEU: bleu} if has_bleu() else {}),
            LEVENSHTEIN: levenshtein,
            TFIDF: TfIdf(corpus).cosine,
        }
        self.names = tuple(self._measures)
        self._known: dict[tuple[str, str], tuple[float, ...]] = {}

    def of(self, text: str, reference: str) -> tuple[float, ...]:
        """How similar they are, in the order of `names`."""
        pair = (text, reference)
        if pair not in self._known:
            self._known[pair] = tuple(measure(*pair) for measure in self._measures.values())
        return self._known[pair]

    def both_ways(self, left: str, right: str) -> tuple[float, ...]:
        """The mean of both directions, because BLEU is not symmetric."""
        return tuple(
            (a + b) / 2 for a, b in zip(self.of(left, right), self.of(right, left), strict=True)
        )

    def means(
        self, rows: Sequence[tuple[tuple[float, ...], Hashable]]
    ) -> tuple[MeanSimilarity, ...]:
        """The mean of each measure. rows: similarities, each with its group; see `grouped_mean`."""
        return tuple(
            MeanSimilarity(name, grouped_mean((alike[place], group) for alike, group in rows))
            for place, name in enumerate(self.names)
        )


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation, -1 to 1: Pearson's correlation of the ranks, where ties get the
    mean of their ranks. None if all values of one side are equal."""
    pairs = list(zip(_centred_ranks(left), _centred_ranks(right), strict=True))
    spread = math.sqrt(math.fsum(a * a for a, _ in pairs) * math.fsum(b * b for _, b in pairs))
    return max(-1.0, min(1.0, math.fsum(a * b for a, b in pairs) / spread)) if spread else None


def _centred_ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value minus the mean rank."""
    ranks: dict[float, float] = {}
    below = 0
    for value, count in sorted(Counter(values).items()):
        ranks[value] = below + (count + 1) / 2
        below += count
    middle = (len(values) + 1) / 2
    return [ranks[value] - middle for value in values]

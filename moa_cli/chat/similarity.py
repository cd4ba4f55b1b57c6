"""Measures how similar a reply and its proposals are. This does not prove a text's origin."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from moa_cli.core.strategy import Point

# A passage with fewer letters and digits is left out, because it is similar to any text.
_SHORTEST = 12
# From this similarity on, in percent, a passage and a point of a report count as the same
# statement.
_SIMILAR = 60.0
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])\s*")
_WORD = re.compile(r"\s+|\w+\s*|[^\w\s]\s*")
_LEADING_MARK = re.compile(r"^\s*(?:[-*+>]|\d+[.)]|#{1,6})\s+|\|")
_INNER_MARK = re.compile(r"[*_`]+")


@dataclass(frozen=True)
class PassageMatch:
    """A passage of a reply, and the texts that are most similar to it.

    indexes: the indexes of these texts; several if they are equally similar, none if no text is
    similar at all. percent: 0 to 100, the similarity to the most similar part of the text (the
    partial ratio of rapidfuzz).
    """

    passage: str
    indexes: tuple[int, ...]
    percent: float


def passages(text: str) -> list[str]:
    """The sentences, list items, headings and code lines of `text`, in order."""
    found = []
    fenced = False
    for line in text.split("\n"):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        parts = [line] if fenced else _SENTENCE_END.split(line)
        found += [part.strip() for part in parts if _letters(part) >= _SHORTEST]
    return found


def _letters(text: str) -> int:
    """The number of letters and digits. A letter of a wide script counts as two."""
    return sum(
        1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text if letter.isalnum()
    )


def _bare(text: str) -> str:
    """The text in lower case, without Markdown's marks, with single spaces."""
    lines = (_INNER_MARK.sub("", _LEADING_MARK.sub(" ", line)) for line in text.split("\n"))
    return " ".join(" ".join(lines).casefold().split())


def closest(reply: str, texts: Sequence[str]) -> list[PassageMatch]:
    """For each passage of `reply`, the texts that are most similar to it."""
    bare = [_bare(text) for text in texts]
    found = []
    for passage in passages(reply):
        wanted = _bare(passage)
        # If the text is shorter than the passage, the partial ratio would search the text in the
        # passage. So the plain ratio is used.
        scores = [
            fuzz.partial_ratio(wanted, candidate)
            if len(candidate) >= len(wanted)
            else fuzz.ratio(wanted, candidate)
            for candidate in bare
        ]
        percent = float(max(scores, default=0))
        best = tuple(index for index, score in enumerate(scores) if score == percent > 0)
        found.append(PassageMatch(passage, best, percent))
    return found


def nearest_points(found: Sequence[PassageMatch], points: Sequence[Point]) -> list[Point | None]:
    """For each passage, the most similar point of a report, by the words that they share; None if
    none is similar enough."""
    held = [(point, _bare(point.text)) for point in points if point.proposers]
    nearest: list[Point | None] = []
    for match in found:
        wanted = _bare(match.passage)
        scores = [(fuzz.token_set_ratio(wanted, text), point) for point, text in held]
        percent, point = max(scores, key=lambda scored: scored[0], default=(0.0, None))
        nearest.append(point if percent >= _SIMILAR else None)
    return nearest


def shares(found: Sequence[PassageMatch], count: int) -> list[float]:
    """For each of `count` texts, the share (0 to 1) of the reply that is most similar to it.

    Each passage counts by its letters and its similarity, and is divided among texts that are
    equally similar. The shares may add up to less than 1: the rest is similar to no text.
    """
    whole = sum(_letters(passage.passage) for passage in found)
    parts = [0.0] * count
    for closeness in found:
        for index in closeness.indexes:
            weight = closeness.percent / 100 / len(closeness.indexes)
            parts[index] += _letters(closeness.passage) * weight / whole
    return parts


def differences(left: str, right: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Compare two texts word by word, without regard to white space. Each text is returned in
    pieces. Each piece has a flag that tells whether the other text lacks it."""
    a, b = _WORD.findall(left), _WORD.findall(right)
    # Without spaces, which match everywhere, the comparison is 40 times as fast.
    bare_a, bare_b = ([word.strip() for word in words] for words in (a, b))
    matcher = difflib.SequenceMatcher(None, bare_a, bare_b, autojunk=False)
    changes = matcher.get_opcodes()
    lefts = [("".join(a[start:end]), kind != "equal") for kind, start, end, _, _ in changes]
    rights = [("".join(b[start:end]), kind != "equal") for kind, _, _, start, end in changes]
    return [piece for piece in lefts if piece[0]], [piece for piece in rights if piece[0]]

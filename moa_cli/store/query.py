"""Parses the query of a search, and finds its terms in texts.

A query consists of words and quoted phrases; only the quotes are syntax. A text may match each term
as a whole word, as another form or the beginning of a word, or inside a word (`MatchKind`).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, takewhile

from moa_cli.store.terms import LONGEST_KNOWN, Unit, folded, is_single, pairs, runs, units, varies

# These mark the hits in a snippet; sanitizing removes them from all other text.
_HIT, _HIT_END = "\x02", "\x03"
_QUOTES = str.maketrans("“”„‟", '""""')
_CHUNK = re.compile(r'"([^"]*)"|([^\s"]+)')
# Punctuation around and after a word, which is not part of the term.
_AROUND, _AFTER = "'‘’()[]{}<>«»", ".,;:!?…"
# A term needs at least this many characters to match the beginning of a word, or a part of one.
_SHORTEST_BEGINNING, _SHORTEST_PART = 2, 3
_VOWELS = frozenset("aeiouy")
# The length of a snippet in characters, and how many of them are before the first hit.
_SNIPPET, _BEFORE = 110, 40


class MatchKind(enum.IntEnum):
    """How a text matches a term, the best kind first.

    WHOLE: as a whole word. VARIANT: as another form or the beginning of a word. INSIDE: in a word.
    """

    WHOLE = 0
    VARIANT = 1
    INSIDE = 2


@dataclass(frozen=True)
class Span:
    """A hit in a text, from `start` to before `end`. term: the number of the term, from 0."""

    start: int
    end: int
    term: int


@dataclass(frozen=True)
class TextMatch:
    """How a text matches a query.

    met: how it matches each term; None for a term that it does not match. spans: the hits of the
    best kind of each term, in the order of the text.
    """

    met: tuple[MatchKind | None, ...]
    spans: tuple[Span, ...]

    @property
    def kind(self) -> MatchKind | None:
        """The worst kind among all terms; None if one of them does not match."""
        known = [kind for kind in self.met if kind is not None]
        return max(known) if known and len(known) == len(self.met) else None

    @property
    def merit(self) -> tuple[int, int]:
        """Greater for more terms that match, then for better kinds of match."""
        met = [kind for kind in self.met if kind is not None]
        return len(met), -sum(met)


@dataclass(frozen=True)
class Term:
    """A word or a phrase to search for.

    parts: its runs (see `store.terms`), folded. quoted: whether it has to match exactly. begun:
    whether the user is still typing it, so that its last word may be incomplete. literal: its full
    text, if this has more than the runs, such as punctuation.
    """

    parts: tuple[str, ...]
    quoted: bool = False
    begun: bool = False
    literal: str = ""

    @cached_property
    def word(self) -> str:
        """The word, if the term is a single one; else ""."""
        return self.parts[0] if len(self.parts) == 1 and not is_single(self.parts[0]) else ""

    @cached_property
    def forms(self) -> frozenset[str]:
        """The other forms of the word in English."""
        return frozenset() if self.quoted else _forms(self.word)

    @cached_property
    def part(self) -> str:
        """The text to search for inside words; "" if the term is not searched there."""
        return self.word if not self.quoted and len(self.word) >= _SHORTEST_PART else ""

    @cached_property
    def number(self) -> str:
        """The number that the phrase begins with, such as the 3 of `3.1`, which is searched for at
        the end of words, too (`v3.1`, `llama3.1`); "" if there is none."""
        first = "" if self.quoted or self.word else "".join(self.parts[:1])
        return first if first.isascii() and first.isdigit() else ""

    @cached_property
    def inside(self) -> str:
        """A GLOB pattern for the words that the term is searched for in; "" if there are none."""
        # SQLite refuses very long patterns.
        if self.number and len(self.number) < LONGEST_KNOWN:
            return f"*[^0-9]{self.number}"
        return f"?*{self.part}*" if 0 < len(self.part) < LONGEST_KNOWN else ""

    @cached_property
    def root(self) -> str:
        """A text that every folded text contains if it matches the term."""
        if self.word:
            # The common beginning of all forms: it is the one that the first and the last form in
            # alphabetical order share.
            words = sorted({self.word, *self.forms})
            same = takewhile(
                lambda pair: pair[0] == pair[1], zip(words[0], words[-1], strict=False)
            )
            return "".join(letter for letter, _ in same)
        return self.parts[0] if self.parts else self.literal

    @cached_property
    def _opens(self) -> bool:
        """Whether its last word may be the beginning of a longer one."""
        last = self.parts[-1]
        shortest = 1 if self.begun else _SHORTEST_BEGINNING
        return not self.quoted and not is_single(last) and len(last) >= shortest

    def expression(self, kind: MatchKind, inside: Sequence[str]) -> str:
        """The full-text query for the term. inside: the words that fit its `inside`."""
        terms: list[str] = []
        for part in self.parts:
            terms += pairs(part) if is_single(part) else [part]
        last = self.parts[-1]
        cut = is_single(last)
        if cut and len(last) > 1:
            # The last pair already contains the last character.
            del terms[-1]
        exact = f'"{" ".join(terms)}"' + (" *" if cut and len(last) == 1 else "")
        ways = [exact]
        if kind >= MatchKind.VARIANT:
            ways += [f'"{form}"' for form in sorted(self.forms)]
            ways += [f"{exact} *"] if self._opens else []
        if kind >= MatchKind.INSIDE:
            known = [*inside, f"v{self.number}"] if self.number else inside
            beginning = " *" if self.number and self._opens else ""
            ways += [f'"{" ".join([word, *terms[1:]])}"{beginning}' for word in known]
        return ways[0] if len(ways) == 1 else f"({' OR '.join(ways)})"

    @cached_property
    def matches(self) -> Callable[[str], MatchKind | None]:
        """A function that tells how a word of a text matches this word; None if it does not."""
        return cache(self._matches)

    def _matches(self, word: str) -> MatchKind | None:
        if word == self.word:
            return MatchKind.WHOLE
        if word in self.forms or (self._opens and word.startswith(self.word)):
            return MatchKind.VARIANT
        return MatchKind.INSIDE if self.part and self.part in word else None

    @cached_property
    def units(self) -> list[tuple[str, bool]]:
        """The words and single characters of the term, each with whether it directly follows the
        one before."""
        made: list[tuple[str, bool]] = []
        for part in self.parts:
            if is_single(part):
                made += [(character, place > 0) for place, character in enumerate(part)]
            else:
                made.append((part, False))
        return made

    def matches_at(self, place: int, text: Sequence[Unit]) -> MatchKind | None:
        """How the units of a text from `place` on match this phrase; None if they do not."""
        wanted = self.units
        found = text[place : place + len(wanted)]
        if len(found) < len(wanted) or any(
            joined and not unit.joined for unit, (_, joined) in zip(found, wanted, strict=True)
        ):
            return None
        if any(unit.text != said for unit, (said, _) in zip(found[1:-1], wanted[1:], strict=False)):
            return None
        last, said = found[-1].text, wanted[-1][0]
        if last != said and not (self._opens and last.startswith(said)):
            return None
        if len(wanted) > 1 and found[0].text != wanted[0][0]:
            return MatchKind.INSIDE if self._ends(found[0].text) else None
        return MatchKind.WHOLE if last == said else MatchKind.VARIANT

    def _ends(self, word: str) -> bool:
        """Whether a word ends with the number that this phrase begins with."""
        before = word.removesuffix(self.number)
        return before not in ("", word) and not "0" <= before[-1] <= "9"


@dataclass(frozen=True)
class Query:
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, text: str, *, begun: bool = False) -> Query:
        """Parse what a user typed. begun: whether they may still be typing the last word."""
        text = text.translate(_QUOTES)
        found: dict[tuple[tuple[str, ...], bool], Term] = {}
        for chunk in _CHUNK.finditer(text):
            quoted = chunk.group(1) is not None
            typed = folded(chunk.group(1) if quoted else chunk.group(2))
            parts = tuple(runs(typed))
            literal = " ".join(typed.split())
            if parts:
                literal = literal.strip(_AROUND).rstrip(_AFTER)
                literal = "" if literal in ("".join(parts), " ".join(parts)) else literal
            # A word that is followed by punctuation is complete.
            typed_on = begun and chunk.end() == len(text) and typed.endswith(parts[-1:])
            if parts or literal:
                key = (parts or (literal,), quoted)
                found.setdefault(key, Term(parts, quoted, typed_on, literal))
        terms = tuple(found.values())
        # Punctuation counts only if there are no words.
        return cls(tuple(term for term in terms if term.parts) or terms)

    @property
    def literals(self) -> list[str]:
        """The literals of terms that have more than their runs, such as punctuation."""
        return [term.literal for term in self.terms if term.literal]

    @property
    def is_signs(self) -> bool:
        """Whether all terms are punctuation, which is not in the index."""
        return not any(term.parts for term in self.terms)

    def expression(
        self,
        kind: MatchKind,
        inside: Mapping[str, Sequence[str]],
        left_out: frozenset[int] = frozenset(),
    ) -> str:
        """The full-text query for turns.

        kind: the worst kind of match allowed. inside: the words that fit the `inside` of a term, by
        that pattern. left_out: the numbers of terms to leave out.
        """
        return " AND ".join(
            term.expression(kind, inside.get(term.inside, ()))
            for place, term in enumerate(self.terms)
            if place not in left_out
        )

    def may_match(self, text: str, *, some: bool = False) -> bool:
        """Whether a text may match all terms, or with `some`, one of them. A fast check before
        `examine`."""
        wanted = any if some else all
        lower = text.lower()
        if wanted(term.root in lower for term in self.terms):
            return True
        return varies(text) and wanted(term.root in folded(text) for term in self.terms)

    def examine(self, text: str) -> TextMatch:
        content = units(text)
        met: list[MatchKind | None] = []
        spans: list[Span] = []
        for number, term in enumerate(self.terms):
            hits = self._hits(number, term, text, content)
            closest = min((kind for kind, _ in hits), default=None)
            met.append(closest)
            spans += [span for kind, span in hits if kind == closest]
        return TextMatch(tuple(met), tuple(sorted(spans, key=lambda span: span.start)))

    def _hits(
        self, number: int, term: Term, text: str, content: list[Unit]
    ) -> list[tuple[MatchKind, Span]]:
        if not term.parts:
            literals = re.finditer(re.escape(term.literal), text, re.IGNORECASE)
            return [(MatchKind.WHOLE, Span(*match.span(), number)) for match in literals]
        if term.word:
            return [
                (kind, Span(unit.start, unit.end, number))
                for unit in content
                if (kind := term.matches(unit.text)) is not None
            ]
        first, last = term.units[0][0], len(term.units) - 1
        return [
            (kind, Span(unit.start, content[place + last].end, number))
            for place, unit in enumerate(content)
            if unit.text.endswith(first) and (kind := term.matches_at(place, content)) is not None
        ]


def marked(text: str, spans: Sequence[Span]) -> str:
    """The part of a text with the most terms, with each hit between \\x02 and \\x03. Of a
    hit that is longer than a snippet, only the beginning counts."""
    spans = [Span(hit.start, min(hit.end, hit.start + _SNIPPET), hit.term) for hit in spans]
    text = text.translate({ord(_HIT): " ", ord(_HIT_END): " "})
    start, end = _window(text, spans)
    pieces, at = ["…" if start else ""], start
    for span in spans:
        if span.start < at or span.end > end:
            continue
        pieces += [text[at : span.start], _HIT, text[span.start : span.end], _HIT_END]
        at = span.end
    return "".join([*pieces, text[at:end], "…" if end < len(text) else ""])


def _window(text: str, spans: Sequence[Span]) -> tuple[int, int]:
    """Where the best snippet begins and ends; it is cut between words where possible."""
    best, start, count = 0, 0, len({span.term for span in spans})
    for place, span in enumerate(spans):
        terms = set()
        for near in islice(spans, place, None):
            if near.end > span.start + _SNIPPET - _BEFORE:
                break
            terms.add(near.term)
        if len(terms | {span.term}) > best:
            best, start = len(terms | {span.term}), span.start
        if best == count:
            break
    begin = max(0, start - _BEFORE)
    if begin:
        blank = text.find(" ", begin, start)
        begin = begin if blank < 0 else blank + 1
    first_end = next((span.end for span in spans if span.start >= start), start)
    end = max(begin + _SNIPPET, first_end)
    if end < len(text):
        blank = text.rfind(" ", first_end, end)
        end = end if blank < 0 else blank
    return begin, end


def _forms(word: str) -> frozenset[str]:
    """The forms of an English word, made by its endings. Some of them do not exist in English,
    which does no harm."""
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return frozenset()
    bases = {word, *_bases(word)}
    return frozenset(form for base in bases for form in (base, *_inflected(base))) - {word}


def _bases(word: str) -> set[str]:
    """The words that this word may be a form of."""
    found: set[str] = set()
    if word.endswith(("ies", "ied")) and len(word) > 4:
        found |= {word[:-3] + "y", word[:-1]}
    elif word.endswith("es"):
        found |= {word[:-2], word[:-1]}
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        found.add(word[:-1])
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word:
            found |= {stem, stem + "e"}
            if stem[-1:] == stem[-2:-1]:
                found.add(stem[:-1])
    return {base for base in found if len(base) > 2 and _VOWELS & set(base)}


def _inflected(base: str) -> set[str]:
    """The plural, the past tense and the other forms of a noun or verb."""
    if base.endswith("y") and base[-2:-1] not in _VOWELS:
        return {base[:-1] + "ies", base[:-1] + "ied", base + "ing"}
    if base.endswith("e"):
        return {base + "s", base + "d", base[:-1] + "ing"}
    found = {base + "s", base + "es", base + "ed", base + "ing"}
    if base[-1] not in _VOWELS and base[-2:-1] in _VOWELS:
        found |= {base + base[-1] + "ed", base + base[-1] + "ing"}
    return found

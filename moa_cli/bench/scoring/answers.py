"""Decides whether a reply is right, for items with a known right answer (the key).

Sources: GSM8K (Cobbe et al. 2021, arXiv:2110.14168), whose keys end in `#### number`; MATH
(Hendrycks et al. 2021, arXiv:2103.03874), whose keys contain `\\boxed{…}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from moa_cli.bench.scoring.rules import GRADERS, SCORERS
from moa_cli.core.answers.equality import (
    SENTENCE_END,
    boxed,
    final_number,
    last_hashes,
    plain_words,
    stated,
    value_of,
)
from moa_cli.core.answers.final import answer_key, final_answers
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import meant

_LETTER = re.compile(r"[(\[]?([A-J])(?:[)\].:](?:\s.*)?)?", re.DOTALL)
_OPTION = re.compile(r"\s{0,20}[(\[]?[A-Ja-j][)\].:]\s")
# Mathematics in Unicode, and the same in LaTeX, which math-verify reads.
_IN_LATEX = str.maketrans(
    {"π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "²": "^2", "³": "^3", "½": r"\frac12 "}
)
_MATHEMATICS = re.compile(r"\\[a-zA-Z{]|[\^$]")
_FRACTION = re.compile(r"\\|/")
_LONGEST_MATHEMATICS = 1000
_DELIMITERS = re.compile(r"(?<!\\)\$|\\[(\[]")
_FENCE = re.compile(r"^[ \t]*```.*\n?", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """Whether a reply is right.

    score: 1 is right, 0 is wrong; only the user's own scorers give values between. answer: the
    answer that was read in the reply; None if there is none.
    """

    score: float
    answer: str | None

    def __bool__(self) -> bool:
        """Whether the reply is completely right."""
        return self.score >= 1


# A function that decides whether a reply is right. Its arguments are the reply, the right answer as
# in the dataset, and the item's fields.
Grader = Callable[[str, str, Mapping[str, Any]], Verdict]


def grade_gsm8k(reply: str, key: str) -> Verdict:
    """Compare the last numbers of a reply and a key. key: the worked answer of the dataset.

    Raises BenchError if the key does not end in a number.
    """
    marked = last_hashes(key)
    expected = None if marked is None else final_number(marked)
    if expected is None:
        raise BenchError("an answer of the dataset does not end in `#### number`")
    return _number(reply, expected)


def grade_math(reply: str, key: str) -> Verdict:
    r"""Compare answers in mathematics. key: the worked solution, or only the answer.

    math-verify reads and compares the answers. If the reply marks no mathematics with `$`, `\(` or
    `\boxed`, the text after "the answer is", or else a last line with LaTeX, is also read as LaTeX.
    Raises BenchError if math-verify is not installed.
    """
    from moa_cli.bench.scoring.math_verifier import same_answer

    said = None
    if boxed(reply) is None and not _DELIMITERS.search(reply):
        last = (stated(reply) or _last_line(reply)).translate(_IN_LATEX)
        said = last if stated(reply) or _MATHEMATICS.search(last) else None
    expected = (boxed(key) or key).strip().strip("$")
    right, answer = same_answer(expected, reply, said)
    return Verdict(float(right), answer)


def _last_line(reply: str) -> str:
    return (reply.strip().splitlines() or [""])[-1]


def grade_exact(reply: str, answer: str) -> Verdict:
    r"""Compare words. answer: the right answer in the user's own data.

    A reply is right if one of these equals the answer: the whole reply, its last line, its last
    block of code, its `\boxed{…}`, the text after "the answer is", or the first sentence of that
    text. Case, surrounding white space and punctuation, and the letter of an option make no
    difference.
    """
    wanted = {plain_words(form) for form in _forms(answer)} - {""}
    after = stated(reply)
    sentence = None if after is None else SENTENCE_END.split(after, maxsplit=1)[0]
    code = [None, *_FENCE.split(reply)[1::2]][-1]
    texts = (boxed(reply), after, sentence, code, _last_line(reply), reply)
    said = [text for text in texts if text is not None]
    for text in said:
        for form in _forms(text):
            if plain_words(form) in wanted:
                return Verdict(1.0, form.strip())
    return Verdict(0.0, said[0].strip() or None)


def _forms(text: str) -> tuple[str, ...]:
    """A text and, if it begins with the letter of an option, the text without that letter."""
    letter = _OPTION.match(text)
    return (text,) if letter is None else (text, text[letter.end() :])


def grade_own(reply: str, answer: str) -> Verdict:
    """Compare by the form of the answer. answer: the right answer in the user's own data.

    Numbers are compared by value, the letter of an option as a letter, LaTeX as mathematics, and
    other text by `grade_exact`.
    """
    expected = value_of(answer)
    if expected is not None and not _FRACTION.search(answer):
        return _number(reply, expected)
    if _letter_of(answer):
        return _choice(reply, answer)
    if expected is not None or (
        len(answer) <= _LONGEST_MATHEMATICS and _MATHEMATICS.search(answer)
    ):
        return grade_math(reply, answer)
    return grade_exact(reply, answer)


def _number(reply: str, expected: Fraction) -> Verdict:
    found = final_number(reply)
    return Verdict(float(found == expected), None if found is None else str(found))


def _letter_of(answer: str) -> str | None:
    """The letter of the option that an answer names: `B`, `(B)`, `B) Paris`; None for any other."""
    found = _LETTER.fullmatch(answer[:1000].strip())
    return found[1] if found else None


def _choice(reply: str, answer: str) -> Verdict:
    letter = _letter_of(answer)
    if letter is None:
        raise BenchError(
            f"the answer {answer[:40]!r} is not the letter of an option",
            hint="--grader exact compares words",
        )
    [found] = final_answers([reply], "choice")
    return Verdict(float(found == letter), found)


def _by_number(reply: str, answer: str) -> Verdict:
    expected = final_number(answer)
    if expected is None:
        raise BenchError(
            f"the answer {answer[:40]!r} holds no number", hint="--grader exact compares words"
        )
    return _number(reply, expected)


_BY_NAME: Mapping[str, Callable[[str, str], Verdict]] = {
    "auto": grade_own,
    "exact": grade_exact,
    "number": _by_number,
    "choice": _choice,
    "math": grade_math,
}


@lru_cache
def grader_of(rule: str) -> Grader:
    """The grader that a rule names. Raises UsageError if there is none.

    rule: one of GRADERS; `regex:PATTERN` (compares the last match, or its first group);
    `json:FIELD` (compares a field of the JSON in the reply, by a dotted path); or the name of an
    entry point in the group `moa.scorers`. The entry point is called with the reply and the item's
    fields, and returns a bool or a number from 0 to 1.
    """
    if rule in _BY_NAME:
        grade = _BY_NAME[rule]
        return lambda reply, answer, fields: grade(reply, answer)
    kind, mark, wanted = rule.partition(":")
    if mark and kind in ("regex", "json"):
        if not wanted.strip():
            raise UsageError(f"--grader {kind}: names nothing to look for", hint=f"{kind}:…")
        if kind == "regex":
            _check_pattern(wanted)
        return lambda reply, answer, fields: _by_rule(reply, answer, rule)
    return _scorer(rule)


def _check_pattern(pattern: str) -> None:
    import regex

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise UsageError(f"--grader: not a valid regular expression: {error}") from None


def _by_rule(reply: str, answer: str, rule: str) -> Verdict:
    [found] = final_answers([reply], rule)
    right = found is not None and answer_key(found) == answer_key(answer)
    return Verdict(float(right), found)


def _scorer(name: str) -> Grader:
    """The grader that calls a scorer of another package."""
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=SCORERS)}
    if name not in found:
        known = [*GRADERS, "regex:PATTERN", "json:FIELD", *found]
        hint = meant(name, known, f"known: {', '.join(known)}")
        raise UsageError(f"there is no grader `{name}`", hint=hint)
    score = found[name].load()

    def grade(reply: str, answer: str, fields: Mapping[str, Any]) -> Verdict:
        told = score(reply, {**fields, "answer": answer})
        if not isinstance(told, int | float) or not 0 <= told <= 1:
            raise BenchError(
                f"the scorer `{name}` returned {told!r}: no bool or number from 0 to 1"
            )
        return Verdict(float(told), reply.strip()[:200] or None)

    return grade

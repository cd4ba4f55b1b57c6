"""Whether a reply gives the right answer, for data that has one.

Sources: GSM8K (Cobbe et al. 2021, arXiv:2110.14168), whose keys end in `#### number`; MATH
(Hendrycks et al. 2021, arXiv:2103.03874), whose keys hold a `\\boxed{…}`.
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
_MATHEMATICS = re.compile(r"\\[a-zA-Z]|[\^$]")
_FRACTION = re.compile(r"\\|/")
_LONGEST_MATHEMATICS = 1000
_DELIMITERS = re.compile(r"(?<!\\)\$|\\[(\[]")


@dataclass(frozen=True)
class Verdict:
    """Whether a reply is right.

    score: 1 is right, 0 is wrong; a scorer of one's own may tell what lies between. answer: what
    was read as the reply's answer; None if it has none.
    """

    score: float
    answer: str | None

    def __bool__(self) -> bool:
        """Whether it is wholly right."""
        return self.score >= 1


# What tells whether a reply is right. It is given the reply, the right answer as the data has it,
# and the item's fields.
Grader = Callable[[str, str, Mapping[str, Any]], Verdict]


def grade_gsm8k(reply: str, key: str) -> Verdict:
    """key: the worked answer of the data set. The reply's is its `final_number`.

    Raises BenchError if the key holds no number.
    """
    marked = last_hashes(key)
    expected = None if marked is None else final_number(marked)
    if expected is None:
        raise BenchError("an answer of the dataset does not end in `#### number`")
    return _number(reply, expected)


def grade_math(reply: str, key: str) -> Verdict:
    r"""key: the worked solution, or the answer alone.

    Answers are read and compared by math-verify. What a reply says "the answer is" is read as
    LaTeX also where it stands there without `$`, if the reply has no mathematics that is marked.

    Raises BenchError if math-verify is not installed.
    """
    from moa_cli.bench.scoring.math_verifier import same_answer

    marked = boxed(reply) is not None or _DELIMITERS.search(reply) is not None
    expected = (boxed(key) or key).strip().strip("$")
    right, answer = same_answer(expected, reply, None if marked else stated(reply))
    return Verdict(float(right), answer)


def grade_exact(reply: str, answer: str) -> Verdict:
    r"""answer: the right one, of the user's own data.

    A reply is right if one of these is the answer, without regard to case, surrounding white space
    and punctuation, and the letter of an option: the whole reply, its last line, its `\boxed{…}`,
    or what it says "the answer is".
    """
    wanted = {plain_words(form) for form in _forms(answer)} - {""}
    last_line = (reply.strip().splitlines() or [""])[-1]
    said = [text for text in (boxed(reply), stated(reply), last_line, reply) if text is not None]
    for text in said:
        for form in _forms(text):
            if plain_words(form) in wanted:
                return Verdict(1.0, form.strip())
    return Verdict(0.0, said[0].strip() or None)


def _forms(text: str) -> tuple[str, ...]:
    """A text, and the same without the letter of an option before it."""
    letter = _OPTION.match(text)
    return (text,) if letter is None else (text, text[letter.end() :])


def grade_own(reply: str, answer: str) -> Verdict:
    """answer: the right one, of the user's own data; its form tells how it is compared.

    A number is compared by value, the letter of an option as such, LaTeX as mathematics, and words
    as `grade_exact` says.
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
    """The grader of that name. Raises UsageError if there is none.

    rule: one of GRADERS; `regex:PATTERN` (the last match, or its first group), `json:FIELD` (a
    field of the JSON in the reply, by a dotted path); or the name of an entry point in the group
    `moa.scorers`, which is called with the reply and the item's fields, and returns a bool or a
    number from 0 to 1.
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
        raise UsageError(f"--grader: the pattern is none: {error}") from None


def _by_rule(reply: str, answer: str, rule: str) -> Verdict:
    [found] = final_answers([reply], rule)
    right = found is not None and answer_key(found) == answer_key(answer)
    return Verdict(float(right), found)


def _scorer(name: str) -> Grader:
    """A scorer that another package brings."""
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

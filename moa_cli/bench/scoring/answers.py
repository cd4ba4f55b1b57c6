r"""Whether a reply gives the right answer, for data that has one, and accuracy.

Sources: GSM8K (Cobbe et al. 2021, arXiv:2110.14168), whose keys end in `#### number`; MATH
(Hendrycks et al. 2021, arXiv:2103.03874), whose keys hold a `\boxed{…}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from moa_cli.bench.scoring.latex import boxed, equal, value_of
from moa_cli.bench.scoring.means import Mean, proportion_of
from moa_cli.core.errors import BenchError

# No answer is longer, and Python refuses to read numbers of more than 4300 digits.
_LONGEST: Final = 1000
# A sign belongs to the number or its currency; not where it stands between two numbers.
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^])(?:(?<![)\]}])-)?(?:[$€£¥]\s*-?)?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"|(?<![A-Za-z0-9_.^)\]}])-?\.[0-9]+"
)
_EXPONENT = re.compile(r"\^\{?-?[0-9]+\}?")
_GROUP_GAP = re.compile("(?<=[0-9])(?:\\{,\\}|\\\\,|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_STATED = re.compile(r"\banswer(?:\s+is\b|\s*[:=])[ \t:*=]*", re.IGNORECASE)
_HOPE = re.compile(r"\.?\s*I hope it is correct\.?\s*$", re.IGNORECASE)
_LEADING_MATH = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)")
_AROUND: Final = " \t\r\n\"'`*_.,:;!“”‘’"


@dataclass(frozen=True)
class Grade:
    """Whether a reply is right. found: the answer that was read in it, None if there was none."""

    right: bool
    found: str | None


@dataclass(frozen=True)
class Accuracy:
    """share: of right replies, 0 to 1. unanswered: replies in which no answer was found.

    Those count as wrong.
    """

    share: Mean
    right: int
    unanswered: int


def accuracy(grades: Iterable[Grade]) -> Accuracy:
    """The share of right replies, with the binomial standard error."""
    told = list(grades)
    return Accuracy(
        share=proportion_of(grade.right for grade in told),
        right=sum(grade.right for grade in told),
        unanswered=sum(grade.found is None for grade in told),
    )


def grade_gsm8k(reply: str, key: str) -> Grade:
    """key: the worked answer of the data set. The reply's is its `final_number`.

    Raises BenchError if the key holds no number.
    """
    hashes = _HASHES.findall(key)
    expected = final_number(hashes[-1]) if hashes else None
    if expected is None:
        raise BenchError("an answer of the dataset does not end in `#### number`")
    found = final_number(reply)
    return Grade(found == expected, None if found is None else str(found))


def grade_math(reply: str, key: str) -> Grade:
    r"""key: the worked solution, or the answer alone.

    The reply's answer is its last `\boxed{…}`, else what it says "the answer is", else its last
    number.
    """
    number = final_number(reply)
    found = boxed(reply) or _stated(reply) or (None if number is None else str(number))
    expected = boxed(key) or key
    return Grade(found is not None and equal(found, expected), found)


def grade_exact(reply: str, answer: str) -> Grade:
    r"""answer: the right one, of the user's own data.

    Right are, but for case, white space and punctuation around: the whole reply, its last line,
    its `\boxed{…}`, or what it says "the answer is". An answer that is a number is compared with
    the reply's `final_number`.
    """
    expected = value_of(answer)
    if expected is not None:
        found = final_number(reply)
        return Grade(found == expected, None if found is None else str(found))
    lines = reply.strip().splitlines()
    said = (boxed(reply), _stated(reply), lines[-1] if lines else None, reply)
    candidates = [text for text in said if text is not None and _plain(text)]
    for candidate in candidates:
        if _plain(candidate) == _plain(answer):
            return Grade(True, candidate)
    return Grade(False, candidates[0] if candidates else None)


def final_number(text: str) -> Fraction | None:
    r"""The number that a reply ends in: of its last `\boxed{…}` or `####`, else the last one.

    Read are signs, thousands separators, decimals, and numbers with a currency, a unit, or a
    full stop. Exponents and numbers inside a word are none.
    """
    marked = boxed(text)
    if marked is not None and value_of(marked) is not None:
        return value_of(marked)
    hashes = _HASHES.findall(text)
    for part in (marked, hashes[-1] if hashes else None, text):
        numbers = _numbers(part) if part else []
        if numbers:
            return numbers[-1]
    return None


def _numbers(text: str) -> list[Fraction]:
    plain = _GROUP_GAP.sub("", text.replace("−", "-").replace("\\$", "$"))
    found = _NUMBER.findall(_EXPONENT.sub(" ", plain))
    return [
        Fraction(re.sub(r"[^-0-9.]", "", number)) for number in found if len(number) <= _LONGEST
    ]


def _stated(reply: str) -> str | None:
    """What the reply says "the answer is", the last time that it says so."""
    heads = list(_STATED.finditer(reply))
    if not heads:
        return None
    # Cut first: the patterns take time quadratic in what they are given.
    tail = _HOPE.sub("", reply[heads[-1].end() :][:_LONGEST].split("\n", 1)[0])
    math = _LEADING_MATH.match(tail)
    return (math[1] or math[2] if math else tail).strip().rstrip(".") or None


def _plain(text: str) -> str:
    return " ".join(text.strip(_AROUND).casefold().split())

"""Whether a reply gives the right answer, for data that has one.

Sources: GSM8K (Cobbe et al. 2021, arXiv:2110.14168), whose keys end in `#### number`; MATH
(Hendrycks et al. 2021, arXiv:2103.03874), whose keys hold a `\\boxed{…}`.
"""

from __future__ import annotations

from moa_cli.core.answers import (
    boxed,
    equal,
    final_number,
    last_hashes,
    plain_words,
    stated,
    value_of,
)
from moa_cli.core.errors import BenchError


def grade_gsm8k(reply: str, key: str) -> bool:
    """key: the worked answer of the data set. The reply's is its `final_number`.

    Raises BenchError if the key holds no number.
    """
    marked = last_hashes(key)
    expected = None if marked is None else final_number(marked)
    if expected is None:
        raise BenchError("an answer of the dataset does not end in `#### number`")
    return final_number(reply) == expected


def grade_math(reply: str, key: str) -> bool:
    r"""key: the worked solution, or the answer alone.

    The reply's answer is its last `\boxed{…}`, else what it says "the answer is", else its last
    number.
    """
    number = final_number(reply)
    found = boxed(reply) or stated(reply) or (None if number is None else str(number))
    return found is not None and equal(found, boxed(key) or key)


def grade_exact(reply: str, answer: str) -> bool:
    r"""answer: the right one, of the user's own data.

    Right are, but for case, white space and punctuation around: the whole reply, its last line,
    its `\boxed{…}`, or what it says "the answer is". An answer that is a number is compared with
    the reply's `final_number`.
    """
    expected = value_of(answer)
    if expected is not None:
        return final_number(reply) == expected
    wanted = plain_words(answer)
    last_line = (reply.strip().splitlines() or [""])[-1]
    said = (boxed(reply), stated(reply), last_line, reply)
    return bool(wanted) and any(plain_words(text) == wanted for text in said if text is not None)

r"""Reads the final answer of a text by a rule, and tells which answers are the same.

The rules:

- `number`: the number that is the final answer, see `equality.final_number`.
- `choice`: a letter, A to J.
- `boxed`: the content of the last `\boxed{…}`.
- `text`: no final answer is read.
- `json:FIELD`: a field of the JSON in the text, by a dotted path.
- `regex:PATTERN`: the last match, or the first group of it if the pattern has groups.
- `auto`: the first of these that the text has: the content of a box; the number after the last
  `####`; the text after "the answer is"; the whole text if it is only a choice, yes, no, true or
  false; the last number of the last two lines, without the numbers of list items.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Hashable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, Final

from moa_cli.core.answers.equality import (
    ANSWER_IS,
    LEADING_MATH,
    SENTENCE_END,
    boxed,
    final_number,
    last_hashes,
    last_number,
    normalised,
    numbers_in,
    plain_words,
    value_of,
)
from moa_cli.core.sanitize import sanitize

# Only this many characters at the end of a text are searched; a longer answer is no final answer.
_LONGEST_TEXT, _LONGEST_ANSWER = 200_000, 200
# Seconds that a pattern may take for all texts together. It may come from a stranger, so a slow one
# must not block the process.
_PATTERN_SECONDS = 0.5
# The most words of an answer that is neither a number nor a choice. A longer one is prose.
_MOST_WORDS = 6
# The most places of a text at which JSON is looked for.
_MOST_OBJECTS = 50

_STATED = re.compile(
    r"(?:\b(answer|result|option|choice)\b[*_\"'”’]*"
    r"(?:[ \t]+(?:is|was|would[ \t]+be|must[ \t]+be|should[ \t]+be)\b|[ \t]*[:=])"
    rf"|{ANSWER_IS})[ \t:：*=_]*\n?",
    re.IGNORECASE,
)
# A letter that is an answer: it is in brackets, or is followed by something that does not follow a
# word such as "A" or "I".
_CHOICE = re.compile(
    r"[\s*_\"'“‘`]*(?:(?i:option|choice)[ \t]+)?(?:[(\[]([A-Ja-j])[)\]]"
    r"|([A-Ja-j])(?=\))|([A-J])(?=[\s*_\"'”’`]*(?:$|[\n).,:;\]])|[ \t]+(?:because|since)\b))"
)
_BARE_CHOICE = re.compile(r"[\s*_\"'“”‘’`(\[]*([A-Ja-j])[\s*_\"'“”‘’`)\].:]*")
_IN_BRACKETS = re.compile(r"(?<![\w)])[(\[]([A-Ja-j])[)\]]")
# A and I are left out, because they are words, unless they follow a script without spaces between
# words: Chinese, Japanese, Korean.
_EAST = "\u2e80-\ud7ff"
_LONE_LETTER = re.compile(
    rf"(?:(?<![^\W{_EAST}])(?<!['’.])[B-HJ]|(?<=[{_EAST}\uff1a])[AI])(?![^\W{_EAST}]|['’])"
)
_YES_NO = re.compile(r"\W*(yes|no|true|false)\W*", re.IGNORECASE)
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*+>#]+[ \t]*)?\d{1,3}[.)][ \t]+(?=\S)", re.MULTILINE)
_STARTS_WITH_NUMBER = re.compile(r"[\s*_`]*(?:[A-Za-z]\s*=\s*)?[-−+]?\s*[$€£¥]?\s*-?\.?\d")
_FENCED_JSON = re.compile(r"```[ \t]*(?:json[ \t]*)?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_QUOTES: Final = " \t\r\n\"'`*_“”‘’"


def final_answers(texts: Sequence[str], rule: str) -> list[str | None]:
    """The final answer of each text, in the text's own words, or a number in digits; None where no
    answer can be read. rule: see the top of this file.

    Control sequences are removed first. For example, the sequence `ESC [ 1 m` contains a number
    that is no answer.
    """
    kind, _, wanted = rule.partition(":")
    texts = list(map(sanitize, texts))
    searched = [text[-_LONGEST_TEXT:] for text in texts]
    if kind == "regex":
        return _matches(searched, wanted)
    if kind == "json":
        path = wanted.strip().split(".")
        return [_shortened(_field(text, path)) for text in texts]
    read = {"number": _number, "choice": _choice, "boxed": boxed, "auto": _any}.get(kind)
    return [None if read is None else _shortened(read(text)) for text in searched]


def answer_key(answer: str) -> Hashable:
    """A key that is equal for answers that are the same.

    Numbers and fractions are the same if their values are equal. Choices are compared without
    brackets and case. Other answers are compared in the spelling of `normalised`, without case,
    extra white space, and punctuation around them.
    """
    bare = answer.strip(_QUOTES)
    value = value_of(bare)
    if value is not None:
        return value
    plain = normalised(bare)
    letter = _BARE_CHOICE.fullmatch(plain)
    if letter:
        return letter[1].upper()
    return plain_words(bare if " " in bare else plain)


def _shortened(answer: str | None) -> str | None:
    """The answer without white space around it; None if it is empty, or too long for an answer."""
    answer = None if answer is None else answer.strip()
    return answer if answer and len(answer) <= _LONGEST_ANSWER else None


def _any(text: str) -> str | None:
    found = boxed(text) or _behind_hashes(text) or _stated(text)
    if found:
        return found
    alone = _BARE_CHOICE.fullmatch(text) or _YES_NO.fullmatch(text)
    if alone:
        return alone[1]
    lines = [line for line in text.splitlines() if any(map(str.isalnum, line))][-2:]
    last = last_number(_LIST_MARK.sub("", "\n".join(lines)))
    return None if last is None else _in_digits(last)


def _behind_hashes(text: str) -> str | None:
    """The number after the last `####`, as GSM8K writes it; None if `####` begins a heading."""
    said = last_hashes(text) or ""
    value = value_of(said)
    if value is not None:
        return _in_digits(value)
    if not _STARTS_WITH_NUMBER.match(said) or _LIST_MARK.match(said):
        return None
    numbers = numbers_in(said)
    return _in_digits(numbers[0]) if numbers else None


def _number(text: str) -> str | None:
    found = final_number(text)
    return None if found is None else _in_digits(found)


def _choice(text: str) -> str | None:
    last_line = (text.strip().splitlines() or [""])[-1]
    for said in (boxed(text), _stated(text), text, last_line):
        letter = said and (_BARE_CHOICE.fullmatch(said) or _CHOICE.match(said))
        if letter:
            return str(next(filter(None, letter.groups()))).upper()
    letters = _IN_BRACKETS.findall(text) or _LONE_LETTER.findall(text)
    return letters[-1].upper() if letters else None


def _stated(text: str) -> str | None:
    """The last answer that a text states, as in "the answer is 4" or "result: 4"; None without
    one."""
    for head in reversed(list(_STATED.finditer(text))):
        tail = text[head.end() :][: 2 * _LONGEST_ANSWER].split("\n", 1)[0]
        found = _told(tail, words=head[1] is None or head[1].lower() == "answer")
        if found:
            return found
    return None


def _told(tail: str, *, words: bool) -> str | None:
    """The answer at the beginning of the rest of a line; None if there is none.

    words: whether a few words also count as an answer.
    """
    letter = _CHOICE.match(tail)
    if letter:
        return str(next(filter(None, letter.groups())))
    math = LEADING_MATH.match(tail.lstrip(_QUOTES))
    if math:
        return str(math[1] or math[2]).strip()
    end = SENTENCE_END.search(tail)
    said = (tail[: end.start()] if end else tail).strip(_QUOTES)
    # Of a calculation, such as "6 * 7 = 42", the result.
    for part in (said, said.rpartition("=")[2]):
        if value_of(part) is not None:
            return part.strip()
    numbers = numbers_in(said)
    if numbers:
        return _in_digits(numbers[0] if _STARTS_WITH_NUMBER.match(said) else numbers[-1])
    return said if words and len(said.split()) <= _MOST_WORDS else None


def _in_digits(number: Fraction) -> str:
    """A number as a text: `42`, `0.5`; a fraction if it has no short decimal form."""
    if number.denominator == 1:
        return str(number.numerator)
    rest = number.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    places = number.denominator.bit_length()
    if rest > 1 or places > 30:
        return f"{number.numerator}/{number.denominator}"
    digits = f"{abs(number.numerator) * 10**places // number.denominator:0{places + 1}d}"
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}".rstrip("0")


def _matches(texts: Sequence[str], pattern: str) -> list[str | None]:
    """The last match of a pattern in each text, or None. If a text takes too long, it and all later
    ones have None."""
    import regex

    found: list[str | None] = []
    end = time.monotonic() + _PATTERN_SECONDS
    try:
        compiled = regex.compile(pattern)
        for text in texts:
            last = None
            for match in compiled.finditer(text, timeout=max(0.001, end - time.monotonic())):
                last = match
                if time.monotonic() > end:
                    raise TimeoutError
            said = None if last is None else last[1 if compiled.groups else 0]
            found.append(_shortened(said))
    except (TimeoutError, regex.error, RecursionError, OverflowError, MemoryError):
        found += [None] * (len(texts) - len(found))
    return found


def _field(text: str, path: Sequence[str]) -> str | None:
    """The value at a path, in the first JSON value of `_json_in` that has this path; None without
    one."""
    for value in _json_in(text):
        for name in path:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, list) and name.isdecimal() and len(name) < 7:
                value = value[int(name)] if int(name) < len(value) else None
            else:
                value = None
        if isinstance(value, str):
            return value
        if value is not None:
            return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return None


def _json_in(text: str) -> Iterator[Any]:
    """The JSON values in a text: the whole text if it is JSON, then its fenced blocks from the last
    to the first, then its objects from the last to the first."""
    decoder = json.JSONDecoder(strict=False)
    for candidate in (text, *reversed(_FENCED_JSON.findall(text)[-_MOST_OBJECTS:])):
        try:
            yield decoder.decode(candidate.strip())
        except (ValueError, RecursionError):
            continue
    found: list[Any] = []
    end = 0
    for brace in islice(re.finditer(r"\{", text), _MOST_OBJECTS):
        if brace.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, brace.start())
            found.append(value)
        except (ValueError, RecursionError):
            continue
    yield from reversed(found)

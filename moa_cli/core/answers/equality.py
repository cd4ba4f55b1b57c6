"""Final answers with a value: where they stand in a text, and whether two are the same.

Answers in LaTeX are compared after a light normalisation, as is usual for MATH (Hendrycks et al.
2021, arXiv:2103.03874) and in Minerva (Lewkowycz et al. 2022, arXiv:2206.14858, appendix D). It
unifies spellings of one value, but does no algebra.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Final

# Longer texts, in characters, are no answers. Also, Python refuses to read numbers of more than
# 4300 digits.
_LONGEST: Final = 1000
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BOXED_WORD = re.compile(r"\\boxed\s+([^\s$\\{}]+)")
_WORD = r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf)\s*\{([^{}]*)\}"

# Patterns and replacements that unify spellings. They are applied in this order.
_SPELLINGS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[!,;: ]|~", " "),
        (r"\\[()\[\]]|\\?[$%]", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degrees?(?![A-Za-z])|°", ""),
        (r"\\(le|ge|ne)q(?![A-Za-z])", r"\\\1"),
        # Units at the end: LaTeX text after anything, or plain words after a value.
        (rf"(?<=\S)\s*{_WORD}(?:\s*\^\s*(?:[0-9]|\{{[0-9]\}}))?\s*\.?\s*$", ""),
        (r"(?<=[0-9}])\s+[A-Za-z]{2,}(?:\s+[A-Za-z]+)*\s*\.?\s*$", ""),
        (_WORD, r"\1"),
        # Not between two numbers, as in "3 1/2".
        (r"(?<![0-9])\s+|\s+(?![0-9])|(?<=[0-9])\s+(?=[0-9]{3}(?![0-9]))", ""),
        (r"\.$", ""),
        (r"^[A-Za-z]{1,2}=", ""),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
        (r"(?<=[0-9])\{,\}(?=[0-9]{3})", ""),
        (r"\\frac([0-9])([0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac([0-9])(?=\{)", r"\\frac{\1}"),
        (r"(\\frac\{[^{}]*\})([0-9])", r"\1{\2}"),
        (r"\\sqrt([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"([\^_])\{([0-9A-Za-z])\}", r"\1\2"),
        (r"^(-?)([0-9]+)/([0-9]+)$", r"\1\\frac{\2}{\3}"),
    )
)
# A digit of another script, such as Arabic or Bengali, or a wide one.
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_POWER_OF_TEN = re.compile("(?<![\\w.])10([⁺⁻]?[⁰¹²³⁴-⁹]{1,3})")
_RAISED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_MINUS = str.maketrans("−–", "--")
# With dots between groups of digits; if there is only one dot, it may be a decimal point.
_DOTTED = re.compile(
    r"(?<![\w.,])[0-9]{1,3}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})(?![.,]?[0-9])"
)
# A number with an exponent: `1.5e3`, `1.5 \times 10^{3}`, or `2^10`.
_POWER = re.compile(
    r"(?<![\w.^])([0-9]{1,20}(?:\.[0-9]{1,20})?)"
    r"(?:[eE]([-+]?[0-9]{1,3})(?![\w^])"
    r"|(\s*(?:[×x·*]|\\times|\\cdot)\s*10)?\s?\^\s?"
    r"(?:\{\s*([-+]?[0-9]{1,3})\s*\}|([-+]?[0-9]{1,3})(?![0-9^]|\.[0-9])))"
)
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]+)?")
_DECIMAL = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?")
_FRACTION = re.compile(r"([-+]?)\\frac\{([-+]?[0-9]+)\}\{([0-9]+)\}")


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` of `text`, with its braces balanced; None if there is
    no box."""
    last = (-1, "")
    opened: list[tuple[bool, int, int]] = []
    for token in _BRACES.finditer(text):
        if token[0].endswith("{") and token[0] != r"\{":
            opened.append((len(token[0]) > 1, token.start(), token.end()))
        elif token[0] == "}" and opened:
            is_box, start, inner = opened.pop()
            if is_box and start > last[0]:
                last = (start, text[inner : token.start()])
    if last[0] >= 0:
        return last[1].strip() or None
    words = _BOXED_WORD.findall(text)
    return words[-1] if words else None


def normalised(text: str) -> str:
    """`text` in the unified spelling that is used to compare answers."""
    if len(text) > _LONGEST:
        return text
    text = _with_plain_numbers(text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _with_plain_numbers(text: str) -> str:
    """The text with its numbers in ASCII digits, and without powers."""
    text = _OTHER_DIGIT.sub(lambda digit: str(int(digit[0])), text.translate(_MINUS))
    text = _VULGAR_FRACTION.sub(
        lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\u2044", "/"), text
    )
    text = _POWER_OF_TEN.sub(lambda found: "10^" + found[1].translate(_RAISED), text)
    text = _DOTTED.sub(lambda found: found[0].replace(".", "").replace(",", "."), text)
    return _POWER.sub(_calculated, text)


def _calculated(power: re.Match[str]) -> str:
    """A power as a whole number or a fraction; unchanged if that would be too long."""
    number, after_e, times_ten, *after_sign = power.groups()
    exponent = int(after_e or after_sign[0] or after_sign[1])
    base = Fraction(10 if after_e or times_ten else number)
    if not base or base.numerator.bit_length() * abs(exponent) > _LONGEST:
        return power[0]
    value = base**exponent * (Fraction(number) if after_e or times_ten else 1)
    return str(value)


def value_of(text: str) -> Fraction | None:
    """The value of a text that is a number or a fraction; None for any other."""
    plain = normalised(text)
    if len(plain) > _LONGEST:
        return None
    if _DECIMAL.fullmatch(plain):
        return Fraction(plain)
    parts = _FRACTION.fullmatch(plain)
    if parts is None or not int(parts[3]):
        return None
    value = Fraction(int(parts[2]), int(parts[3]))
    return -value if parts[1] == "-" else value


def equal(answer: str, other: str) -> bool:
    """Whether two answers are the same value, or the same text when `normalised`."""
    values = value_of(answer), value_of(other)
    if values[0] is not None and values[1] is not None:
        return values[0] == values[1]
    return normalised(answer) == normalised(other)


# A minus sign belongs to the number, or to the currency before it, but not if it stands between two
# numbers. Groups of two digits are Indian.
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.^])(?:(?<![)\]}])-)?(?:[$€£¥₹]\s*-?)?"
    r"(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"|(?<![A-Za-z0-9_.^)\]}])-?\.[0-9]+"
)
# A fraction may follow a whole number: `2 1/2`. A date (`1/2/2023`) is none.
_FRACTION_OR_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.,^/])((?<![)\]}])-)?(?:[$€£¥]\s*)?"
    r"(?:([0-9]+)[ \u00a0]+)?([0-9]+)\s?/\s?(0*[1-9][0-9]*)(?![0-9]|[.,/][0-9])"
    rf"|({_NUMBER.pattern})"
)
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac" + 2 * r"\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))")
# In brackets behind a result, how it came about: `$70,000 (200,000 - 130,000).`
_BRACKETS_AT_END = re.compile(r"(?<=\s)\(([^()\n]{0,200})\)[\s.!*]*$")
_OPERATOR = re.compile("[-+*/×÷=−]")
_EXPONENT = re.compile(r"\^\{?-?[0-9]+\}?")
_GROUP_GAP = re.compile("(?<=[0-9])(?:\\{,\\}|\\\\,|[\u00a0\u2009\u202f'’])(?=[0-9]{3}(?![0-9]))")
# A decimal comma. In brackets it may part two numbers.
_COMMA = re.compile(
    r"(?<![\w.,(\[{])(?<![(\[{]-)([0-9]+),([0-9]{1,2}|[0-9]{4,})(?![.,]?[0-9]|\s*[)\]}])"
)
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
# "The answer is" in other languages.
ANSWER_IS: Final = (
    r"(?:\b(?:antwort|respuesta|r[ée]ponse|resposta|risposta|ответ)"
    r"(?:\s+(?:ist|lautet|es|est|é|è)\b|\s*[:=])|答案\s*(?:是|为|為|[:：=])|答えは|정답은)"
)
_STATED = re.compile(rf"(?:\banswer(?:\s+is\b|\s*[:=])|{ANSWER_IS})[ \t:：*=]*", re.IGNORECASE)
_TAG = re.compile(r"</?answer>", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|[。！？；]")
_HOPE = re.compile(r"\.?\s*I hope it is correct\.?\s*$", re.IGNORECASE)
LEADING_MATH = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)")
_AROUND: Final = " \t\r\n\"'`*_.,:;!?“”‘’«»¿¡。，、：；！？「」『』《》"


def final_number(text: str) -> Fraction | None:
    r"""The number that is the final answer of a text; None if there is none.

    It is the number in the last `\boxed{…}`, or after the last `####`; else the number after "the
    answer is"; else the last number, which a calculation in brackets may follow. A number may have
    a sign, thousands separators, decimals, an exponent, a currency, a unit, or a full stop, and may
    be a fraction. Exponents of units and numbers inside a word do not count.
    """
    for part in (boxed(text), last_hashes(text)):
        if part and (value := value_of(part)) is not None:
            return value
        numbers = numbers_in(part) if part else []
        if numbers:
            return numbers[-1]
    said = _stated_number(text)
    return last_number(text) if said is None else said


def last_number(text: str) -> Fraction | None:
    """The last number of a text, without a calculation in brackets behind it; None without one."""
    numbers = numbers_in(text)
    behind = _BRACKETS_AT_END.search(text)
    if behind and _OPERATOR.search(behind[1]):
        numbers = numbers_in(text[: behind.start()]) or numbers
    return numbers[-1] if numbers else None


def _stated_number(text: str) -> Fraction | None:
    """The number after "the answer is": the first one in the sentence, or the one after its last
    equals sign."""
    said = stated(text)
    if said is None:
        return None
    sentence = SENTENCE_END.split(said, maxsplit=1)[0]
    before, equals, result = sentence.rpartition("=")
    for part in (result, before) if equals else (sentence,):
        value = value_of(part)
        if value is not None:
            return value
        numbers = numbers_in(part)
        if numbers:
            return numbers[0]
    return None


def last_hashes(text: str) -> str | None:
    """The rest of the line after the last `####` of a text; None if there is no `####`."""
    found = _HASHES.findall(text)
    return found[-1] if found else None


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text, in order; see `final_number`."""
    text = _with_plain_numbers(text).replace("\\$", "$")
    plain = _COMMA.sub(r"\1.\2", _GROUP_GAP.sub("", text))
    plain = _LATEX_FRACTION.sub(r" \1\2/\3\4", _EXPONENT.sub(" ", plain))
    numbers: list[Fraction] = []
    for found in _FRACTION_OR_NUMBER.finditer(plain):
        minus, whole, numerator, denominator, number = found.groups()
        if len(found[0]) > _LONGEST:
            continue
        if number:
            numbers.append(Fraction(re.sub(r"[^-0-9.]", "", number)))
            continue
        part = Fraction(int(numerator), int(denominator))
        if whole and part >= 1:
            numbers.append(Fraction(whole))
        value = part + int(whole) if whole and part < 1 else part
        numbers.append(-value if minus else value)
    return numbers


def stated(reply: str) -> str | None:
    """The text in the last `<answer>` tag of a reply, or after its last "the answer is"; None if
    there is none."""
    tagged = _TAG.split(reply.rstrip())
    if len(tagged) > 2 and not tagged[-1] and len(tagged[-2]) <= _LONGEST:
        return tagged[-2].strip() or None
    heads = list(_STATED.finditer(reply))
    if not heads:
        return None
    # The text is cut first, because the patterns take quadratic time.
    tail = _HOPE.sub("", reply[heads[-1].end() :][:_LONGEST].split("\n", 1)[0])
    math = LEADING_MATH.match(tail)
    return (math[1] or math[2] if math else tail).strip().rstrip(".。") or None


def plain_words(text: str) -> str:
    """A text in one case, with single spaces, but none beside punctuation, and without punctuation
    around it."""
    words = unicodedata.normalize("NFC", text).strip(_AROUND).casefold()
    return re.sub(r" ?([^\w ]) ?", r"\1", " ".join(words.split()))

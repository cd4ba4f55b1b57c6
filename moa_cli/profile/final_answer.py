"""The rule by which the final answer of a proposal is read, as a profile holds it."""

from __future__ import annotations

from typing import Final

from moa_cli.core.text import nearest
from moa_cli.core.values import ValueFault

RULES: Final = ("auto", "number", "choice", "boxed", "text")
# Rules that are followed by a colon and what they look for.
FIELD, PATTERN = "json", "regex"
LONGEST_PATTERN = 2_000


def check(rule: str) -> None:
    """Raise ValueFault if that is no rule."""
    kind, colon, wanted = rule.partition(":")
    if rule in RULES:
        return
    if not colon or kind not in (FIELD, PATTERN):
        near = nearest(rule, RULES)
        known = ", ".join([*RULES, f"{FIELD}:FIELD", f"{PATTERN}:PATTERN"])
        raise ValueFault(
            f"is not a rule: {rule!r}", hint=f"did you mean {near}?" if near else f"known: {known}"
        )
    if not wanted.strip():
        raise ValueFault(f"names nothing after `{kind}:`")
    if kind == PATTERN:
        _check_pattern(wanted)


def _check_pattern(pattern: str) -> None:
    # It is run with a time limit, which the standard library has not.
    import regex

    if len(pattern) > LONGEST_PATTERN:
        raise ValueFault(f"is a pattern of more than {LONGEST_PATTERN:,} characters")
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise ValueFault(f"is not a regular expression: {error}") from None

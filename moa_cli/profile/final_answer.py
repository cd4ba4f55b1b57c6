"""The setting of a profile with the rule for reading the final answer of a proposal."""

from __future__ import annotations

from typing import Final

from moa_cli.core.text import nearest
from moa_cli.core.values import ValueFault

RULES: Final = ("auto", "number", "choice", "boxed", "text")
# Rules that have a colon and an argument: the name of a field, or a pattern.
FIELD, PATTERN = "json", "regex"
LONGEST_PATTERN = 2_000


def check(rule: str) -> None:
    """Raise ValueFault if the text is not a rule."""
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
    # The pattern runs with a time limit, which the standard library does not support.
    import regex

    if len(pattern) > LONGEST_PATTERN:
        raise ValueFault(f"is a pattern of more than {LONGEST_PATTERN:,} characters")
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise ValueFault(f"is not a regular expression: {error}") from None

"""The rule by which the final answer of a proposal is read, as a profile holds it."""

from __future__ import annotations

import re
from typing import Final

from moa_cli.core.text import nearest
from moa_cli.core.values import ValueFault

RULES: Final = ("auto", "number", "choice", "boxed", "text")
# Rules that are followed by a colon and what they look for.
FIELD, PATTERN = "json", "regex"


def check(rule: str) -> None:
    """Raise ValueFault if that is no rule."""
    kind, colon, wanted = rule.partition(":")
    if rule in RULES:
        return
    if not colon or kind not in (FIELD, PATTERN):
        near = nearest(rule, RULES)
        known = ", ".join([*RULES, f"{FIELD}:FIELD", f"{PATTERN}:PATTERN"])
        raise ValueFault(
            f"is no rule: {rule!r}", hint=f"did you mean {near}?" if near else f"known: {known}"
        )
    if not wanted.strip():
        raise ValueFault(f"names nothing after `{kind}:`")
    if kind == PATTERN:
        try:
            re.compile(wanted)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueFault(f"is not a regular expression: {error}") from None

"""Removes the reasoning from a judge's answer. Endpoints separate most reasoning from the answer.
Some stays in the text: reasoning with tags that the endpoint does not know, and reasoning with only
an end tag, because the opening tag was in the prompt. A rating in it must not be read as the
verdict, because the judge may have changed its mind.
"""

from __future__ import annotations

import re
from typing import Final

_NAME: Final = (
    r"(?:[a-z]{1,12}[:_])?(?:think(?:ing|_\w{1,8})?|thoughts?|thought_process|reason(?:ing)?"
    r"|reflection|scratch_?pad|analysis|inner_monologue|chain_of_thought|cot)"
)
_OPENING: Final = re.compile(
    rf"<\s{{0,3}}{_NAME}(?:\s[^<>]{{0,80}})?>|<\|\s{{0,3}}{_NAME}\s{{0,3}}\|>"
    r"|<\|(?:begin|start)_(?:of_)?(?:think(?:ing)?|thought)\|>|\[THINK(?:ING)?\]|◁think▷"
    r"|<unused94>|<\|channel\|>\s{0,3}analysis\s{0,3}<\|message\|>"
    r"|<details type=\"reasoning\"[^<>]{0,80}>",
    re.IGNORECASE,
)
# The last two are gpt-oss's channels, with and without their marks.
_CLOSING: Final = re.compile(
    rf"<\s{{0,3}}/\s{{0,3}}{_NAME}\s{{0,3}}>|<\|\s{{0,3}}/\s{{0,3}}{_NAME}\s{{0,3}}\|>"
    r"|<\|end_(?:of_)?(?:think(?:ing)?|thought)\|>|\[/\s{0,3}THINK(?:ING)?\]|◁/think▷|<unused95>"
    r"|<\|channel\|>\s{0,3}final[^<]{0,40}<\|message\|>|assistantfinal",
    re.IGNORECASE,
)
_DETAILS_END: Final = "</details>"
_FENCE: Final = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_QUOTES: Final = "`\"'“”‘’«»"


def verdict_text(text: str) -> str:
    """The part of a judge's answer after its reasoning. This is the whole text if it has no
    reasoning, and "" if it ends within the reasoning.

    The reasoning ends at its last closing tag. A tag in quotes, backticks or a code block does not
    count, because the judge only mentions it. If reasoning is opened at the start and never closed,
    there is no part after it.
    """
    tags = reversed(list(_CLOSING.finditer(text)))
    end = next((tag.end() for tag in tags if not _is_quoted(text, tag)), 0)
    opened = _OPENING.match(text.lstrip())
    if not end and opened is not None and opened[0].lower().startswith("<details"):
        end = text.find(_DETAILS_END) + len(_DETAILS_END) if _DETAILS_END in text else 0
    if not end:
        return text if opened is None else ""
    rest = text[end:]
    return "" if _OPENING.match(rest.lstrip()) else rest


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    before, after = text[: tag.start()][-1:], text[tag.end() :][:1]
    if before and after and before in _QUOTES and after in _QUOTES:
        return True
    # Within a code block. The block must be closed after the tag: reasoning may leave one open.
    fences = len(_FENCE.findall(text[: tag.start()]))
    return fences % 2 == 1 and _FENCE.search(text, tag.end()) is not None

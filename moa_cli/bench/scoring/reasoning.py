"""What a judge says after its reasoning: only that holds its verdict. Endpoints separate most
reasoning from the answer. What stays in the text are marks that no endpoint knows, and reasoning
with only an end mark, since the opening tag stood in the prompt. A rating in it is a thought that
the judge may have dropped.
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
    """What follows the reasoning in a judge's answer; the whole text where it holds none, "" where
    the answer ends in it.

    The last tag that closes reasoning ends it. A tag in quotes, backticks or a code block is only
    mentioned by the judge. Where reasoning was opened at the start and never closed, nothing
    follows it.
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
    # The block must close again: a fence that reasoning leaves open holds all that follows.
    fences = len(_FENCE.findall(text[: tag.start()]))
    return fences % 2 == 1 and _FENCE.search(text, tag.end()) is not None

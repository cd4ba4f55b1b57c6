"""The suggestion behind the line: how an earlier line goes on that began like this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prompt_toolkit.auto_suggest import AutoSuggest, Suggestion

from moa_cli.chat.earlier_messages import Recalled

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.document import Document


class SuggestEarlierLine(AutoSuggest):
    """Suggests the latest earlier line that begins as the line does that is typed.

    prompt-toolkit's own `AutoSuggestFromHistory` does the same, and looks at all lines again with
    each key. Here the search goes on where it ended for the key before: what begins like the longer
    line begins like the shorter one, too. So all lines are looked at once for each line typed.

    offered: returns the earlier prompts, the latest first; another list where they have changed.
    """

    def __init__(self, offered: Callable[[], Sequence[Recalled]]) -> None:
        self._offered = offered
        self._searched: Sequence[Recalled] = ()
        self._left: Iterator[str] = iter(())
        self._typed = ""
        self._line = ""

    def get_suggestion(self, buffer: Buffer, document: Document) -> Suggestion | None:
        """See `AutoSuggest`."""
        typed = document.text.rsplit("\n", 1)[-1]
        if not typed.strip():
            return None
        offered = self._offered()
        if offered is not self._searched or not typed.startswith(self._typed or "\n"):
            self._searched, self._left, self._line = offered, _lines(offered), ""
        self._typed = typed
        if not self._line.startswith(typed):
            self._line = next((line for line in self._left if line.startswith(typed)), "")
        return Suggestion(self._line[len(typed) :]) if self._line else None


def _lines(prompts: Sequence[Recalled]) -> Iterator[str]:
    """The lines of prompts, the last one first."""
    for prompt in prompts:
        yield from reversed(prompt.text.splitlines())

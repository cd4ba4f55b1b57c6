"""A screen with a scrollback, as quick as one without."""

from __future__ import annotations

import pyte
from pyte.modes import DECTCEM

__all__ = ["Scrolling"]


class Scrolling(pyte.HistoryScreen):
    """A `HistoryScreen` that always shows its last rows.

    Its base looks at each attribute that is read, to go back to the last rows before an event.
    That takes two fifths of a test that draws much, and nobody pages here.
    """

    __getattribute__ = object.__getattribute__

    def restore_cursor(self) -> None:
        """The cursor is shown or hidden as it was; the base does so after each event."""
        super().restore_cursor()
        self.cursor.hidden = DECTCEM not in self.mode

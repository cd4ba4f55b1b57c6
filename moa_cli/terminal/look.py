"""The style of text on a terminal, and whether links can be clicked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from moa_cli.config.palette import UNCHANGED, Palette, Theme

# Values of TERM whose terminals show the escape sequence of a link instead of ignoring it.
_WITHOUT_LINKS = ("cons25", "dumb", "eterm", "eterm-color", "linux", "unknown", "vt52")


@dataclass(frozen=True)
class Look:
    """The look of replies on a terminal.

    theme: "auto" uses the terminal's own colours, "none" uses none. changes: styles that override
    the theme's. hyperlinks: whether links in replies may be clickable.
    """

    theme: Theme = "auto"
    changes: Palette = UNCHANGED
    hyperlinks: bool = False

    @property
    def palette(self) -> Palette:
        """The styles that replies are drawn in."""
        return self.changes.over(self.theme)

    @property
    def links(self) -> bool:
        """Whether links can be clicked: the user and the terminal allow it."""
        return self.hyperlinks and os.environ.get("TERM", "") not in _WITHOUT_LINKS


USUAL: Final = Look()

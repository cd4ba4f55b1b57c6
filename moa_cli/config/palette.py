"""The styles of replies: the themes, and the user's changes to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from moa_cli.core.values import Key, ValueFault

Theme = Literal["auto", "dark", "light", "none"]
THEMES: Final[tuple[Theme, ...]] = ("auto", "dark", "light", "none")

_ATTRIBUTES = ("bold", "dim", "italic", "underline", "reverse", "strike", "none")
_HUES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_COLORS = ("default", *_HUES, *(f"bright_{hue}" for hue in _HUES))
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def _check_style(style: str) -> None:
    words = style.split()
    # The word `on` is followed by the colour of the background.
    for place, word in enumerate(words):
        follows = words[place + 1] if place + 1 < len(words) else ""
        known = word in _COLORS or _HEX.fullmatch(word)
        if word == "on":
            known = follows in _COLORS or _HEX.fullmatch(follows)
        if not known and word not in _ATTRIBUTES:
            raise ValueFault(
                f"is not a style: {word!r}",
                hint="a style is like `bold #7ab8ff`, `cyan` or `black on yellow`",
            )
    background = words.count("on")
    if background > 1 or sum(word not in (*_ATTRIBUTES, "on") for word in words) > 1 + background:
        raise ValueFault(f"has more than one colour: {style!r}")


def _style(help: str, example: str) -> Key:
    return Key(f"the style of {help}", example=example, check=_check_style)


@dataclass(frozen=True)
class Palette:
    """The styles of the parts of replies. In settings, None keeps the theme's style."""

    heading: Annotated[str | None, _style("headings", "bold #ffb870")] = None
    code: Annotated[str | None, _style("code", "bright_cyan")] = None
    link: Annotated[str | None, _style("the text of a link", "underline blue")] = None
    target: Annotated[str | None, _style("the address that a link leads to", "dim")] = None
    quote: Annotated[str | None, _style("quotes", "italic")] = None
    number: Annotated[str | None, _style("the numbers of a list", "bold")] = None
    border: Annotated[str | None, _style("the lines of tables", "dim")] = None
    keyword: Annotated[str | None, _style("keywords in code", "magenta")] = None
    string: Annotated[str | None, _style("texts in code", "green")] = None
    value: Annotated[str | None, _style("numbers and built-in names in code", "cyan")] = None
    name: Annotated[str | None, _style("names that code defines", "bold")] = None
    comment: Annotated[str | None, _style("comments in code", "dim")] = None
    added: Annotated[str | None, _style("lines that a diff adds", "green")] = None
    removed: Annotated[str | None, _style("lines that a diff removes", "black on red")] = None

    def over(self, theme: Theme) -> Palette:
        """The palette of a theme, with these changes; `none` has the styles of `auto`."""
        place = {"dark": 1, "light": 2}.get(theme, 0)
        return Palette(
            **{name: getattr(self, name) or styles[place] for name, styles in _STYLES.items()}
        )


UNCHANGED: Final = Palette()
# The styles of the themes `auto`, `dark` and `light`. `auto` uses the terminal's own 16 colours,
# which usual terminals keep readable on a dark and on a light background.
_STYLES: Final = {
    "heading": ("bold", "bold #8ec6ff", "bold #00457c"),
    "code": ("cyan", "#7fd7c4", "#00615a"),
    "link": ("cyan", "underline #7ab8ff", "underline #0b57a4"),
    "target": ("dim", "#a0a0a0", "#595959"),
    "quote": ("none", "italic #c0c0c0", "italic #444444"),
    "number": ("bold", "bold #8ec6ff", "bold #00457c"),
    "border": ("dim", "#a0a0a0", "#6b6b6b"),
    "keyword": ("magenta", "#d3a0ff", "#7b1fa2"),
    "string": ("green", "#a3d977", "#2b651d"),
    "value": ("cyan", "#ffb870", "#8a4300"),
    "name": ("bold", "bold #8ec6ff", "bold #00457c"),
    "comment": ("dim", "italic #a0a0a0", "italic #595959"),
    "added": ("green", "#a3d977", "#2b651d"),
    "removed": ("red", "#ff8a80", "#b3261e"),
}

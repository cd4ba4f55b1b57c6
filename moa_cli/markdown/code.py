"""Highlights code that arrives in pieces."""

import functools

from markdown_it.token import Token
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

from moa_cli.markdown.blocks import PIECE_LINES

TAB_SIZE = 4

_CONTEXT_LINES = 96
_LONGEST_COLORED_LINE = 2000

# Only colours which the usual palettes keep readable on dark and light alike; no backgrounds.
_CODE_THEME = ANSISyntaxTheme(
    {
        ("Comment",): Style(dim=True),
        ("Keyword",): Style(color="magenta"),
        ("Literal", "String"): Style(color="green"),
        ("Literal", "Number"): Style(color="cyan"),
        ("Name", "Builtin"): Style(color="cyan"),
        ("Name", "Decorator"): Style(color="cyan"),
        ("Name", "Tag"): Style(color="magenta"),
        ("Name", "Function"): Style(bold=True),
        ("Name", "Class"): Style(bold=True),
        ("Generic", "Deleted"): Style(color="red"),
        ("Generic", "Inserted"): Style(color="green"),
        ("Generic", "Heading"): Style(bold=True),
    }
)


def code_lines(token: Token) -> list[str]:
    """Return the lines of a code block, tabs expanded."""
    return [line.expandtabs(TAB_SIZE) for line in token.content.removesuffix("\n").split("\n")]


@functools.lru_cache(maxsize=64)
def syntax_of(language: str) -> Syntax | None:
    """Return what highlights a language, if it is known; to look a name up can be slow."""
    lexer = Syntax("", language).lexer if language else None
    return Syntax("", lexer, theme=_CODE_THEME) if lexer else None


def highlighted(
    lines: list[str], before: list[str], syntax: Syntax | None
) -> tuple[list[Text], list[str]]:
    """Highlight code as it is when it arrives in pieces, each after what comes before it.

    Also returns the lines to go on from.
    """
    made: list[Text] = []
    for start in range(0, len(lines), PIECE_LINES):
        piece = lines[start : start + PIECE_LINES]
        colored = _colored(before + piece, syntax)[len(before) :]
        made += colored
        # A piece which looks the same on its own stands in no comment or string begun earlier.
        alone = not before or (any(map(str.strip, piece)) and _colored(piece, syntax) == colored)
        before = piece if alone else (before + piece)[-_CONTEXT_LINES:]
    return made, before


def _colored(lines: list[str], syntax: Syntax | None) -> list[Text]:
    code = "\n".join(lines)
    text = Text.styled(code, "markdown.code_block")
    if syntax and max(map(len, lines)) <= _LONGEST_COLORED_LINE:
        colored = syntax.highlight(code)
        text = colored if colored.plain.rstrip("\n") == code.rstrip("\n") else text
    return list(text.split("\n", allow_blank=True))[: len(lines)]

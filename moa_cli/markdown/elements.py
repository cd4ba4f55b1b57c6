"""The elements Rich draws Markdown with, where ours differ: nothing cropped, nothing hidden.

The only file that relies on Rich's internals; `tests/test_others_internals.py` holds what it
relies on, and `pyproject.toml` pins the minor release:

- `rich._wrap.divide_line` tells where Rich breaks a line;
- `Table._calculate_column_widths` returns the width of each column as it is drawn;
- `rich.markdown.Markdown` draws the tokens in `parsed`, each by a class that `elements` names,
  and gives those in `inlines` a style; a `TableElement` keeps its cells in `header` and `body`.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markdown_it.token import Token
from rich import box
from rich import markdown as rich_markdown
from rich._wrap import divide_line
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import MarkdownContext, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from moa_cli.markdown.blocks import PIECE_LINES

MIN_WIDTH = 8

_RULE_WIDTH = 40
_MIN_COLUMN_WIDTH = 6
_TAB_SIZE = 4

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

# Characters of one cell, of white space only the space, and not at the start.
_NARROW = re.compile("(?! )[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e]*")

_Line = list[Segment]


@dataclass(frozen=True, slots=True)
class Carry:
    """What a piece of a block takes over from the piece before.

    going_on: whether there was one. code: the lines its code goes on from. columns: the widths
    of its table's columns, made for `width`.
    """

    going_on: bool = False
    code: list[str] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    width: int = 0


def _breaks(text: str, width: int) -> list[int]:
    """Return where Rich would break `text`, in a fifth of the time where that is easy to see."""
    if not _NARROW.fullmatch(text):
        return divide_line(text, width)
    places: list[int] = []
    at, end = 0, len(text.rstrip())
    while end - at > width:
        cut = text.rfind(" ", at, at + width + 1)
        if cut <= at:
            return divide_line(text, width)
        while text[cut] == " ":
            cut += 1
        places.append(cut)
        at = cut
    return places


class _Paragraph(rich_markdown.Paragraph):
    loose = False

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> "_Paragraph":
        made = cls("default")
        made.loose = not token.hidden
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.split("\n", allow_blank=True):
            line.expand_tabs(_TAB_SIZE)
            for part in line.divide(_breaks(line.plain, options.max_width)):
                yield from part.render(console, end="\n")


class _Heading(rich_markdown.Heading):
    LEVEL_ALIGN: ClassVar = {}


class _Rule(MarkdownElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(_RULE_WIDTH, options.max_width), "dim")


class _Columns(Table):
    """A table whose columns may have got `widths` already; they grow where there is room."""

    widths: Sequence[int] = ()

    def _calculate_column_widths(self, console: Console, options: ConsoleOptions) -> list[int]:
        wanted = super()._calculate_column_widths(console, options)
        grown = [max(pair) for pair in zip(self.widths or wanted, wanted, strict=True)]
        self.widths = grown if sum(grown) <= options.max_width else self.widths or wanted
        return list(self.widths)


class _Table(rich_markdown.TableElement):
    document: "Document | None" = None

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> "_Table":
        assert isinstance(markdown, Document)
        made = cls()
        made.document = markdown if token.level == 0 else None
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header = self.header.row.cells if self.header and self.header.row else []
        carry = self.document.carry if self.document else Carry()
        table = _Columns(
            box=box.SIMPLE,
            pad_edge=False,
            collapse_padding=True,
            style="markdown.table.border",
            show_header=not carry.going_on,
        )
        for cell in header:
            # Rich's own cuts long words off; and it crops a table that cannot be narrow enough.
            table.add_column(cell.content, overflow="fold", header_style="markdown.table.header")
        for row in self.body.rows if self.body else []:
            table.add_row(*(cell.content for cell in row.cells))
        width = max(options.max_width, _MIN_COLUMN_WIDTH * len(header))
        if carry.width == width:
            table.widths = carry.columns
        yield from console.render(table, options.update(width=width))
        if self.document:
            self.document.carry = Carry(columns=list(table.widths), width=width)


class _Container(rich_markdown.TextElement):
    """An element made of other block elements, drawn beside a mark."""

    def __init__(self) -> None:
        self.parts: list[MarkdownElement] = []

    def on_child_close(self, context: MarkdownContext, child: MarkdownElement) -> bool:
        self.parts.append(child)
        return False

    def inset(
        self, console: Console, options: ConsoleOptions, mark: Segment, *, loose: bool
    ) -> list[_Line]:
        """Draw the parts, uncropped, in the room `mark` leaves; if `loose`, blank lines apart."""
        inner = options.update(width=max(options.max_width - len(mark.text), MIN_WIDTH))
        lines: list[_Line] = []
        for part in self.parts:
            drawn = list(Segment.split_lines(console.render(part, inner)))
            while drawn and not _visible(drawn[0]):
                del drawn[0]
            while drawn and not _visible(drawn[-1]):
                del drawn[-1]
            lines += [[]] if loose and lines and drawn else []
            lines += drawn
        return lines or [[]]


class _Quote(_Container):
    style_name = "markdown.block_quote"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Segment("▌ ", console.get_style("dim"))
        for line in self.inset(console, options, bar, loose=True):
            yield from [bar, *line, Segment.line()]


class _Item(_Container):
    style_name = "markdown.item"

    @property
    def loose(self) -> bool:
        return any(isinstance(part, _Paragraph) and part.loose for part in self.parts)

    def draw(self, console: Console, options: ConsoleOptions, mark: Segment) -> Iterator[Segment]:
        for line in self.inset(console, options, mark, loose=self.loose):
            yield from [mark, *line, Segment.line()]
            mark = Segment(" " * len(mark.text))


class _List(MarkdownElement):
    def __init__(self, first: int | None) -> None:
        self.first = first
        self.items: list[_Item] = []

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> "_List":
        return cls(int(token.attrs.get("start", 1)) if token.tag == "ol" else None)

    def on_child_close(self, context: MarkdownContext, child: MarkdownElement) -> bool:
        assert isinstance(child, _Item)
        self.items.append(child)
        return False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kind = "bullet" if self.first is None else "number"
        style = console.get_style(f"markdown.item.{kind}")
        loose = any(item.loose for item in self.items)
        for index, item in enumerate(self.items):
            # The same gutter for 1 and 99: an item is drawn before the last number is known.
            mark = " • " if self.first is None else f"{self.first + index}.".rjust(3) + " "
            if loose and index:
                yield Segment.line()
            yield from item.draw(console, options, Segment(mark, style))


class _Code(rich_markdown.CodeBlock):
    lines: Sequence[Text] = ()

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> "_Code":
        assert isinstance(markdown, Document)
        language = (token.info.split() or [""])[0]
        before = markdown.carry.code if token.level == 0 else []
        made = cls(language, "")
        syntax = None if markdown.plain else _syntax_of(language)
        lines = [row.expandtabs(_TAB_SIZE) for row in token.content.removesuffix("\n").split("\n")]
        made.lines, before = _highlighted(lines, before, syntax)
        if token.level == 0:
            markdown.carry = Carry(code=before)
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Not as Text, which would be wrapped or cropped: the terminal wraps it better.
        for line in self.lines:
            yield from line.render(console, end="\n")


class Document(rich_markdown.Markdown):
    """Rich's Markdown, given the tokens of one block after another."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **rich_markdown.Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _Heading,
        "hr": _Rule,
        "table_open": _Table,
        "blockquote_open": _Quote,
        "bullet_list_open": _List,
        "ordered_list_open": _List,
        "list_item_open": _Item,
        "fence": _Code,
        "code_block": _Code,
    }
    inlines = rich_markdown.Markdown.inlines | {"link", "link_url"}

    def __init__(self, *, plain: bool) -> None:
        super().__init__("", hyperlinks=False)
        self.plain = plain
        self.carry = Carry()

    def load(self, tokens: list[Token], carry: Carry) -> None:
        """Take what to draw next, and what the piece before has left in `carry`, if any."""
        heading = ""
        for token in tokens:
            if token.type == "inline":
                token.children = _spelled_out(token.children or [], plain=self.plain)
                if heading:
                    token.children.insert(0, _text_token(heading))
            marked = self.plain and token.type == "heading_open"
            heading = "#" * int(token.tag[1:]) + " " if marked else ""
        self.parsed = tokens
        self.carry = carry


def _visible(line: _Line) -> bool:
    return any(segment.text.strip() for segment in line)


@functools.lru_cache(maxsize=64)
def _syntax_of(language: str) -> Syntax | None:
    """Return what highlights a language, if it is known; to look a name up can be slow."""
    lexer = Syntax("", language).lexer if language else None
    return Syntax("", lexer, theme=_CODE_THEME) if lexer else None


def _highlighted(
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


def _spelled_out(tokens: list[Token], *, plain: bool) -> list[Token]:
    """Return the inline tokens with the targets of links and images as text after them."""
    made: list[Token] = []
    begun = 0
    target = ""
    for token in tokens:
        if token.type == "link_open":
            begun = len(made)
            target = "" if token.markup == "autolink" else str(token.attrs.get("href", ""))
            made.append(Token("link", "link", 1))
        elif token.type == "link_close":
            made.append(Token("link", "link", -1))
            shown = "".join(part.content for part in made[begun:])
            made += _target(target) if target not in ("", shown) else []
        elif token.type == "image":
            made.append(_text_token(token.content or "image"))
            made += _target(str(token.attrs.get("src", "")))
        elif token.type == "code_inline" and plain:
            made.append(_text_token(f"{token.markup}{token.content}{token.markup}"))
        else:
            made.append(token)
    return made


def _text_token(content: str) -> Token:
    """Return the token of a text that holds no marks."""
    return Token("text", "", 0, content=content)


def _target(url: str) -> list[Token]:
    return [
        Token("link_url", "link_url", 1),
        _text_token(f" ({url})"),
        Token("link_url", "link_url", -1),
    ]

"""Our own elements for Rich's Markdown, which crop and hide nothing.

Only this file relies on Rich's internals. `tests/test_others_internals.py` checks them, and
`pyproject.toml` pins the minor release:

- `rich._wrap.divide_line` tells where Rich breaks a line;
- `Table._calculate_column_widths` returns the width of each column as it is drawn;
- `rich.markdown.Markdown` draws the tokens in `parsed`, each by a class that `elements` names,
  and gives those in `inlines` a style; a `TableElement` keeps its cells in `header` and `body`.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import unquote, urlsplit

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

from moa_cli.config.palette import Palette
from moa_cli.markdown.blocks import PIECE_LINES

MIN_WIDTH = 8

_RULE_WIDTH = 40
_MIN_COLUMN_WIDTH = 6
_TAB_SIZE = 4

_CONTEXT_LINES = 96
_LONGEST_COLORED_LINE = 2000

_WORD = re.compile(r"[!-~]+")
_SCHEMES = ("http://", "https://")
_BREAK = re.compile(r"<br[ \t]*/?>", re.IGNORECASE)
# Outside of tables, `<br>` is a line break if it stands between two words or at the end of a line.
# Otherwise the text mentions the tag.
_BREAK_OF_WORDS = re.compile(rf"(?<=\S){_BREAK.pattern}(?=\w)", re.IGNORECASE)
_BREAK_OF_LINE = re.compile(rf"{_BREAK.pattern}[ \t]*\Z", re.IGNORECASE)
# A text of characters that are one cell wide. It has no white space except the space, and does not
# begin with a space.
_NARROW = re.compile("(?! )[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e]*")

_Line = list[Segment]


@dataclass(frozen=True, slots=True)
class Carry:
    """The state that a piece of a block passes on to the next piece.

    going_on: whether there was a piece before. code: lines of code before this piece, which the
    highlighting needs. columns: the widths of the table's columns, computed for `width`.
    """

    going_on: bool = False
    code: list[str] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    width: int = 0


def _breaks(text: str, width: int) -> list[int]:
    """Return the places at which to break `text`: those of Rich, but addresses are not broken.

    A broken address could neither be copied nor clicked. An address that is wider than `width` gets
    its own line, which the terminal wraps.
    """
    places: list[int] = []
    begun = 0
    for found in _WORD.finditer(text) if "://" in text else ():
        start, end = found.span()
        if end - start <= width or not any(scheme in found.group() for scheme in _SCHEMES):
            continue
        before = text[begun:start]
        places += [begun + place for place in _word_breaks(before, width)]
        places += [start] if before.strip() else []
        begun = end + len(text[end:]) - len(text[end:].lstrip(" "))
        places += [begun] if begun < len(text) else []
    return places + [begun + place for place in _word_breaks(text[begun:], width)]


def _word_breaks(text: str, width: int) -> list[int]:
    """Return the places at which Rich would break `text`. For simple texts, this takes a fifth of
    Rich's time."""
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


class _Math(MarkdownElement):
    """Math on lines of its own, which is not changed."""

    content = ""

    @classmethod
    def create(cls, markdown: rich_markdown.Markdown, token: Token) -> "_Math":
        made = cls()
        made.content = token.content
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for row in self.content.rstrip("\n").split("\n"):
            line = Text(row.expandtabs(_TAB_SIZE))
            for part in line.divide(_breaks(line.plain, options.max_width)):
                yield from part.render(console, end="\n")


class _Heading(rich_markdown.Heading):
    LEVEL_ALIGN: ClassVar = {}


class _Rule(MarkdownElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(_RULE_WIDTH, options.max_width), "dim")


class _Columns(Table):
    """A table whose columns may have `widths` from an earlier piece. They grow if there is room."""

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
            # "fold", because Rich's own class cuts long words, and crops a table that cannot be
            # made narrow enough.
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
        """Draw the parts, uncropped, in the width that `mark` leaves. loose: put a blank line
        between parts."""
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
            # The column of the numbers has the same width for 1 and 99, because an item is drawn
            # before the last number is known.
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
        syntax = None if markdown.plain else _syntax_of(language, markdown.palette)
        lines = [row.expandtabs(_TAB_SIZE) for row in token.content.removesuffix("\n").split("\n")]
        made.lines, before = _highlighted(lines, before, syntax)
        if token.level == 0:
            markdown.carry = Carry(code=before)
        return made

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Rendered here, because Rich would wrap or crop a `Text`. The terminal wraps code better.
        for line in self.lines:
            yield from line.render(console, end="\n")


class Document(rich_markdown.Markdown):
    """Rich's Markdown, which is given the tokens of each block in turn."""

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
        "math_block": _Math,
    }
    inlines = rich_markdown.Markdown.inlines | {"link", "target"}

    def __init__(self, *, plain: bool, palette: Palette) -> None:
        # With hyperlinks=True, Rich puts the target of a link into the style. `BlockRenderer` reads
        # it from there.
        super().__init__("", hyperlinks=True)
        self.plain = plain
        self.palette = palette
        self.carry = Carry()
        self.shown: set[str] = set()

    def load(self, tokens: list[Token], carry: Carry) -> None:
        """Take the tokens to draw next. carry: the state that the piece before has left.

        The targets of their links are added to `shown`.
        """
        heading = ""
        in_cell = False
        for token in tokens:
            if token.type == "inline":
                token.children = self._spelled_out(_broken(token.children or [], in_cell))
                if heading:
                    token.children.insert(0, _text_token(heading))
            marked = self.plain and token.type == "heading_open"
            heading = "#" * int(token.tag[1:]) + " " if marked else ""
            in_cell = token.type in ("th_open", "td_open")
        self.parsed = tokens
        self.carry = carry

    def load_definitions(self, definitions: Iterable[tuple[str, str]]) -> None:
        """Take link definitions to draw next. definitions: pairs of a label and a target."""
        children: list[Token] = []
        for label, target in definitions:
            children += [Token("hardbreak", "br", 0)] * bool(children)
            text = [_text_token(f"[{label}]: "), *_linked([_text_token(target)], target)]
            children += [Token("target", "target", 1), *text, Token("target", "target", -1)]
        inline = Token("inline", "", 0, children=children)
        self.parsed = [Token("paragraph_open", "p", 1), inline, Token("paragraph_close", "p", -1)]
        self.carry = Carry()

    def _spelled_out(self, tokens: list[Token]) -> list[Token]:
        """Return the inline tokens with the targets of links and images as text after them."""
        made: list[Token] = []
        begun = 0
        link: Token | None = None
        for token in tokens:
            if token.type == "link_open":
                begun, link = len(made), token
            elif token.type == "link_close" and link is not None:
                text = made[begun:]
                shown = "".join(part.content for part in text)
                target = str(link.attrs.get("href", ""))
                made[begun:] = _linked(
                    [Token("link", "link", 1), *text, Token("link", "link", -1)], target
                )
                if not _is_address(shown, target):
                    again = bool(link.meta.get("label")) and target in self.shown
                    made += _target(target, again=again)
                self.shown.add(target)
                link = None
            elif token.type == "image":
                made.append(_text_token(token.content or "image"))
                made += _target(str(token.attrs.get("src", "")))
            elif token.type == "code_inline" and self.plain:
                made.append(_text_token(f"{token.markup}{token.content}{token.markup}"))
            else:
                made.append(token)
        return made


def _visible(line: _Line) -> bool:
    return any(segment.text.strip() for segment in line)


@functools.lru_cache(maxsize=8)
def _code_theme(palette: Palette) -> ANSISyntaxTheme:
    styles = {
        ("Comment",): palette.comment,
        ("Keyword",): palette.keyword,
        ("Literal", "String"): palette.string,
        ("Literal", "Number"): palette.value,
        ("Name", "Builtin"): palette.value,
        ("Name", "Decorator"): palette.value,
        ("Name", "Tag"): palette.keyword,
        ("Name", "Function"): palette.name,
        ("Name", "Class"): palette.name,
        ("Generic", "Deleted"): palette.removed,
        ("Generic", "Inserted"): palette.added,
        ("Generic", "Heading"): palette.name,
    }
    return ANSISyntaxTheme({kind: Style.parse(style or "none") for kind, style in styles.items()})


@functools.lru_cache(maxsize=64)
def _syntax_of(language: str, palette: Palette) -> Syntax | None:
    """Return the highlighter of a language; None if it is not known. It is cached, because looking
    up a name can be slow."""
    lexer = Syntax("", language).lexer if language else None
    return Syntax("", lexer, theme=_code_theme(palette)) if lexer else None


def _highlighted(
    lines: list[str], before: list[str], syntax: Syntax | None
) -> tuple[list[Text], list[str]]:
    """Highlight code piece by piece, in the same way as if it arrived in pieces.

    before: the lines before the code that the highlighting needs. Also returns these lines for the
    next piece.
    """
    made: list[Text] = []
    for start in range(0, len(lines), PIECE_LINES):
        piece = lines[start : start + PIECE_LINES]
        colored = _colored(before + piece, syntax)[len(before) :]
        made += colored
        # If a piece is coloured alike without the lines before it, it is not inside a comment or
        # string that began earlier.
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


def _broken(tokens: list[Token], in_cell: bool) -> list[Token]:
    """Return the inline tokens with line breaks in place of `<br>` tags."""
    made: list[Token] = []
    for place, token in enumerate(tokens):
        if token.type == "softbreak" and made and made[-1].type == "hardbreak":
            continue
        if token.type != "text" or "<" not in token.content:
            made.append(token)
            continue
        content = (_BREAK if in_cell else _BREAK_OF_WORDS).sub("\n", token.content)
        if place + 1 < len(tokens) and tokens[place + 1].type == "softbreak":
            content = _BREAK_OF_LINE.sub("\n", content)
        for number, text in enumerate(content.split("\n")):
            made += [Token("hardbreak", "br", 0)] * bool(number)
            made += [_text_token(text)] * bool(text)
    return made


def _text_token(content: str) -> Token:
    """Return the token of a text without marks."""
    return Token("text", "", 0, content=content)


def _linked(tokens: list[Token], target: str) -> list[Token]:
    """Return the tokens as the text of a link to `target`."""
    attrs: dict[str, str | int | float] = {"href": target}
    return [Token("link_open", "a", 1, attrs=attrs), *tokens, Token("link_close", "a", -1)]


def _is_address(text: str, target: str) -> bool:
    """Tell whether the text of a link already shows its target."""
    if text == target or f"mailto:{text}" == target:
        return True
    # The parser has percent-encoded all but ASCII in the target. A host with other characters may
    # imitate another host.
    path = text.partition("://")[2].lstrip("/")
    host = re.split(r"[/?#]", path, maxsplit=1)[0]
    return host.isascii() and unquote(target) == unquote(text)


def _target(url: str, *, again: bool = False) -> list[Token]:
    """Return the tokens that show a link's target. again: whether the target was shown before; then
    only its host is shown."""
    told = (urlsplit(url).hostname if again else None) or url
    text = _linked([_text_token(told)], url)
    mark = Token("target", "target", 1)
    return [mark, _text_token(" ("), *text, _text_token(")"), Token("target", "target", -1)]

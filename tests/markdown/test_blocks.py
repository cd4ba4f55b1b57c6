"""Property: a block is given out when no further text can change it, and says what the whole says.

The oracle is one parse of the whole document.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.token import Token

from moa_cli.markdown import pieces as pieces_module
from moa_cli.markdown.blocks import PIECE_LINES, MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, render_markdown
from moa_cli.markdown.pieces import Block
from moa_cli.markdown.syntax import parser
from tests.support.corpus import LINES, chunks_of

documents = st.lists(st.sampled_from(LINES), max_size=30).map("\n".join)


def contents(tokens: list[Token]) -> list[list[str]]:
    """Return what a document says and in which blocks, with lists not told from their items."""
    return [
        [token.type, token.content]
        for token in tokens
        if token.type in ("inline", "fence", "code_block", "math_block", "hr")
        or (token.nesting == 1 and token.type not in ("ordered_list_open", "bullet_list_open"))
    ]


def without_trailing_blanks(found: list[list[str]]) -> list[list[str]]:
    code = ("fence", "code_block")
    trimmed = [[kind, text.rstrip() if kind in code else text] for kind, text in found]
    return [entry for entry in trimmed if entry[1] or entry[0] not in code]


def contents_of_blocks(blocks: list[Block]) -> list[list[str]]:
    found: list[list[str]] = []
    for block in blocks:
        own = contents(parser(inline=False).parse(block.source))
        if block.joint == "code":
            found[-1][1] += own[0][1]
        else:
            found += own
    return without_trailing_blanks(found)


@settings(deadline=None)
@given(documents, st.integers(0, 9), st.sampled_from([1, 4, 30]))
def test_the_blocks_say_what_the_whole_document_says(text: str, seed: int, largest: int) -> None:
    stream = MarkdownStream()
    blocks = [block for chunk in chunks_of(text, seed, largest) for block in stream.feed(chunk)]
    blocks += stream.finish()
    expected = without_trailing_blanks(contents(parser(inline=False).parse(text)))
    assert contents_of_blocks(blocks) == expected
    assert render_markdown(text, width=40) == BlockRenderer().render(blocks, width=40)


def test_items_are_final_before_their_list_ends_and_keep_their_numbers() -> None:
    stream, renderer = MarkdownStream(), BlockRenderer()
    lines: list[str] = []
    for number in range(1, 13):
        lines += renderer.render(stream.feed(f"1. item {number}\n"), width=40)
        assert len(lines) == number - 1
    lines += renderer.render(stream.finish(), width=40)
    assert lines == [f"{number:2}. item {number}" for number in range(1, 13)]


def test_lines_of_an_open_fence_become_final() -> None:
    stream, renderer = MarkdownStream(), BlockRenderer(color="16")
    text = "```python\n" + "".join(f"x{n} = '{n}'\n" for n in range(100))
    lines = renderer.render(stream.feed(text), width=40)
    assert 100 - PIECE_LINES < len(lines) <= 100
    assert stream.tail.startswith("```python\nx96")


def test_a_closed_block_is_final_at_once() -> None:
    stream = MarkdownStream()
    assert stream.feed("# Heading\n") == [Block("# Heading")]
    assert stream.feed("A paragraph\n") == []
    assert stream.feed("\n") == [Block("A paragraph")]
    assert stream.feed("```\nx\n```") == []
    assert [block.source for block in stream.feed("\n")] == ["```\nx\n```"]
    assert stream.tail == ""


def test_the_tail_is_the_source_that_is_still_open() -> None:
    stream = MarkdownStream()
    stream.feed("Done.\n\nStill *op")
    assert stream.tail == "Still *op"
    assert stream.pending() == [Block("Still *op")]
    stream.feed("en*")
    assert stream.finish() == [Block("Still *open*")]
    assert (stream.finish(), stream.tail) == ([], "")


@settings(deadline=None)
@given(documents)
def test_what_is_pending_is_what_finishing_would_bring(text: str) -> None:
    stream, renderer = MarkdownStream(), BlockRenderer()
    renderer.render(stream.feed(text), width=40)
    preview = renderer.preview(stream.pending(), width=40)
    assert preview == renderer.preview(stream.pending(), width=40)
    lines = renderer.render(stream.finish(), width=40)
    assert preview == lines or any("]: " in line for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n" + "| cell | cell |\n" * 4000,
        "a line of a paragraph\n" * 4000,
        "- item\n" * 4000,
        "- item\n  ```\n" + "  code\n" * 4000,
        "```\n" + "code\n" * 4000,
    ],
    ids=["table", "paragraph", "list", "code in an item", "code"],
)
def test_the_cost_of_parsing_is_linear(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    class Counting:
        def parse(self, source: str, env: dict[str, object] | None = None) -> list[Token]:
            nonlocal parsed
            parsed += len(source)
            return parser(inline=False).parse(source, env)

    monkeypatch.setattr(pieces_module, "parser", lambda **_: Counting())
    stream = MarkdownStream()
    for line in text.splitlines(keepends=True):
        stream.feed(line)
    stream.finish()
    assert parsed < 30 * len(text)

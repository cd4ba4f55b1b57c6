"""Property: however long a block is, a frame's work is bounded, and no line is drawn otherwise.

Long tables, lines and lists come in pieces: the same ones however the text was split.
"""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich._wrap import divide_line

from moa_cli.markdown import blocks as blocks_module
from moa_cli.markdown import elements
from moa_cli.markdown import pieces as pieces_module
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, render_markdown
from tests.support.corpus import LINES, chunks_of

TABLE = "| name | what it is |\n|---|--:|\n"
PARAGRAPHS = [f"Paragraph {n} " + "of *some* words " * 30 + "and an end." for n in range(40)]
LONG = {
    "table": TABLE + "".join(f"| row {n} | `{n * n}` |\n" for n in range(300)),
    "line": "".join(f"word{n} **is** followed by `others` " for n in range(1500)),
    "item": "- " + "\n\n  ".join(PARAGRAPHS),
    "nested item": "1. outer\n   - inner " + "\n\n     ".join(PARAGRAPHS),
    "quote": "> " + "\n>\n> ".join(PARAGRAPHS),
    "code in an item": "- Run:\n  ```sh\n" + "".join(f"  echo {n:04}\n" for n in range(900)),
    "items": "1. outer\n" + "".join(f"   - inner {n:03} with more\n" for n in range(600)),
}
DOCUMENTS = st.lists(
    st.sampled_from(
        [
            *LINES,
            TABLE + "| a | b |\n| c | d |\n| e | f |",
            "| g | h |",
            "words *that go* on and on without any end in sight",
            "a **b** c [d](http://e f) `g h` i * j ~~ k",
            "> quoted words that go on and on",
            "- the words of an item, which go on",
        ]
    ),
    max_size=25,
).map("\n".join)


def streamed(text: str, seed: int, largest: int, color: bool = False) -> list[str]:
    stream, renderer = MarkdownStream(), BlockRenderer(color="256" if color else "none")
    lines: list[str] = []
    for chunk in chunks_of(text, seed, largest):
        lines += renderer.render(stream.feed(chunk), width=40)
        renderer.preview(stream.pending(), width=40)
    return lines + renderer.render(stream.finish(), width=40)


@pytest.fixture(params=[1, 20])
def _small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE_ROWS", 1 + request.param // 10)
    monkeypatch.setattr(blocks_module, "PIECE_LENGTH", 9 + request.param)
    monkeypatch.setattr(pieces_module, "_PENDING", 9 + request.param)


@pytest.mark.parametrize("name", LONG)
def test_a_long_block_streamed_equals_the_whole(name: str) -> None:
    whole = render_markdown(LONG[name], width=40, color="256")
    assert streamed(LONG[name], 1, 200, color=True) == whole


@pytest.mark.usefixtures("_small")
@given(DOCUMENTS, st.integers(0, 9), st.sampled_from([1, 5, 40]))
def test_pieces_are_the_same_however_the_text_was_split(text: str, seed: int, largest: int) -> None:
    assert streamed(text, seed, largest) == render_markdown(text, width=40)


@given(DOCUMENTS)
def test_pieces_say_what_the_uncut_text_says(text: str) -> None:
    def characters() -> Counter[str]:
        return Counter(re.sub("[ ─]", "", "".join(render_markdown(text, width=40))))

    uncut = characters()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "PIECE_ROWS", 2)
        patch.setattr(blocks_module, "PIECE_LENGTH", 30)
        assert characters() == uncut


def test_rows_are_final_before_their_table_ends_and_columns_only_grow() -> None:
    stream, renderer = MarkdownStream(), BlockRenderer()
    early = renderer.render(stream.feed(LONG["table"]), width=40)
    lines = early + renderer.render(stream.finish(), width=40)
    assert 300 - pieces_module.PIECE_ROWS < len(early) < len(lines) == 302
    assert [line.split()[1] for line in lines[2:]] == [str(n) for n in range(300)]
    assert sum("name" in line for line in lines) == 1
    widths = list(map(len, lines[2:]))
    assert widths == sorted(widths)
    assert widths[0] == widths[pieces_module.PIECE_ROWS - 1] == widths[-1] - 1


def test_a_resize_amid_a_table_measures_its_columns_again() -> None:
    stream, renderer = MarkdownStream(), BlockRenderer()
    row = "| " + "words and " * 9 + "| more |\n"
    renderer.render(stream.feed(TABLE + row * 40), width=100)
    lines = renderer.render(stream.feed(row * 40), width=40)
    assert lines
    assert max(map(len, lines)) <= 40


def test_a_long_line_becomes_final_in_pieces_with_no_word_lost_nor_mark_left_open() -> None:
    stream, renderer = MarkdownStream(), BlockRenderer(color="16")
    early = renderer.render(stream.feed(LONG["line"]), width=80)
    assert len(early) > 400
    text = " ".join(early + renderer.render(stream.finish(), width=80))
    assert [int(n) for n in re.findall(r"word(\d+)", text)] == list(range(1500))
    assert "*" not in text
    assert "`" not in text


@pytest.mark.parametrize("name", LONG)
def test_what_is_pending_of_a_long_block_is_bounded_and_ends_as_the_whole_would(name: str) -> None:
    stream, renderer = MarkdownStream(), BlockRenderer(color="16")
    for number, chunk in enumerate(chunks_of(LONG[name], 1, 300)):
        renderer.render(stream.feed(chunk), width=80)
        pending = stream.pending()
        assert sum(len(block.source) for block in pending) < 10_000
        if number % 20 == 0:
            tail = renderer.preview(MarkdownStream().feed(stream.tail + "\n\nend\n"), width=80)
            shown = renderer.preview(pending, width=80)
            assert shown[-5:] == tail[-min(5, len(shown)) :] or not shown


@given(st.text("ab é漢\u00a0\t", max_size=60), st.integers(3, 20))
def test_lines_break_where_rich_breaks_them(text: str, width: int) -> None:
    assert elements._breaks(text, width) == divide_line(text, width)

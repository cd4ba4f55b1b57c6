"""Property: Markdown that streams in is drawn as the whole would be, each line exactly once.

However the reply was split into chunks, the lines are the same; and what comes out can do
nothing to a terminal but set colours.
"""

import itertools
import re
from collections.abc import Iterable

import pytest
from rich.cells import cell_len

from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, Color, render_markdown
from tests.support.corpus import CORPUS, chunks_of

SGR = re.compile(r"\x1b\[[0-9;]*m")
COLORS: tuple[Color, ...] = ("none", "16", "256", "truecolor")


def streamed(chunks: Iterable[str], *, width: int, color: Color = "none") -> list[str]:
    stream, renderer = MarkdownStream(), BlockRenderer(color=color)
    lines: list[str] = []
    for chunk in chunks:
        lines += renderer.render(stream.feed(chunk), width=width)
    return lines + renderer.render(stream.finish(), width=width)


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("color", COLORS[:2])
def test_streamed_in_random_chunks_equals_the_whole(name: str, color: Color) -> None:
    text = CORPUS[name]
    for width in (24, 80):
        whole = render_markdown(text, width=width, color=color)
        for seed, largest in itertools.product(range(3), (1, 5, 40, 400)):
            assert streamed(chunks_of(text, seed, largest), width=width, color=color) == whole


@pytest.mark.parametrize("name", CORPUS)
def test_blank_lines_are_single_and_only_between_blocks(name: str) -> None:
    lines = render_markdown(CORPUS[name], width=60)
    assert lines[:1] != [""]
    assert lines[-1:] != [""]
    assert all(line == line.rstrip(" ") for line in lines)
    if "fence" not in name:
        assert ("", "") not in itertools.pairwise(lines)


@pytest.mark.parametrize("name", CORPUS)
def test_without_colour_there_is_no_escape_sequence(name: str) -> None:
    assert "\x1b" not in "".join(render_markdown(CORPUS[name], width=60))


@pytest.mark.parametrize("name", CORPUS)
def test_colour_changes_no_text_but_the_marks_it_replaces(name: str) -> None:
    plain = " ".join(render_markdown(CORPUS[name], width=200))
    for color in COLORS[1:]:
        colored = " ".join(render_markdown(CORPUS[name], width=200, color=color))
        assert re.sub(r"[#`─ ]", "", SGR.sub("", colored)) == re.sub(r"[#`─ ]", "", plain)


def test_each_line_of_a_long_reply_appears_exactly_once_and_in_order() -> None:
    lines = streamed(chunks_of(CORPUS["300 lines"], 1, 9), width=80)
    numbers = [int(number) for number in re.findall(r"line-(\d+)", "\n".join(lines))]
    assert numbers == list(range(300))


def test_a_reply_looks_like_this() -> None:
    text = (
        "# Title\nSome *text* with `code`, [link](http://e.org).\n\n1. one\n2. two\n   - a\n\n"
        "> quote\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx =  1\n```\n---\n"
    )
    assert render_markdown(text, width=60) == [
        "# Title",
        "",
        "Some text with `code`, link (http://e.org).",
        "",
        " 1. one",
        " 2. two",
        "     • a",
        "",
        "▌ quote",
        "",
        " a  b",
        " ────",
        " 1  2",
        "",
        "x =  1",
        "",
        "─" * 40,
    ]


def test_code_is_neither_wrapped_nor_padded_nor_cropped_even_within_lists_and_quotes() -> None:
    code = "x = " + " + ".join(f"value_{n}" for n in range(40))
    text = f"```\n{code}\n  y\n```\n\n- a\n  ```py\n  {code}\n  ```\n\n> ```\n> {code}\n> ```\n"
    lines = render_markdown(text, width=40)
    assert [line for line in lines if "value_39" in line] == [code, f"   {code}", f"▌ {code}"]
    assert "  y" in lines


def test_a_table_loses_nothing_where_room_is_short() -> None:
    cells = ["abcdefghijklmnopqrstuvwxyz", "0123456789" * 3, *"ABCDEFGHI"]
    for count in (2, 3, 11):
        row, rule = "| " + " | ".join(cells[:count]) + " |", "|---" * count + "|"
        shown = "".join(render_markdown("\n".join([row, rule, row]), width=24))
        content = "".join(cells[:count])
        assert all(shown.count(character) == 2 * content.count(character) for character in content)


@pytest.mark.parametrize("mark", ["", "> ", "> > "])
def test_a_row_with_more_cells_than_its_table_has_columns_loses_nothing(mark: str) -> None:
    rows = [
        "|op|is|",
        "|-|-|",
        "| `a | b` | either |",
        "| x || y | or |",
        "1 | 2 | 3",
        "| `q | 4 |",
    ]
    lines = render_markdown("\n".join(mark + row for row in rows), width=60)
    assert [line.replace("▌", "").split(maxsplit=1) for line in lines[2:]] == [
        ["`a", "| b`  either"],
        ["x", "| y | or"],
        ["1", "2 | 3"],
        ["`q", "4"],
    ]


@pytest.mark.parametrize(
    "name", ["headings", "nested lists", "quotes", "wide", "300 lines", "table"]
)
def test_text_keeps_to_the_width(name: str) -> None:
    lines = render_markdown(CORPUS[name], width=24)
    assert max(map(cell_len, lines)) <= 24


def test_the_highlighting_of_frozen_lines_knows_what_came_before() -> None:
    text = 'x = """\n' + "def inside():\n" * 40 + '"""\ndef outside():\n'
    lines = streamed(chunks_of(f"```python\n{text}```\n", 1, 7), width=40, color="16")
    assert lines == render_markdown(f"```python\n{text}```\n", width=40, color="16")
    assert {line for line in lines if "inside" in line} == {"\x1b[32mdef inside():\x1b[0m"}
    assert "\x1b[35mdef\x1b[0m" in lines[-1]


def test_targets_of_links_are_visible_and_not_doubled() -> None:
    lines = render_markdown("[a](http://x/y) <http://z> [http://w](http://w) ![p](q.png)", width=99)
    assert lines == ["a (http://x/y) http://z http://w p (q.png)"]


def test_a_definition_serves_later_blocks_and_is_shown_if_it_came_too_late() -> None:
    text = "[early]: http://e\n\nSee [early] and [late].\n\nMore.\n\n[late]: http://l\n[none]: http://n\n"
    for chunks in ([text], list(text)):
        assert streamed(chunks, width=60) == [
            "See early (http://e) and [late].",
            "",
            "More.",
            "",
            "[late]: http://l",
            "[none]: http://n",
        ]


@pytest.mark.parametrize(
    "text",
    [
        "<http://x/%1b%5d52;c;aGVsbG8=%1b%5c>",
        "[a](http://x/%1b%5d52;c;aGVsbG8=%07) ![b](http://x/%9b2J)",
        "&#27;[2J &#x9b;2J &#13;over &#x202e;abc &#xE0041; &#7; &#10;",
        "`\x1b[2J` \x9b2J \x1b]0;t\x07 \u202eabc\u202c \U000e0041 \x07\x08",
        "```\x1b[2J\n\x1b]52;c;aGk=\x07 \u2066x\n```",
        "| a\x1b[2J | &#13; |\n|---|---|\n| \x9d0;t\x9c | &#x2067; |",
        "# \x1b[2J&#13;\n\n> - &#13;\x1bc",
        "[x]: http://y/%1b%5b2J\n",
    ],
)
@pytest.mark.parametrize("color", COLORS)
def test_hostile_markdown_comes_out_harmless(text: str, color: Color) -> None:
    for chunks in ([text], list(text)):
        shown = SGR.sub("", "".join(streamed(chunks, width=60, color=color)))
        assert not re.search(
            "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]", shown
        )


@pytest.mark.parametrize(
    "text",
    [
        "arr[i] [/INST] [red]x[/red] [/usr/bin]",
        "List<String> and <div> and </div>",
        ":smile: (c) --",
    ],
)
def test_what_looks_like_markup_survives(text: str) -> None:
    assert render_markdown(text, width=80) == [text]
    assert SGR.sub("", "".join(render_markdown(text, width=80, color="16"))) == text

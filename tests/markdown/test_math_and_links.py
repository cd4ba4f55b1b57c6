"""Math stays as it was written, links are whole and lead where they say, definitions stand once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, render_markdown
from tests.support.corpus import chunks_of

LINK = re.compile(r"\x1b\]8;id=([0-9a-f]+);([^\x1b\x07]*)\x1b\\(.*?)\x1b\]8;;\x1b\\")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def clickable(text: str, *, width: int = 80, seed: int | None = None) -> list[str]:
    """The lines of a reply with links that can be clicked."""
    stream, renderer = MarkdownStream(), BlockRenderer(color="16", hyperlinks=True)
    chunks = [text] if seed is None else chunks_of(text, seed, 7)
    lines: list[str] = []
    for chunk in chunks:
        lines += renderer.render(stream.feed(chunk), width=width)
        renderer.preview(stream.pending(), width=width)
    return lines + renderer.render(stream.finish(), width=width)


def targets(text: str, *, width: int = 80) -> list[tuple[str, str]]:
    """The links of a reply: the target, and the text that can be clicked."""
    found = LINK.findall("\n".join(clickable(text, width=width)))
    return [(target, STYLE.sub("", shown)) for _, target, shown in found]


@pytest.mark.parametrize(
    "math",
    [
        r"\(a_1 * b_2 * c_3\)",
        r"\[ x^2_1 + y_2 \]",
        r"$a_1*b_2*c$",
        r"$$\mathbf{x}_i * \mathbf{y}_j$$",
        r"$\{x_1 : x_1 > 0\}$",
        r"$x$, $y_1$ and $z_1$",
        r"$\$5_1 * 2_1$",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "so {}.", "- so {}", "> {}", "# {}", "*so* {}", "a|b\n-|-\n{}|c"]
)
def test_math_in_a_line_stays_as_it_is(math: str, around: str) -> None:
    assert math in "\n".join(render_markdown(around.format(math), width=80))


@pytest.mark.parametrize(
    "math",
    [
        "$$\nx = \\frac{a}{b} \\\\\n- y_1 * z_2 *\n$$",
        "\\[\n\\begin{aligned}\n  a &= b \\\\\n# c\n> d\n1. e\n\\end{aligned}\n\\]",
        "$$\\begin{cases}\n  1 * 2 & x_1 \\\\\n  3 * 4\n\\end{cases}$$",
        "\\[ x_1 * y_2 *\n= z \\].",
        "$$x_1*y*z$$",
    ],
)
def test_math_on_lines_of_its_own_stays_as_it_is(math: str) -> None:
    rows = math.split("\n")
    assert render_markdown(math, width=80) == rows
    assert render_markdown(f"Let\n{math}\nbe *so*.", width=80) == ["Let", "", *rows, "", "be so."]
    item = "- a\n\n  " + math.replace("\n", "\n  ")
    assert [line.strip() for line in render_markdown(item, width=80)][2:] == [
        row.strip() for row in rows
    ]
    quote = "> " + math.replace("\n", "\n> ")
    assert render_markdown(quote, width=80) == [f"▌ {row}" for row in rows]
    for seed in range(4):
        assert clickable(f"{math}\n\nEnd\n", seed=seed) == [*rows, "", "End"]


def test_math_is_final_before_what_follows_it() -> None:
    stream = MarkdownStream()
    assert stream.feed("$$\nx\n$$\n")[0].source == "$$\nx\n$$"
    assert stream.feed("\\[\n- x\n") == []
    assert stream.feed("\n")[0].source == "\\[\n- x"


def test_math_wider_than_the_screen_is_folded() -> None:
    math = "$$\n" + " + ".join(f"x_{n}" for n in range(30)) + "\n$$"
    lines = render_markdown(math, width=40)
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).replace("  ", " ").split() == math.split()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It costs $5, *really*, or $6.", "It costs $5, really, or $6."),
        ("Of *$5* and *$6* one.", "Of $5 and $6 one."),
        ("Set $HOME and `$PATH`, *then* go.", "Set $HOME and `$PATH`, then go."),
        ("$5-$10 *each*", "$5-$10 each"),
        (r"As in \[1\] and \[2\], *so*.", "As in [1] and [2], so."),
        (r"\$5 and \$6", "$5 and $6"),
        ("`$a$ \\(b\\)` *c*", "`$a$ \\(b\\)` c"),
        ("$$ is the *PID*", "$$ is the PID"),
    ],
)
def test_what_is_no_math_is_drawn_as_ever(text: str, shown: str) -> None:
    assert render_markdown(text, width=80) == [shown]


def test_dollars_that_are_never_closed_take_a_paragraph_at_most() -> None:
    lines = render_markdown("$$\nx *a*\n\n*b*\n\n```\ncode\n```\n", width=80)
    assert lines == ["$$", "x *a*", "", "b", "", "code"]
    assert render_markdown("\\[\n```\ncode\n```\n", width=80) == ["\\[", "", "code"]


@given(st.text("$\\()[]` *_a1\n{}=", max_size=60))
def test_no_text_with_marks_of_math_loses_a_letter(text: str) -> None:
    letters = re.sub("[^a1]", "", text)
    numbered = re.compile(r"^ *(?:[*-] *|1+[.)] *)*", re.MULTILINE)
    if numbered.sub("", text) == text.lstrip(" "):
        assert re.sub("[^a1]", "", "".join(render_markdown(text, width=20))) == letters


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[a]: http://t\n\nSee [a].\n", ["See a (http://t)."]),
        ("See [a].\n\n[a]: http://t\n", ["See [a].", "", "[a]: http://t"]),
        (
            "See [a].\n\n[a]: http://t\n\nSo [a], then [a] and [b][a].\n",
            ["See [a].", "", "So a (http://t), then a (t) and b (t)."],
        ),
        ("[Ab c]: http://t\n", ["[Ab c]: http://t"]),
        ("`x[a]`\n\n[a]: http://t\n", ["`x[a]`", "", "[a]: http://t"]),
        ("[a]: http://t\n[b]: http://t\n\n[a]\n", ["a (http://t)"]),
        ("[a]: http://t\n[A]: http://u\n\n[a]\n", ["a (http://t)"]),
        ("- [a]\n- b\n\n  [a]: http://t\n", [" • [a]", " • b", "", "[a]: http://t"]),
        ("[a](http://t) [a](http://t)\n", ["a (http://t) a (http://t)"]),
    ],
)
def test_a_link_definition_is_told_once(text: str, lines: list[str]) -> None:
    assert render_markdown(text, width=80) == lines
    for seed in range(5):
        plain = [STYLE.sub("", LINK.sub(r"\3", line)) for line in clickable(text, seed=seed)]
        assert [line.replace("`", "") for line in lines] == plain


@pytest.mark.parametrize(
    ("cell", "rows"),
    [
        ("one<br>two", ["one", "two"]),
        ("one<br/>two<BR />three", ["one", "two", "three"]),
        ("one <br> **two**", ["one", "two"]),
        ("`a<br>b`", ["`a<br>b`"]),
    ],
)
def test_a_break_in_a_cell_breaks_its_line(cell: str, rows: list[str]) -> None:
    lines = render_markdown(f"| head |\n|---|\n| {cell} |\n", width=80)
    assert [line.strip() for line in lines[2:]] == rows


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one<br>two", ["one", "two"]),
        ("one<br>\ntwo<br />\nthree", ["one", "two", "three"]),
        ("the tag <br> is one", ["the tag <br> is one"]),
        ("`<br>` List<br2>", ["`<br>` List<br2>"]),
    ],
)
def test_a_break_in_a_text_breaks_its_line_where_it_is_not_talked_about(
    text: str, lines: list[str]
) -> None:
    assert render_markdown(text, width=80) == lines


LONG = "https://example.com/" + "/".join(f"part-{n}" for n in range(20)) + "?a=1&b=2#end"


@pytest.mark.parametrize(
    "text", ["{}", "See {} for more.", "- at ({}), too", "> {}", "[so]({})", "<{}>"]
)
@pytest.mark.parametrize("width", [40, 80])
def test_a_long_address_stays_whole_and_can_be_clicked(text: str, width: int) -> None:
    lines = render_markdown(text.format(LONG), width=width)
    assert sum(LONG in line for line in lines) == 1
    assert all(len(line) <= width for line in lines if LONG not in line)
    assert {target for target, _ in targets(text.format(LONG), width=width)} == {LONG}


def test_the_pieces_of_an_address_in_a_narrow_cell_are_one_link() -> None:
    lines = clickable(f"| a | b |\n|---|---|\n| {LONG} | {'words ' * 20} |\n", width=60)
    found = LINK.findall("\n".join(lines))
    assert len(found) > 1
    assert {(identity, target) for identity, target, _ in found} == {(found[0][0], LONG)}
    assert "".join(STYLE.sub("", shown) for _, _, shown in found) == LONG


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://e.org/a_b_c, then", "https://e.org/a_b_c"),
        ("(https://e.org/x).", "https://e.org/x"),
        ("https://e.org/wiki/A_(b)!", "https://e.org/wiki/A_(b)"),
        ("**https://e.org/**", "https://e.org/"),
        ("https://e.org/*a*b", "https://e.org/*a*b"),
        ("参照：https://e.org/a。次", "https://e.org/a"),
        ("https://e.org/ü", "https://e.org/%C3%BC"),
        ("HTTP://E.org:80/x", "HTTP://E.org:80/x"),
        ("https://e.org?a=1&amp;b=2", "https://e.org?a=1&b=2"),
    ],
)
def test_an_address_in_a_text_can_be_clicked_and_is_told_once(text: str, target: str) -> None:
    assert [found for found, _ in targets(text)] == [target]
    assert "".join(render_markdown(text, width=80)).lower().count("://") == 1


@pytest.mark.parametrize(
    "text",
    [
        "https:// x",
        "xhttps://e.org",
        "`https://e.org`",
        "```\nhttps://e.org\n```",
        "[a](/local) [b](ftp://e.org) ![c](data:image/png;base64,x)",
        "[a](javascript:alert(1)) [b](file:///etc/passwd) <ssh://e.org>",
    ],
)
def test_what_cannot_be_opened_is_no_link(text: str) -> None:
    assert targets(text) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[https://bank.example](https://evil.example)", "(https://evil.example)"),
        ("[bank.example](https://evil.example/x)", "(https://evil.example/x)"),
        ("https://b\u0430nk.example/x", "(https://xn--"),
        ("<https://b\u0430nk.example/x>", "(https://xn--"),
        ("[mail](mailto:a@b.c)", "(mailto:a@b.c)"),
        ("[a]: https://evil.example/x\n\n[a] and [bank.example][a]", "bank.example (evil.example)"),
    ],
)
def test_where_a_link_leads_can_be_seen(text: str, told: str) -> None:
    assert told in "".join(render_markdown(text, width=90))


_HOSTILE = st.lists(
    st.sampled_from(
        [
            *(
                "http://",
                "https://x/",
                "mailto:",
                "<",
                ">",
                "[a](",
                ")",
                "[b]: ",
                "\n",
                " ",
                "|",
                "\\",
            ),
            *("%1b", "%5d", "%07", "%9c", "\x1b", "\x1b\\", "\x1b]8;;", "\x07", "\x9c", "\x9d8;;"),
            *(
                "&#27;",
                "&#x9b;",
                "&#7;",
                "\u202e",
                "&#x202e;",
                "\u2028",
                "\x85",
                ";",
                "id=1",
                "漢",
                "é",
            ),
            *(
                "| a | b |\n|---|---|\n",
                "$",
                "\\(",
                "\\[",
                "<br>",
                "`",
                "*",
                "\ud83d",
                "\U000e0041",
            ),
        ]
    ),
    max_size=25,
).map("".join)


@given(_HOSTILE, st.integers(0, 9))
def test_no_control_sequence_comes_out_but_styles_and_links_that_were_looked_at(
    text: str, seed: int
) -> None:
    whole = clickable(text, width=30)
    assert clickable(text, width=30, seed=seed) == whole
    for line in whole:
        for _, target, shown in LINK.findall(line):
            assert re.fullmatch(r"(?i:https?|mailto):[!-~]{1,2000}", target)
            assert STYLE.sub("", shown)
        assert not CONTROL.search(STYLE.sub("", LINK.sub(r"\3", line)))


def test_an_overlong_target_is_shown_but_no_link() -> None:
    address = "https://e.org/" + "x" * 3000
    assert targets(address) == []
    assert address in "".join(render_markdown(address, width=80))

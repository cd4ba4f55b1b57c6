"""Property: nothing a model writes can act on the terminal, and nothing merely visible is lost.

However the text is split into chunks, the result is that of the whole text.
"""

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.sanitize import Sanitizer, one_line, sanitize

FRAGMENTS = [
    *"\x00\x07\x08\t\n\x0b\x0c\r\x18\x1a\x1b\x7f\x84\x85\x8d\x90\x98\x9b\x9c\x9d\x9e\x9f",
    *"\u202a\u202e\u2066\u2069\u2028\u2029\ufe0f\U000e0001\U000e0041\ud83d\ude00\udb40\udc41",
    *"[]()PX^_\\;?0123 mhlcABé漢😀",
    "\x1b[31m",
    "\x1b]52;c;aGk=\x07",
    "\x1b]0;title\x1b\\",
    "\x1bPtmux;\x1b\x1b]52;c;aGk=\x07\x1b\\",
    "\r\n",
    "text",
    "x" * 5000,
    "1" * 130,
    " " * 9,
]
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)


def active(text: str) -> list[str]:
    """Return the characters of `text` that could act on a terminal."""
    return [
        character
        for character in text
        if (ord(character) < 0x20 and character not in "\n\t")
        or 0x7F <= ord(character) <= 0x9F
        or "\u202a" <= character <= "\u202e"
        or "\u2066" <= character <= "\u2069"
        or 0xD800 <= ord(character) <= 0xDFFF
        or 0xE0000 <= ord(character) <= 0xE007F
    ]


def fed(chunks: list[str]) -> str:
    sanitizer = Sanitizer()
    return "".join([*map(sanitizer.feed, chunks), sanitizer.flush()])


@settings(deadline=None)
@given(hostile, st.data())
def test_any_split_into_chunks_gives_the_same_as_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert fed(chunks) == sanitize(text)


@settings(deadline=None)
@given(hostile)
def test_character_by_character_gives_the_same_as_the_whole(text: str) -> None:
    assert fed(list(text)) == sanitize(text)


@settings(deadline=None)
@given(hostile | st.text())
def test_nothing_active_is_left_and_a_second_pass_changes_nothing(text: str) -> None:
    once = sanitize(text)
    assert active(once) == []
    assert sanitize(once) == once
    once.encode()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_text_of_visible_characters_is_left_alone(text: str) -> None:
    assert sanitize(text) == text
    assert fed(list(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "arr[i] [/INST] [red]x[/red] [/usr/bin]",
        "tab\tand\nnewline",
        "a\u2028b\u2029c",
        "List<String> <div> &#27; %1b %9b",
        "👩‍👩‍👧 ⚠️ 漢字 עברית\u200f",
    ],
)
def test_harmless_text_survives_byte_for_byte(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[31m",
        "\x1b[2J",
        "\x1b[10;20H",
        "\x1b[?1049h",
        "\x1b[!p",
        "\x9b1A",
        "\x1b]52;c;aGVsbG8=\x07",
        "\x1b]52;c;aGVsbG8=\x1b\\",
        "\x9d0;title\x9c",
        "\x1b]8;;http://evil\x1b\\",
        "\x1bP1$r0m\x1b\\",
        "\x1bXsos\x1b\\",
        "\x1b^pm\x1b\\",
        "\x1b_apc\x1b\\",
        "\x9fapc\x9c",
        "\x1bc",
        "\x1b7",
        "\x1b(0",
        "\x1b#8",
        "\x07",
        "\x08",
        "\x7f",
        "\x85",
        "\x9c",
        "\u202e",
        "\u2066",
        "\U000e0041",
        "\udb40\udc41",
    ],
)
def test_a_sequence_disappears_whole(sequence: str) -> None:
    assert sanitize(f"before{sequence}after") == "beforeafter"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\r\nb\r", "a\n\nb\n"),
        ("\ud83d\ude00", "😀"),
        ("\ud83dx\ude00", "\ufffdx\ufffd"),
        ("end\x1b", "end"),
        ("\x1b]never ends\nnext", "never ends\nnext"),
        ("\x1b[1;2\nnext", "1;2\nnext"),
        ("\x1bPa\x1b]52;c;b\x07c", "ac"),
        ("\x1b\x1b[31mred", "red"),
        ("\x1b漢", "漢"),
    ],
)
def test_what_is_no_whole_sequence_loses_no_text(text: str, shown: str) -> None:
    assert sanitize(text) == shown
    assert fed(list(text)) == shown


def test_an_unending_sequence_holds_back_only_a_bounded_length() -> None:
    sanitizer = Sanitizer()
    shown = sanitizer.feed("\x1b]52;c;") + "".join(sanitizer.feed("word ") for _ in range(2000))
    assert len(shown) > 5000
    assert shown.startswith("52;c;word word")


def test_a_string_longer_than_the_limit_is_shown_and_cannot_act() -> None:
    assert sanitize("\x1b]52;c;" + "A" * 10_000 + "\x07after") == "52;c;" + "A" * 10_000 + "after"


@pytest.mark.parametrize("unit", ["\x1b]", "\x9d", "\x1b[1", "\x1b ", "\x1b]" + "a" * 4000, "\r"])
def test_hostile_text_costs_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    fed([text[at : at + 8] for at in range(0, len(text), 8)])
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        ("  a\n\n b\t c  ", None, "a b c"),
        ("\x1b[31mred\x1b[0m\nname", None, "red name"),
        ("a\u2028b", None, "a b"),
        ("exact", 5, "exact"),
        ("too long", 5, "too…"),
        ("too long", 1, "…"),
        ("too long", 0, ""),
        ("", 5, ""),
    ],
)
def test_one_line_is_one_short_line(text: str, limit: int | None, line: str) -> None:
    assert one_line(text, limit) == line


def test_importing_it_does_not_import_rich() -> None:
    code = "import moa_cli.core.sanitize, sys; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

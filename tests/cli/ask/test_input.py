"""`moa ask`: what is asked. The prompt comes first, then each file and standard input in a
fence that nothing inside can close; what is no text, or nothing at all, is refused with exit
code 2 before anything is sent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import Moa
from tests.support.upstream import Upstream


def asked(upstream: Upstream) -> str:
    """The one prompt that all models were sent."""
    [prompt] = {str(request.messages[-1]["content"]) for request in upstream.chats()}
    return prompt


def refused(moa: Moa, upstream: Upstream, *arguments: str, stdin: bytes | None = None) -> str:
    """The line with which it was refused."""
    ran = moa.run("ask", *arguments, stdin=stdin)
    assert (ran.code, ran.out, upstream.requests) == (2, b"", [])
    assert ran.err.startswith("moa: ")
    assert ran.err.count("\n") == 1
    return ran.err


def test_piped_text_follows_the_prompt_in_a_fence(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "sum it up", stdin=b"one\ntwo\n").code == 0
    assert asked(upstream) == "sum it up\n\n```\none\ntwo\n```"


@pytest.mark.parametrize("words", [[], ["-"]])
def test_piped_text_alone_is_the_prompt(moa: Moa, upstream: Upstream, words: list[str]) -> None:
    assert moa.run("ask", *words, stdin=b"\n  what is\nrain?\n\n").code == 0
    assert asked(upstream) == "  what is\nrain?"


def test_code_as_an_argument_keeps_the_indentation_of_its_first_line(
    moa: Moa, upstream: Upstream
) -> None:
    assert moa.run("ask", "\n    return x\n\n    return y\n").code == 0
    assert asked(upstream) == "    return x\n\n    return y"


@pytest.mark.parametrize("stdin", [None, b"", b" \n\t\n"])
@pytest.mark.parametrize("words", [[], ["  "], ["-"]])
def test_nothing_to_ask_is_refused(
    moa: Moa, upstream: Upstream, stdin: bytes | None, words: list[str]
) -> None:
    assert "there is nothing to ask" in refused(moa, upstream, *words, stdin=stdin)


def test_an_empty_pipe_beside_a_prompt_adds_nothing(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "hi", stdin=b" \n").code == 0
    assert asked(upstream) == "hi"


LATIN_1 = "line 2 is 0xFC"
ICONV = "`iconv -f latin1 -t utf-8`"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("eins\nGr\xfc\xdfe".encode("latin-1"), f"is not UTF-8 text: byte 3 of {LATIN_1}"),
        ("eins\nGr\xfc\xdfe \u20ac".encode("cp1252"), f"is not UTF-8 text: byte 3 of {LATIN_1}"),
        ("\u4f60\u597d".encode("gbk"), "is not UTF-8 text: byte 1 of line 1 is 0xC4"),
        ("Gr\xfc\xdfe\n".encode("utf-16-le"), "is not UTF-8 text: it is UTF-16, it seems, without"),
        ("Gr\xfc\xdfe\n".encode("utf-16-be"), "is not UTF-8 text: it is UTF-16, it seems, without"),
        ("\ufeffhello".encode("utf-32-le"), "is not UTF-8 text: it is UTF-32"),
        ("hello".encode("utf-32-be"), "is not UTF-8 text: it is UTF-32, it seems, without"),
        (b"\xff\xfeh\0i", "is not valid UTF-16 text: byte 5 belongs to no character"),
        (b"\x1f\x8b\x08\0\0", "but a compressed file (gzip)"),
        (b"\x28\xb5\x2f\xfd\x04\x58", "but a compressed file (zstd) (unpack it first: `unzstd`)"),
        (b"BZh91AY&SY\x8b", "but a compressed file (bzip2)"),
        (b"PK\x03\x04\x14\0", "but a ZIP archive or an office document"),
        (b"text\n\0text", "line 2 holds a NUL character"),
    ],
)
def test_bytes_in_an_encoding_that_is_not_told_are_refused_from_files_and_pipes_alike(
    moa: Moa, upstream: Upstream, content: bytes, said: str
) -> None:
    (moa.folder / "file").write_bytes(content)
    for line in (
        refused(moa, upstream, "hi", "-f", "file"),
        refused(moa, upstream, "hi", stdin=content),
        refused(moa, upstream, stdin=content),
    ):
        assert said in line
        assert line.startswith(("moa: file: ", "moa: standard input: "))
        assert ICONV in line or "of line" not in line


def test_a_pdf_file_in_a_pipe_is_refused_unless_it_is_attached(
    moa: Moa, upstream: Upstream
) -> None:
    content = b"%PDF-1.4\n1 0 obj <</Type/Catalog>> endobj\n"
    for line in (
        refused(moa, upstream, "hi", stdin=content),
        refused(moa, upstream, stdin=content),
    ):
        assert line.startswith("moa: standard input: is not text, but a PDF file")
        assert "`-f -`" in line


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffGr\xfc\xdfe \U0001f319".encode(),
        "\ufeffGr\xfc\xdfe \U0001f319".encode("utf-16-le"),
        "\ufeffGr\xfc\xdfe \U0001f319".encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-16-le", "utf-16-be"],
)
def test_a_byte_order_mark_tells_the_encoding(moa: Moa, upstream: Upstream, content: bytes) -> None:
    (moa.folder / "file").write_bytes(content)
    assert moa.run("ask", "hi", "-f", "file", stdin=content).code == 0
    text = "```\nGr\xfc\xdfe \U0001f319\n```"
    assert asked(upstream) == f"hi\n\nfile:\n{text}\n\n{text}"


def test_a_dash_is_standard_input_among_the_files(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "file").write_text("in a file")
    assert moa.run("ask", "hi", "-f", "-", "-f", "file", stdin=b"piped\n").code == 0
    assert asked(upstream) == "hi\n\n```\npiped\n```\n\nfile:\n```\nin a file\n```"


def test_a_dash_with_nothing_piped_in_is_refused(moa: Moa, upstream: Upstream) -> None:
    assert "-f -: standard input holds no text" in refused(moa, upstream, "hi", "-f", "-")


def test_a_byte_order_mark_is_no_text(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", stdin=b"\xef\xbb\xbfhi").code == 0
    assert asked(upstream) == "hi"


def test_binary_input_is_refused(moa: Moa, upstream: Upstream) -> None:
    assert "not text" in refused(moa, upstream, "hi", stdin=b"\x7fELF\0\0\1")


def test_a_closed_standard_input_is_none(moa: Moa, upstream: Upstream) -> None:
    command = [sys.executable, "-m", "moa_cli", "ask", "hi"]
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        env=moa.environment,
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, b"ok\n")
    assert asked(upstream) == "hi"


def test_files_follow_the_prompt_each_in_its_fence_and_then_standard_input(
    moa: Moa, upstream: Upstream
) -> None:
    (moa.folder / "a.md").write_text("see:\n````\nx = `y`\n````\n")
    (moa.folder / "b c.txt").write_text("plain")
    assert moa.run("ask", "compare", "-f", "a.md", "--file", "b c.txt", stdin=b"in").code == 0
    assert asked(upstream) == (
        "compare\n\n"
        "a.md:\n`````\nsee:\n````\nx = `y`\n````\n`````\n\n"
        "b c.txt:\n```\nplain\n```\n\n"
        "```\nin\n```"
    )


def test_a_file_alone_is_enough_to_ask(moa: Moa, upstream: Upstream) -> None:
    (moa.folder / "question.txt").write_text("why?")
    assert moa.run("ask", "-f", "question.txt").code == 0
    assert asked(upstream) == "question.txt:\n```\nwhy?\n```"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "file: cannot be read: No such file or directory"),
        (b"\x7fELF\0\1", "file: is not a text file"),
        (b"text\0text", "file: is not a text file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(
    moa: Moa, upstream: Upstream, content: bytes | None, said: str
) -> None:
    if content is not None:
        (moa.folder / "file").write_bytes(content)
    assert said in refused(moa, upstream, "hi", "-f", "file")


def test_a_folder_that_holds_nothing_is_refused(moa: Moa, upstream: Upstream) -> None:
    told = f"{moa.folder}: holds no file that can be attached"
    assert told in refused(moa, upstream, "hi", "-f", str(moa.folder))


def test_a_prompt_that_is_no_unicode_is_sent_as_well_as_can_be(
    moa: Moa, upstream: Upstream
) -> None:
    ran = moa.run("ask", os.fsdecode(b"caf\xe9"))
    assert ran.code == 0
    assert asked(upstream) == "caf?"
    assert "moa: the prompt holds bytes that are not UTF-8; each is sent as `?`\n" in ran.err
    assert "not UTF-8" not in moa.run("ask", "caf\xe9").err


def test_a_prompt_may_look_like_an_option_after_two_dashes(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "--", "--why", "-q?").code == 0
    assert asked(upstream) == "--why -q?"


def test_a_very_long_prompt_arrives_whole(moa: Moa, upstream: Upstream) -> None:
    text = "".join(f"line {number} of a long text\n" for number in range(20_000))
    assert moa.run("ask", stdin=text.encode()).code == 0
    assert asked(upstream) == text.rstrip("\n")


@pytest.mark.parametrize("command", [["ask"], []], ids=["ask", "alone"])
@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("-why is it so?", "'-why is it so?'"),
        ("-mean of three", "'-mean of three'"),
        ("-fine, thanks", "'-fine, thanks'"),
        ("-r us", "'-r us'"),
        ("--help me with this", "'--help me with this'"),
        ("- one\n- two", "'- one - two'"),
    ],
)
def test_a_prompt_that_begins_with_a_dash_is_explained(
    moa: Moa, upstream: Upstream, command: list[str], prompt: str, shown: str
) -> None:
    ran = moa.run(*command, prompt)
    assert (ran.code, ran.out, upstream.requests) == (2, b"", [])
    assert ran.err.endswith(f"(to send it as the prompt: moa ask -- {shown})\n")
    assert ran.err.count("\n") == 1


def test_an_unknown_option_is_told_as_one(moa: Moa, upstream: Upstream) -> None:
    line = refused(moa, upstream, "--system", "- be terse", "-x", "hi")
    assert line == (
        "moa: No such option: -x (see `moa ask --help`;"
        " a prompt that begins with a dash goes after `--`)\n"
    )
    assert "see `moa ask --help`" in refused(moa, upstream, "-5")
    assert "if it is the prompt" not in refused(moa, upstream, "--system", "- be terse")

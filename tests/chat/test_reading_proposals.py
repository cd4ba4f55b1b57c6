"""Proposals and reasoning are read as replies are: drawn, and in a pager where they are long."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import Talk, at_empty_prompt
from tests.support.upstream import Reply, Upstream

LONG = "# Head\n\n" + "".join(f"- **point** {number}\n" for number in range(60))


def pager(folder: Path) -> tuple[str, Path]:
    """A pager that keeps what it is given, and that file."""
    log = folder / "pager.log"
    script = folder / "pager.py"
    script.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(log)!r}).write_bytes(sys.stdin.buffer.read())\n"
        "print('paged')\n",
        "utf-8",
    )
    return f"{sys.executable} {script}", log


def ask(terminal: Terminal) -> None:
    at_empty_prompt(terminal)
    terminal.send("hi\r")
    terminal.wait_for("calls, ")
    at_empty_prompt(terminal)


def do(terminal: Terminal, line: str) -> list[str]:
    """The lines that a command adds."""

    def prompts() -> list[int]:
        return [at for at, line in enumerate(terminal.lines()) if line.startswith("›")]

    before = len(prompts())
    terminal.send(f"{line}\r")
    terminal.wait_for(lambda: len(prompts()) > before)
    at_empty_prompt(terminal)
    start, end = prompts()[-2:]
    return [line for line in terminal.lines()[start + 1 : end] if line]


def test_a_short_proposal_is_drawn(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="# Head\n\nSome **bold** `code`."))
    with moa.terminal("chat") as terminal:
        ask(terminal)
        assert do(terminal, "/show 1") == ["lab:a (round 1)", "Head", "Some bold code."]
        do(terminal, "/plain")
        assert "# Head" in do(terminal, "/show 1")


@pytest.mark.parametrize("line", ["/show 1", "/show all", "/diff 1 2", "/reasoning 1"])
def test_what_is_longer_than_the_screen_is_paged(
    moa: Moa, upstream: Upstream, tmp_path: Path, line: str
) -> None:
    upstream.always("a", Reply(text=LONG, reasoning=[LONG]))
    command, log = pager(tmp_path)
    with moa.terminal("chat", env={"PAGER": command}) as terminal:
        ask(terminal)
        assert "paged" in do(terminal, line)
        text = log.read_text("utf-8")
        assert text.count("59") == 1
        assert ("**" in text) == ("diff" in line)
        assert "\x1b[" in text
        # The keys work as before.
        assert do(terminal, "/rounds") == ["rounds 1"]


@pytest.mark.parametrize(("wanted", "charset"), [({}, "utf-8"), ({"LESSCHARSET": "dos"}, "dos")])
def test_less_shows_the_signs_of_any_script_in_a_bare_locale(
    moa: Moa, upstream: Upstream, wanted: dict[str, str], charset: str
) -> None:
    upstream.always("a", Reply(text=LONG))
    command = "sh -c 'cat > /dev/null; echo paged as $LESSCHARSET'"
    with moa.terminal("chat", env={"PAGER": command, "LC_ALL": "C", **wanted}) as terminal:
        ask(terminal)
        assert f"paged as {charset}" in do(terminal, "/show 1")


def test_a_pager_that_cannot_be_started_is_told_of_and_the_text_is_shown(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("a", Reply(text=LONG))
    with moa.terminal("chat", env={"PAGER": "no-such-pager"}) as terminal:
        ask(terminal)
        lines = do(terminal, "/show 1")
        assert any("no-such-pager" in line for line in lines)
        assert " • point 59" in terminal.lines()


def test_side_by_side_no_line_of_code_is_cut(talk: Talk) -> None:
    code = "x = " + "y" * 200
    talk.upstream.always("a", Reply(text=f"```\n{code}\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    talk.do("hi")
    shown = talk.do("/show all")
    assert shown.count("y") == 200


def test_the_reasoning_of_a_turn_can_be_read_after_it(talk: Talk) -> None:
    talk.upstream.always("agg", Reply(text="So.", reasoning=["I think\x1b[2J ", "it is."]))
    talk.upstream.always("b", Reply(text="B.", reasoning=["Of *b*."]))
    assert talk.do("/reasoning") == "moa: there are no turns yet"
    talk.do("hi")
    assert talk.do("/reasoning") == "reasoning of lab:agg\nI think it is."
    assert talk.do("/reasoning 2") == "reasoning of lab:b\nOf *b*."
    assert talk.do("/reasoning 1").startswith("moa: lab:a returned no reasoning (")
    assert talk.do("/reasoning 3") == "moa: there is no proposal 3 (1 to 2)"
    assert talk.do("/reasoning on") == "reasoning is shown while models think"
    assert talk.chat.options.reasoning

"""The chat where a terminal can do less, or is wanted to: without colours, without a cursor that
can be moved, without moving parts, as raw text; and the words at the very first start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

REPLY = "# Head\n\nSome *words* and `code`.\n\n```py\nprint(1)\n```\n"
DRAWN = ["Head", "", "Some words and code.", "", "print(1)"]
BARE = ["# Head", "", "Some words and `code`.", "", "print(1)"]
RAW = ["# Head", "", "Some *words* and `code`.", "", "```py", "print(1)", "```"]
STEPS = [
    "moa: round 1: asking lab:a, lab:b, lab:c",
    "moa: lab:_: _ s, 2 tokens",
    "moa: lab:_: _ s, 2 tokens",
    "moa: lab:_: _ s, 2 tokens",
    "moa: round 1: 3 of 3 answered in _ s",
]
FOLDED = [f"✓ lab:{name}  _ s · 2 tok" for name in "abc"]
_SGR = re.compile(rb"\x1b\[([0-9;]*)m")
_MOVES = re.compile(rb"\x1b\[[0-9;]*[A-HJKSTf]")


def command(terminal: Terminal, text: str) -> None:
    """Give a command, and wait until it has been carried out."""
    terminal.send(f"{text}\r")
    terminal.wait_for(lambda: f"› {text}" in terminal.lines())
    at_empty_prompt(terminal)


@contextmanager
def switched(moa: Moa, switch: str) -> Iterator[Terminal]:
    """A chat changed by an option, by a slash command, or by a setting made beforehand."""
    if switch.startswith("config "):
        assert moa.run(*switch.split()).code == 0
    arguments = [switch] if switch.startswith("--") else []
    with moa.terminal("chat", *arguments) as terminal:
        if switch.startswith("/"):
            at_empty_prompt(terminal)
            command(terminal, switch)
        yield terminal


def turn(terminal: Terminal) -> tuple[list[str], bytes]:
    """What a turn leaves between its prompt and its figures, and all bytes that showed it."""
    at_empty_prompt(terminal)
    before = len(terminal.raw)
    terminal.send("Why?\r")
    terminal.wait_for("(4 calls, ")
    at_empty_prompt(terminal)
    lines = [re.sub(r"[\d.]+ s\b", "_ s", line) for line in terminal.lines()]
    lines = [re.sub(r"(?<=: lab:)\w(?=: )", "_", line) for line in lines]
    lines = [line.partition(" tok ·")[0] + " tok" * (" tok ·" in line) for line in lines]
    start = lines.index("› Why?")
    end = next(place for place, line in enumerate(lines) if line.startswith("(4 calls, "))
    shown = lines[start + 1 : end]
    return shown[: len(shown) - (not shown[-1])], bytes(terminal.raw[before:])


def colours(raw: bytes) -> list[int]:
    """The codes that set a colour."""
    codes = [int(code or 0) for found in _SGR.findall(raw) for code in found.split(b";")]
    return [code for code in codes if 30 <= code <= 49 or 90 <= code <= 107]


@pytest.fixture
def scripted(upstream: Upstream) -> Upstream:
    """Three that answer slowly enough to be seen at it, and a reply in Markdown."""
    upstream.always("*", Reply(text="an answer", delay=0.15, pause=0.15))
    upstream.always("agg", Reply(text=REPLY, delay=0.15, pause=0.05))
    return upstream


@pytest.mark.usefixtures("scripted")
def test_a_usual_terminal_gets_colours_and_drawn_markdown(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        lines, raw = turn(terminal)
    assert lines == [*FOLDED, "", *DRAWN]
    assert colours(raw)
    assert _MOVES.search(raw)


@pytest.mark.usefixtures("scripted")
def test_with_no_color_nothing_is_coloured(moa: Moa) -> None:
    with moa.terminal("chat", env={"NO_COLOR": "1", "COLORTERM": "truecolor"}) as terminal:
        lines, _ = turn(terminal)
        for text in ("/show 1", "/show all", "/diff 1 2", "/why", "/help", "/nope"):
            command(terminal, text)
        raw = bytes(terminal.raw)
    # Marks stand where colours would have told headings and code apart.
    assert lines == [*FOLDED, "", *BARE]
    assert colours(raw) == []


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_text_alone(moa: Moa, term: str) -> None:
    with moa.terminal("chat", env={"TERM": term}) as terminal:
        lines, _ = turn(terminal)
        for text in ("/show all", "/why", "/clear", "/help rounds"):
            command(terminal, text)
        terminal.send("\x03")
        terminal.wait_for("Ctrl-D or /exit leaves")
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        raw = bytes(terminal.raw)
    assert lines == [*STEPS, "", *RAW]
    assert b"\x1b" not in raw
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", raw)


def test_a_dumb_terminal_shows_the_prompt_that_comes_back(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(status=400))
    with moa.terminal("chat", env={"TERM": "dumb"}) as terminal:
        at_empty_prompt(terminal)
        terminal.send("Why?\r")
        terminal.wait_for("refused the request (400)")
        terminal.wait_for(lambda: terminal.shown()[-1] == "› Why?")
        terminal.wait_for(lambda: terminal.modes() == (False, False))
        terminal.send("\r")
        terminal.wait_for("(4 calls, ")
    assert [request.messages[-1]["content"] for request in upstream.chats("agg")] == ["Why?"] * 2


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("switch", ["--no-live", "/set live off", "config set live off"])
def test_without_moving_parts_each_step_is_a_line(moa: Moa, switch: str) -> None:
    with switched(moa, switch) as terminal:
        lines, raw = turn(terminal)
    assert lines == [*STEPS, "", *DRAWN]
    start, end = raw.index(b"round 1: asking"), raw.index(b"(4 calls")
    assert not _MOVES.search(raw[start:end])


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("switch", ["--plain", "/plain", "config set plain on"])
def test_plain_shows_the_reply_as_it_was_written(moa: Moa, switch: str) -> None:
    with switched(moa, switch) as terminal:
        lines, _ = turn(terminal)
    assert lines == [*FOLDED, "", *RAW]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("switch", ["--compact", "/set compact on", "config set compact on"])
def test_compact_leaves_one_line_of_a_layer(moa: Moa, switch: str) -> None:
    with switched(moa, switch) as terminal:
        lines, _ = turn(terminal)
    first = "round 1: 3 of 3 answered in _ s (lab:a, lab:b, lab:c)"
    assert lines == [first, "", *DRAWN]


@pytest.mark.usefixtures("scripted")
def test_a_typed_option_comes_before_the_setting(moa: Moa) -> None:
    moa.configure(
        providers=moa.settings()["providers"], live=False, plain=True, compact=True, vi=True
    )
    with moa.terminal("chat", "--live", "--no-plain", "--no-compact", "--no-vi") as terminal:
        lines, _ = turn(terminal)
    assert lines == [*FOLDED, "", *DRAWN]


def test_vi_s_keys_can_be_set_once_and_for_all(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("config", "set", "vi", "on").code == 0
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("Whyx\x1b")
        terminal.wait_for(lambda: terminal.screen.cursor.x == 5)
        terminal.send("x\r")
        terminal.wait_for("(4 calls, ")
    assert upstream.chats("agg")[0].messages[-1]["content"] == "Why"


@pytest.mark.usefixtures("scripted")
def test_16_colours_are_enough_where_there_are_no_more(moa: Moa) -> None:
    with moa.terminal("chat", env={"TERM": "xterm"}) as terminal:
        lines, raw = turn(terminal)
    assert lines == [*FOLDED, "", *DRAWN]
    assert set(colours(raw)) <= {*range(30, 38), 39, 90}


def _start(moa: Moa, config: Path, **environment: str) -> list[str]:
    """What stands above the first prompt, on a machine with these settings."""
    variables = {"MOA_CONFIG_DIR": str(config), "LAB_KEY": "", **environment}
    with moa.terminal("chat", columns=200, env=variables) as terminal:
        at_empty_prompt(terminal)
        lines = terminal.lines()
        terminal.send("\x04")
        assert terminal.wait() == 0
    return lines[: lines.index("›") - 1]


def test_the_very_first_start_tells_how_to_begin_and_no_later_one_does(
    moa: Moa, tmp_path: Path
) -> None:
    first, *others = (_start(moa, tmp_path / "empty") for _ in range(3))
    assert len(first) == 4
    text = " ".join(first)
    assert "profile local" in text
    assert all(word in text for word in ("TOGETHER_API_KEY", "Ollama", "/help", "Ctrl-D"))
    assert all(line.startswith("moa: ") for line in first)
    assert others == [[first[0], "moa: /help lists the commands, Ctrl-D leaves"]] * 2


def test_who_has_a_key_is_not_told_how_to_get_one(moa: Moa, tmp_path: Path) -> None:
    lines = _start(moa, tmp_path / "empty", TOGETHER_API_KEY="secret-key")
    assert len(lines) == 2
    assert "profile together" in lines[0]


@pytest.mark.parametrize("option", ["-p", "config"])
def test_who_has_settings_is_not_told_how_to_begin(moa: Moa, tmp_path: Path, option: str) -> None:
    config = tmp_path / "own"
    config.mkdir()
    if option == "config":
        (config / "config.toml").write_text("", "utf-8")
        assert len(_start(moa, config)) == 2
    else:
        assert len(_start(moa, config, MOA_PROFILE="ollama")) == 2
    assert not (moa.state / "greeted").exists()


def test_a_conversation_over_a_pipe_is_not_greeted(moa: Moa, tmp_path: Path) -> None:
    ran = moa.run("chat", env={"MOA_CONFIG_DIR": str(tmp_path / "empty"), "LAB_KEY": None})
    assert (ran.code, ran.out) == (0, b"")
    assert "/help" not in ran.err


def test_the_width_of_the_window_counts_and_no_variable(moa: Moa) -> None:
    seen = []
    for columns in ("", "0", "30", "300"):
        env = {"COLUMNS": columns} if columns else {}
        with moa.terminal("chat", "--no-save", columns=70, rows=60, env=env) as terminal:
            at_empty_prompt(terminal)
            for line in ("hi", "/show", "/help", "/help all", "/context"):
                command(terminal, line)
            text, _, _ = "\n".join(terminal.lines()).rpartition("\n›")
            seen.append(re.sub(r"\d+\.\d s", "_ s", text).split("\n"))
    assert any(line.startswith("(4 calls, ") for line in seen[0])
    assert seen == [seen[0]] * 4

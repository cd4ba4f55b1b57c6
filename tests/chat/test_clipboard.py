"""A reply is copied by the machine's tool, or by the terminal where there is none."""

from __future__ import annotations

import base64
import stat
import sys
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.talk import Talk, at_empty_prompt
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for clipboard tools, of which there are none else."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "TMUX", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    return folder


def tool(folder: Path, name: str, code: int = 0) -> Path:
    """A tool that writes its arguments and its input to the file that is returned."""
    log = folder / f"{name}.log"
    script = folder / name
    script.write_text(
        f"#!{sys.executable}\nimport sys\nprint('noise')\n"
        f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:]) + '|' + sys.stdin.read())\n"
        f"sys.exit({code})\n",
        "utf-8",
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return log


CODE = "Look:\n\n```sh\nls\n```\n\nor\n\n~~~py\nprint(1)\n\nprint(2)\n~~~\n\nDone."


@pytest.mark.parametrize(
    ("name", "variable", "arguments"),
    [
        ("pbcopy", None, ""),
        ("wl-copy", "WAYLAND_DISPLAY", ""),
        ("xclip", "DISPLAY", "-selection clipboard"),
        ("xsel", "DISPLAY", "--clipboard --input"),
        ("tmux", "TMUX", "load-buffer -w -"),
    ],
)
def test_copy_hands_the_reply_to_the_tool_that_is_there(
    talk: Talk,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str | None,
    arguments: str,
) -> None:
    log = tool(tools, name)
    if variable:
        monkeypatch.setenv(variable, "x")
    talk.upstream.always("agg", Reply(text=CODE))
    assert talk.do("hi", "/copy") == f"copied {len(CODE)} characters ({name})"
    assert log.read_text("utf-8") == f"{arguments}|{CODE}"
    assert "noise" not in talk.out
    talk.do("/copy code")
    assert log.read_text("utf-8") == f"{arguments}|print(1)\n\nprint(2)"


def test_a_tool_that_fails_or_belongs_to_another_machine_is_passed_over(
    talk: Talk, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    tool(tools, "xclip", code=1)
    log = tool(tools, "xsel")
    assert talk.do("hi", "/copy") == "copied 2 characters (xsel)"
    log.unlink()
    monkeypatch.setenv("SSH_CONNECTION", "far away")
    said = talk.do("/copy")
    assert said == "moa: there is neither a clipboard tool nor a terminal"
    assert not log.exists()


def test_what_is_copied_is_only_text(talk: Talk, tools: Path) -> None:
    log = tool(tools, "pbcopy")
    # Pasted into a shell, this would be run.
    talk.upstream.always("agg", Reply(text="harmless\x1b[201~\r\nrm -rf /\x03"))
    talk.do("hi", "/copy")
    assert log.read_text("utf-8") == "|harmless\nrm -rf /"


BLOCKS = (
    "1. Do:\n\n    ```sh\n    make\n      all\n    ```\n2. And\n\n   ~~~\n   x ``` y\n   ~~~\n\n"
    "> ```py\n> 1\n> ```\n\nor\n\n    indented\n\n`no block`\n\n```\nunclosed\n"
)


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        ("1", "make\n  all", "copied 10 characters of block 1 of 5 (pbcopy)"),
        ("2", "x ``` y", "copied 7 characters of block 2 of 5 (pbcopy)"),
        ("3", "1", "copied 1 character of block 3 of 5 (pbcopy)"),
        ("4", "indented", "copied 8 characters of block 4 of 5 (pbcopy)"),
        ("5", "unclosed", "copied 8 characters of block 5 of 5 (pbcopy)"),
        ("code", "unclosed", "copied 8 characters of block 5 of 5 (pbcopy)"),
        ("6", None, "moa: there is no block of code 6 (1 to 5)"),
        ("0", None, "moa: there is no block of code 0 (1 to 5)"),
        ("x", None, "moa: /copy, /copy N or /copy code, not /copy x"),
    ],
)
def test_copy_takes_the_block_of_code_of_that_number(
    talk: Talk, tools: Path, argument: str, code: str | None, said: str
) -> None:
    log = tool(tools, "pbcopy")
    talk.upstream.always("agg", Reply(text=BLOCKS))
    talk.do("hi")
    assert talk.do(f"/copy {argument}") == said
    assert (log.read_text("utf-8") if log.exists() else None) == (code and f"|{code}")


def test_a_reply_without_code_has_none_to_copy(talk: Talk, tools: Path) -> None:
    tool(tools, "pbcopy")
    talk.do("hi")
    assert talk.do("/copy 1") == "moa: the reply holds no block of code"


@pytest.mark.parametrize("tmux", [False, True])
def test_without_a_tool_the_terminal_is_asked_through_tmux_too(
    moa: Moa, upstream: Upstream, tmp_path: Path, tmux: bool
) -> None:
    text = "Ünïcode and ```code```"
    upstream.always("agg", Reply(text=text))
    environment = {"PATH": str(tmp_path)} | ({"TMUX": "/tmp/x,1,0"} if tmux else {})
    with moa.terminal("chat", env=environment) as terminal:
        at_empty_prompt(terminal)
        terminal.send("hi\r")
        terminal.wait_for("calls, ")
        at_empty_prompt(terminal)
        terminal.send("/copy\r")
        # On the raw bytes: the emulator shows what a terminal that knows tmux hides.
        told = f"copied {len(text)} characters (the terminal".encode()
        terminal.wait_for(lambda: told in terminal.raw)
        raw = bytes(terminal.raw)
    encoded = base64.b64encode(text.encode())
    plain, wrapped = (
        b"\x1b]52;c;%b\x07" % encoded,
        b"\x1bPtmux;\x1b\x1b]52;c;%b\x07\x1b\\" % encoded,
    )
    assert raw.count(wrapped if tmux else plain) == 1
    assert raw.count(b"]52;") == 1

"""Where nothing is to be saved, no file holds a word of what was said, whichever way it came in;
and what was saved and deleted is nowhere either."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.command import Moa, Terminal
from tests.support.planted import WORD, holders
from tests.support.server import serving
from tests.support.talk import at_prompt
from tests.support.upstream import Reply, Upstream

SAID = Reply(text=f"a {WORD} says", reasoning=[f"a {WORD} thinks"])
STUCK = Reply(text=f"a {WORD} says", stall_after=2)
WAYS = ["--no-save", "MOA_SAVE", "config"]


@pytest.fixture
def moa(moa: Moa, upstream: Upstream) -> Moa:
    """The command, its folder for temporary files in its home; all models say the word."""
    upstream.always("*", SAID)
    scratch = Path(moa.environment["HOME"]) / "scratch"
    scratch.mkdir()
    moa.environment |= {"TMPDIR": str(scratch), "SQLITE_TMPDIR": str(scratch)}
    editor = scratch.parent / "editor.py"
    editor.write_text(
        "import sys\npath = sys.argv[-1]\n"
        "open(path + '~', 'w').write(open(path).read())\n"
        f"open(path, 'a').write('and {WORD[:6]}' + {WORD[6:]!r})\n"
    )
    moa.environment["VISUAL"] = f"{sys.executable} {editor}"
    return moa


def unsaved(moa: Moa, how: str) -> list[str]:
    """Turn saving off in that way; the options that are to be typed."""
    if how == "MOA_SAVE":
        moa.environment["MOA_SAVE"] = "0"
    if how == "config":
        moa.configure(providers=moa.settings()["providers"], save=False)
    return ["--no-save"] if how == "--no-save" else []


def found(moa: Moa) -> list[str]:
    """What holds the word."""
    return holders(Path(moa.environment["HOME"]))


def attachment(moa: Moa) -> Path:
    """A file with the word in it and in its name."""
    path = moa.folder / f"{WORD}.txt"
    path.write_text(f"{WORD} inside")
    return path


def ended(terminal: Terminal, turns: int) -> None:
    """Until so many turns have ended."""
    terminal.wait_for(
        lambda: len(re.findall(r"^\(\d+ calls?, ", "\n".join(terminal.lines()), re.M)) == turns
    )
    at_prompt(terminal)


def talk(terminal: Terminal, file: Path) -> None:
    """Say the word in each way that a chat has."""
    at_prompt(terminal)
    for line, seen in (
        (f"/system be a {WORD}", "system"),
        (f"/file {file.name}", "goes with the next prompt"),
    ):
        terminal.send(f"{line}\r")
        terminal.wait_for(seen)
        at_prompt(terminal)
    terminal.send(f"what is a {WORD}?\r")
    ended(terminal, 1)
    terminal.send("/edit it eats\r")
    terminal.wait_for(f"› it eatsand {WORD}")
    terminal.send("\r")
    ended(terminal, 2)
    terminal.send("and sleeps\x18\x05")
    terminal.wait_for(f"› and sleepsand {WORD}")
    terminal.send("\r")
    ended(terminal, 3)
    terminal.send("/undo\r")
    terminal.wait_for("forgot: ")
    at_prompt(terminal)
    terminal.send("/retry\r")
    ended(terminal, 4)


@pytest.mark.parametrize("how", WAYS)
def test_ask(moa: Moa, how: str) -> None:
    options = unsaved(moa, how)
    file = attachment(moa)
    asked = ["ask", f"{WORD}?", "-f", file.name, "-s", f"be a {WORD}", *options]
    ran = moa.run(*asked, stdin=f"piped {WORD}".encode())
    assert ran.code == 0
    assert WORD in ran.text
    file.unlink()
    assert found(moa) == []


@pytest.mark.parametrize("how", WAYS)
def test_chat(moa: Moa, how: str) -> None:
    options = unsaved(moa, how)
    file = attachment(moa)
    with moa.terminal("chat", "--no-live", *options, columns=120, rows=60) as terminal:
        talk(terminal, file)
        # What was typed can be had again all the same.
        terminal.send(f"\x12{WORD}?")
        terminal.wait_for(f"what is a {WORD}?")
        terminal.send("\r\x03")
        at_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    file.unlink()
    assert found(moa) == []


def test_chat_killed_in_a_turn(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", STUCK)
    with moa.terminal("chat", "--no-save") as terminal:
        at_prompt(terminal)
        terminal.send(f"what is a {WORD}?\r")
        terminal.wait_for(f"a {WORD}")
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    assert found(moa) == []


def test_chat_over_plain_lines(moa: Moa) -> None:
    lines = f"what is a {WORD}?\n/system {WORD}\nand {WORD}?\n/retry\n/undo\n"
    assert moa.run("chat", "--no-save", stdin=lines.encode()).code == 0
    assert found(moa) == []


def test_compare(moa: Moa, upstream: Upstream) -> None:
    # Where all answer the same, nothing is asked.
    upstream.always("a", Reply(text=f"another {WORD} says"))
    with moa.terminal("compare", "--no-save", f"what is a {WORD}?") as terminal:
        terminal.wait_for("Which is best?")
        terminal.send("a")
        assert terminal.wait() == 0
    assert found(moa) == []


def test_serve_never_keeps_a_word(moa: Moa) -> None:
    with serving(moa) as server:
        question = [{"role": "user", "content": f"what is a {WORD}?"}]
        assert WORD in server.ask(messages=question).text
        assert server.ask(messages=question, moa={"rounds": WORD}).status_code == 400
        assert server.http.post(f"{server.url}/chat/completions", content=WORD).status_code == 415
        assert server.end() == 0
        assert WORD not in "\n".join(server.log)
    assert found(moa) == []


@pytest.mark.parametrize("target", ["-", "out.jsonl"])
def test_batch(moa: Moa, target: str) -> None:
    source = write_lines(moa.folder / "in.jsonl", [{"id": 1, "prompt": f"what is a {WORD}?"}])
    ran = moa.run("batch", source.name, target, "--no-save", "-s", f"be a {WORD}")
    assert ran.code == 0
    out = moa.folder / target
    assert WORD in (ran.text if target == "-" else out.read_text("utf-8"))
    source.unlink()
    out.unlink(missing_ok=True)
    assert found(moa) == []


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="no /proc to look at")
@pytest.mark.parametrize(("options", "kept"), [(["--no-save"], False), ([], True)])
def test_a_crash_writes_no_core_file(
    moa: Moa, upstream: Upstream, options: list[str], kept: bool
) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("no process here may write a core file")

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    upstream.always("agg", STUCK)
    with moa.start("ask", "why?", *options, preexec_fn=allow) as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    [soft] = re.findall(r"Max core file size +(\S+)", limits)
    assert (soft != "0") is kept


def test_what_was_saved_and_deleted_is_nowhere(moa: Moa, upstream: Upstream) -> None:
    file = attachment(moa)
    assert moa.run("ask", f"{WORD}?", "-f", file.name, "-s", f"be a {WORD}").code == 0
    with moa.terminal("chat", "--no-live", columns=120, rows=60) as terminal:
        talk(terminal, file)
        terminal.send("\x04")
        assert terminal.wait() == 0
    upstream.always("agg", STUCK)
    with moa.terminal("chat", "-c") as terminal:
        at_prompt(terminal)
        terminal.send(f"again {WORD}\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 6)
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait()
    file.unlink()
    assert len(found(moa)) >= 2
    ran = moa.run("history", "delete", "--all", "--yes")
    assert ran.err.startswith("moa: deleted 2 conversations, "), ran.err
    assert found(moa) == []

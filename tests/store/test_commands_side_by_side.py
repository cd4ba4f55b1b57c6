"""All commands beside each other on one store, some of them killed: nothing is lost.

MOA_SIDE_BY_SIDE sets how many rounds are run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.command import PATIENCE, Moa, Terminal
from tests.support.kept import counted_calls, keep, sound
from tests.support.server import Server, serving
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream
from tests.support.watched import Watch

ROUNDS = int(os.environ.get("MOA_SIDE_BY_SIDE", "3"))
# What is run in each round, all at once; `{}` is the round's number.
COMMANDS = (
    ["ask", "asked {}"],
    ["ask", "asked too {}"],
    ["ask", "-c", "went on {}"],
    ["batch", "--yes", "in.txt", "out{}.jsonl"],
    ["history", "list"],
    ["history", "search", "asked"],
    ["history", "show"],
    ["history", "export", "--all", "--format", "json", "-o", "all{}.json"],
    ["history", "import", "old.json"],
    ["history", "stats"],
    ["history", "check"],
    ["history", "backup", "copy{}.db"],
    ["history", "clean"],
    ["doctor", "--offline"],
)
KILLED = ("ask", "batch")


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command, with the upstream as provider `lab`."""
    upstream.always("*", Reply(text="one two three four", pause=0.02, usage=(100, 10)))
    machine = Moa(tmp_path, upstream.url)
    (machine.folder / "in.txt").write_text("first line\nsecond line\n", "utf-8")
    return machine


def prompts(moa: Moa) -> set[str]:
    exported = json.loads(moa.run("history", "export", "--all", "--format", "json").text)
    return {
        turn["prompt"]
        for conversation in exported["conversations"]
        for turn in conversation["turns"]
        if turn["status"] == "finished"
    }


def ask_in_chat(terminal: Terminal, text: str) -> None:
    before = terminal.raw.count(b"4 calls")

    def is_answered() -> bool:
        return terminal.raw.count(b"4 calls") > before

    def is_asked() -> bool:
        return next(filter(str.strip, reversed(terminal.shown())), "").startswith("r reads it")

    terminal.send(f"{text}\r")
    terminal.wait_for(lambda: is_answered() or is_asked())
    if not is_answered():
        # `ask -c` has added a turn to the conversation of the chat.
        terminal.send("f")
        terminal.wait_for(is_answered)


def a_round(
    moa: Moa, number: int, some: random.Random, server: Server, terminal: Terminal
) -> set[str]:
    """Run all commands at once, and kill some; returns the prompts that were answered."""
    gone = keep(moa, (f"to be deleted {number}", "gone"))
    answered = set()
    with ExitStack() as stack:
        running = []
        for command in (*COMMANDS, ["history", "delete", "--yes", gone]):
            arguments = [part.format(number) for part in command]
            running.append((arguments, stack.enter_context(moa.start(*arguments))))
        server.ask(messages=[{"role": "user", "content": f"served {number}"}])
        ask_in_chat(terminal, f"chatted {number}")
        terminal.send("/resume\r")
        terminal.wait_for("Enter resumes")
        terminal.send("\x1b")
        at_empty_prompt(terminal)
        for arguments, process in running:
            if arguments[0] in KILLED and some.random() < 0.4:
                time.sleep(some.random() * 0.5)
                process.send_signal(signal.SIGKILL)
        for arguments, process in running:
            _, err = process.communicate(timeout=PATIENCE)
            assert b"Traceback" not in err, err.decode()
            if process.returncode == -signal.SIGKILL:
                continue
            assert process.returncode == 0, (arguments, err.decode())
            if arguments[0] == "ask":
                answered.add(arguments[-1])
    return {*answered, f"chatted {number}"}


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_all_commands_beside_each_other_lose_nothing(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    watch = Watch(moa, tmp_path)
    keep(moa, ("an old question", "an old answer"))
    assert moa.run("history", "export", "--all", "-o", "old.json").code == 0
    some = random.Random(7)
    answered: set[str] = set()
    with serving(moa) as server, moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        for number in range(ROUNDS):
            answered |= a_round(moa, number, some, server, terminal)
            sound(moa)
        terminal.send("\x04")
        assert terminal.wait() == 0
        server.end()
    sound(moa)
    assert answered <= prompts(moa)
    assert not {f"to be deleted {number}" for number in range(ROUNDS)} & prompts(moa)
    made = sum(request.is_chat for request in upstream.requests)
    # A call that was written down, and killed before it was sent, is counted, too.
    assert made <= counted_calls(moa) <= made + 4 * ROUNDS
    assert watch.touched() == []

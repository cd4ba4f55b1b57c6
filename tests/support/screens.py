"""What `moa chat` shows at its main moments, from a real run at a pseudo-terminal: for the pages of
the documentation, and for the test that they still tell how it looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.support.command import Moa, Terminal
from tests.support.kept import keep
from tests.support.network import nobody
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

__all__ = ["PAGE", "captures", "comparable", "screens_of", "with_screens"]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "chat.md"
# A comment in the page names the screen that the block below it shows.
_BLOCK = re.compile(r"(<!-- screen: ([a-z ]+) -->\n\n```text\n)(.*?)(```\n)", re.DOTALL)

_QUESTION = "Why is the sky blue?"
_FAST, _STEADY, _SLOW, _WRITER = "llama-3.3-70b", "qwen2.5-72b", "deepseek-v3", "mistral-large"
_FAST_ANSWER = "Air scatters **blue light** more than red light: Rayleigh scattering."
_STEADY_ANSWER = """\
Sunlight holds all colours.

1. Molecules of air are smaller than a wavelength.
2. Short waves are scattered much more than long ones.
3. So blue light comes from every side.

Why not violet? The Sun sends less of it.
"""
_SLOW_ANSWER = "It is often said that the sky mirrors the sea. It does not: the colour is made"
_REPLY = """\
## Why the sky is blue

Molecules of air scatter **short waves far more than long ones**.

- **The law.** It grows with the fourth power of the frequency, `1/λ⁴`.
- **Red sunsets.** The long way through the air takes the blue out.

| colour | wavelength | scattered |
|:-------|-----------:|----------:|
| red    |     700 nm |        1× |
| blue   |     450 nm |      5.9× |
"""
_SECOND_REPLY = "Mars has little air, and much dust in it: by day its sky is"


def captures(moa: Moa, upstream: Upstream) -> dict[str, str]:
    """The screens, by name, without empty rows at their ends."""
    upstream.models_reply = Reply(
        error={
            "object": "list",
            "data": [
                {"id": _FAST, "context_length": 131072, "pricing": {"input": 0.88, "output": 0.88}},
                {"id": _STEADY, "context_length": 32768, "pricing": {"input": 1.2, "output": 1.2}},
                {"id": _SLOW, "context_length": 131072, "pricing": {"input": 1.25, "output": 1.25}},
                {"id": _WRITER, "context_length": 131072, "pricing": {"input": 2, "output": 6}},
            ],
        }
    )
    upstream.enqueue(_FAST, Reply(text=_FAST_ANSWER))
    for model, text in ((_STEADY, _STEADY_ANSWER), (_SLOW, _SLOW_ANSWER)):
        upstream.enqueue(model, _stalling(text))
    upstream.enqueue(_WRITER, Reply(text=_REPLY))
    upstream.enqueue(_WRITER, _stalling(_SECOND_REPLY))
    moa.profile(
        "lab",
        *({"model": f"lab:{model}", "name": model} for model in (_FAST, _STEADY, _SLOW)),
        aggregator=_WRITER,
    )
    keep(moa, ("What do zebras wear?", "Stripes."), ("Why?", "Flies."))
    keep(moa, ("What is rain?", "Water that falls from clouds."))
    # The models of a server on this machine would be in the list of models.
    moa.environment["OLLAMA_HOST"] = f"127.0.0.1:{nobody()}"
    found: dict[str, str] = {}
    with moa.terminal("chat", columns=80, rows=24) as terminal:

        def capture(name: str) -> None:
            terminal.settle(0.05)
            found[name] = "\n".join(terminal.shown())

        at_empty_prompt(terminal)
        terminal.send("/re")
        terminal.wait_for("/retry")
        capture("menu")
        terminal.send("\x15/model\r")
        terminal.wait_for("Ctrl-A aggregator")
        terminal.wait_for("32,768")
        capture("models")
        terminal.send("\x1b")
        at_empty_prompt(terminal)
        terminal.send("/resume\r")
        terminal.wait_for("Enter resumes")
        capture("conversations")
        terminal.send("\x1b")
        at_empty_prompt(terminal)
        terminal.send("\x0c")
        at_empty_prompt(terminal)
        terminal.send(f"{_QUESTION}\r")
        terminal.wait_for(f"✓ {_FAST}")
        terminal.wait_for(lambda: _has_all(terminal, "the colour is", "less of"))
        capture("board")
        terminal.send("\x1b")
        terminal.wait_for("4 calls")
        at_empty_prompt(terminal)
        capture("reply")
        terminal.send("And on Mars?\r")
        terminal.wait_for("its sky is")
        capture("status line")
    return found


def _stalling(text: str) -> Reply:
    """An answer of which nothing more comes."""
    words = re.findall(r"\S+\s*", text)
    return Reply(chunks=[*words, "…"], stall_after=len(words))


def _has_all(terminal: Terminal, *texts: str) -> bool:
    screen = "\n".join(terminal.shown())
    return all(text in screen for text in texts)


def comparable(screen: str) -> str:
    """A screen without what differs from run to run: times, rates, what is estimated while tokens
    come, dates, and the room that these take."""
    screen = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d|\d\d-\d\d \d\d:\d\d|\d\d:\d\d", "0", screen)
    screen = re.sub(r"~?\d[\d,]* (tok/s|tok|tokens|s)\b|~?\d+\.\d s\b", "0", screen)
    screen = re.sub(r"~?\$[\d.]+", "$0", screen)
    # How much of a text fits on the row of its proposer.
    screen = re.sub(r"(?m)^(▸ \S+) .*…[^…]*$", r"\1", screen)
    # Where one of these is longer, others are left out to its right, or the line is folded there.
    screen = re.sub(r"(0|\$0|first 0|no token for 0)( · )?", "", screen)
    return re.sub(r"[ ─…\n]+", " ", screen)


def screens_of(page: str) -> dict[str, str]:
    """The screens that a page shows, by name."""
    return {match[2]: match[3].rstrip("\n") for match in _BLOCK.finditer(page)}


def with_screens(page: str, screens: Mapping[str, str]) -> str:
    """The page with these screens in place of those that it shows. Raises KeyError."""
    return _BLOCK.sub(lambda match: f"{match[1]}{screens[match[2]]}\n{match[4]}", page)

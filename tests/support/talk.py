"""A conversation over plain lines or at a terminal, and what its models were sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from moa_cli.chat.loop import Chat
from moa_cli.chat.session import Session
from moa_cli.engine import Limits
from tests.support.command import Terminal
from tests.support.mixtures import mixture, pool
from tests.support.upstream import Upstream

__all__ = ["Talk", "at_empty_prompt", "at_prompt", "references", "sent"]


def sent(upstream: Upstream, model: str = "agg") -> list[list[str]]:
    """What that model was sent, call by call, without system messages."""
    return [
        [str(message["content"]) for message in request.messages if message["role"] != "system"]
        for request in upstream.chats(model)
    ]


def references(upstream: Upstream, call: int = -1, model: str = "agg") -> list[str]:
    """The references of a call to the aggregator."""
    system = upstream.chats(model)[call].messages[0]
    return re.findall(r"^\d+\. (.*)$", str(system["content"]), re.MULTILINE)


def at_prompt(terminal: Terminal) -> None:
    """Until a line can be typed, once the program has taken what was typed before."""
    terminal.wait_for(lambda: _prompt(terminal) is not None)


def at_empty_prompt(terminal: Terminal) -> None:
    """Until a line can be typed, and nothing stands in it."""
    terminal.wait_for(lambda: _prompt(terminal) == "›")


def _prompt(terminal: Terminal) -> str | None:
    """The row of the prompt, if the keys that were typed last have led to it."""
    answered = terminal.has_answered()
    row = terminal.screen.display[terminal.screen.cursor.y].rstrip()
    ready = answered and row.startswith("›") and terminal.modes() == (False, False)
    return row if ready else None


class Talk:
    """A conversation over plain lines. out: what the last ones put on standard output."""

    def __init__(self, upstream: Upstream, capture: pytest.CaptureFixture[str]) -> None:
        self.upstream = upstream
        self.out = ""
        self._capture = capture
        self._runner = asyncio.Runner()
        self._pool = pool(upstream)
        self.chat = Chat(Session(mixture("a", "b"), self._pool, Limits(retries=0)))
        self.session = self.chat.session

    def do(self, *lines: str) -> str:
        """What is said on standard error to these lines, without the turns' figures."""

        async def given() -> AsyncIterator[str]:
            for line in lines:
                yield line

        self._runner.run(self.chat.read(given()))
        self.out, err = self._capture.readouterr()
        return re.sub(r"^\(\d+ calls?, .*\n", "", err, flags=re.MULTILINE).strip()

    def sent(self, model: str) -> list[list[str]]:
        """What that model was sent, call by call, without system messages."""
        return sent(self.upstream, model)

    def references(self, call: int = -1, model: str = "agg") -> list[str]:
        """The references of a call to the aggregator."""
        return references(self.upstream, call, model)

    def remembered(self) -> list[tuple[str, str | None]]:
        return [(turn.user, turn.reply) for turn in self.session.conversation.turns]

    def close(self) -> None:
        self._runner.run(self._pool.aclose())
        self._runner.close()

"""An editor with a pipe for a keyboard."""

from __future__ import annotations

import asyncio
import os
import select

from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from moa_cli.chat.commands.registry import ChatOptions
from moa_cli.chat.input import Editor
from moa_cli.chat.loop import Chat
from moa_cli.chat.session import Session
from moa_cli.engine import Limits
from tests.support.command import PATIENCE
from tests.support.mixtures import InProcess, mixture

__all__ = ["typed"]


def typed(*keys: str, default: str = "", options: ChatOptions | None = None) -> str:
    """The line that these keys send; each item is typed a while after the one before."""

    async def type_them() -> str:
        session = Session(mixture("a"), InProcess({}), Limits())
        with create_pipe_input() as source:
            editor = Editor(
                Chat(session, options or ChatOptions()),
                lambda columns: "",
                source=source,
                output=DummyOutput(),
            )
            line = asyncio.create_task(editor.read(default))
            for piece in keys:
                # Longer than the editor waits for the rest of a sequence, once it has read this.
                await asyncio.sleep(0.15)
                source.send_bytes(os.fsencode(piece))
                while not line.done() and select.select([source.fileno()], [], [], 0)[0]:
                    await asyncio.sleep(0)
            return await asyncio.wait_for(line, PATIENCE)

    return asyncio.run(type_them())

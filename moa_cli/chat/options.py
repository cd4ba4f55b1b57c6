"""How a chat is shown and typed; nothing of it is sent to a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from moa_cli.config.schema import Config


@dataclass
class ChatOptions:
    """plain: show replies as raw text. compact: fold a layer into one line.

    live: draw moving parts. reasoning: show what models think, while they think.
    multiline: Enter begins a new line, Alt-Enter sends. vi: edit with vi's keys.
    attachments: texts that go with the next prompt.
    prompts: most prompts in the file of those typed, 0 is no file. save: whether this chat adds
    to it.
    """

    plain: bool = False
    compact: bool = False
    live: bool = True
    reasoning: bool = False
    multiline: bool = False
    vi: bool = False
    attachments: list[str] = field(default_factory=list)
    prompts: int = Config.prompt_history
    save: bool = True

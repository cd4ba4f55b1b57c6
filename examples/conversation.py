"""Hold a conversation: each turn sees the earlier prompts and replies."""

from __future__ import annotations

import sys

from moa_cli import Conversation, ask


def main(prompts: list[str]) -> None:
    """Ask the prompts one after another."""
    conversation = Conversation()
    for prompt in prompts:
        turn = ask(prompt, conversation=conversation)
        if turn.error is not None:
            raise SystemExit(turn.error.message)
        print(f"> {prompt}\n{turn.reply}\n")
        # A conversation never changes: this is a new one.
        conversation = Conversation(turns=(*conversation.turns, turn))


if __name__ == "__main__":
    main(sys.argv[1:] or ["Name a colour.", "Name another one."])

"""Conversations put straight into a user's store."""

from __future__ import annotations

from moa_cli.core.conversation import Turn
from moa_cli.store.store import Store
from tests.support.command import Moa

__all__ = ["keep"]


def keep(moa: Moa, *turns: tuple[str, str], title: str | None = None, profile: str = "lab") -> str:
    """Keep a conversation of prompts and replies, as the latest; returns its id."""
    store = Store.open(moa.state.parent / "data" / "conversations.db")
    try:
        identity = store.begin_conversation(turns[0][0], profile)
        for prompt, reply in turns:
            number = store.begin_turn(identity, prompt, profile, "rounds = 1")
            store.end_turn(number, Turn(prompt, reply, "finished", profile))
        if title is not None:
            store.rename(identity, title)
        return identity
    finally:
        store.close()

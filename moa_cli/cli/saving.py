"""Opening the store for a command, and the options that go with it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli import wiring
from moa_cli.conversation import Conversation
from moa_cli.errors import StoreError

if TYPE_CHECKING:
    from moa_cli.store import Store

__all__ = ["Cid", "Continue", "NoSave", "Resumed", "open_store", "resume", "warn"]

Continue = Annotated[
    bool, typer.Option("-c", "--continue", help="Go on with the last conversation.")
]
Cid = Annotated[
    str | None,
    typer.Option("--cid", metavar="ID", help="Go on with this conversation (a unique prefix)."),
]
NoSave = Annotated[bool, typer.Option("--no-save", help="Do not keep this conversation.")]

_OFF = ("0", "false", "no", "off")


def open_store(*, no_save: bool) -> Store | None:
    """The store, or None if nothing is to be kept or it cannot be used, which is told of."""
    wanted = os.environ.get("MOA_SAVE", "").lower() not in _OFF and wiring.config().save
    if no_save or not wanted:
        return None
    from moa_cli.store import Store

    try:
        store = Store.open()
    except StoreError as error:
        warn(f"this conversation is not saved: {error.message}")
        return None
    if store.damaged is not None:
        warn(f"the file of conversations was damaged and put aside: {store.damaged}")
    return store


@dataclass(frozen=True)
class Resumed:
    """The conversation to go on with; a new one has no id yet."""

    id: str | None = None
    conversation: Conversation = field(default_factory=Conversation)


def resume(*, last: bool, identity: str | None) -> Resumed:
    """The conversation of that id, or the last one, or a new one.

    Raises StoreError if there is no such conversation.
    """
    if not last and identity is None:
        return Resumed()
    from moa_cli.store import Store

    store = Store.open()
    try:
        if identity is None:
            latest = store.conversations(limit=1)
            if not latest:
                raise StoreError("there is no conversation to go on with")
            identity = latest[0].id
        found = store.find(identity)
        return Resumed(found, store.load(found))
    finally:
        store.close()


def warn(text: str) -> None:
    """Tell on standard error what went wrong beside the reply."""
    from moa_cli.render.sanitize import one_line

    sys.stderr.write(f"moa: {one_line(text)}\n")
    sys.stderr.flush()

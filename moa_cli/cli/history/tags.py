"""`moa history tag` and `moa history rename`, and tags as they are typed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from moa_cli.cli.output import print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.errors import UsageError


def tag_named(text: str) -> str:
    """The tag that was typed, as it is kept. Raises UsageError if it is none."""
    from moa_cli.store.stored_values import checked_tag

    try:
        return checked_tag(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def tags_named(texts: Iterable[str]) -> list[str]:
    """The tags that were typed, each once. Raises UsageError if one is none."""
    return list(dict.fromkeys(map(tag_named, texts)))


ConversationId = Annotated[
    str, typer.Argument(metavar="ID", help="An id, or its unique beginning.")
]


def tag(
    conversation: ConversationId,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="TAG", help="None prints those that there are.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away.")] = False,
) -> None:
    """Tag a conversation, to find it by `list --tag`; print its tags."""
    chosen = tags_named(tags or [])
    if remove and not chosen:
        raise UsageError("--remove needs tags", hint="name them after the id")
    store = open_store()
    try:
        identity = store.find(conversation)
        if remove:
            store.untag(identity, chosen)
        else:
            store.tag(identity, chosen)
        now = store.tags(identity)
    finally:
        store.close()
    if chosen:
        say(f"{identity} is tagged {', '.join(now)}" if now else f"{identity} has no tags")
    else:
        print_lines(now)


def rename(
    conversation: ConversationId,
    title: Annotated[list[str], typer.Argument(metavar="TITLE")],
) -> None:
    """Give a conversation another title."""
    from moa_cli.store.stored_values import checked_title

    try:
        chosen = checked_title(" ".join(title))
    except ValueError as error:
        raise UsageError(str(error)) from None
    store = open_store()
    try:
        identity = store.find(conversation)
        store.rename(identity, chosen)
    finally:
        store.close()
    say(f"renamed {identity}: {chosen}")

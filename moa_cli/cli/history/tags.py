"""`moa history tag` and `moa history rename`."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from typer import Argument, Option

from moa_cli.chat.keeping import SavedConversation, tag_named, title_named
from moa_cli.cli.output import print_lines, say
from moa_cli.cli.saving import open_store
from moa_cli.core.errors import UsageError

ConversationId = Annotated[str, Argument(metavar="ID", help="An id, or its unique beginning.")]


def tag(
    conversation: ConversationId,
    tags: Annotated[
        list[str] | None, Argument(metavar="TAG", help="None prints those that there are.")
    ] = None,
    remove: Annotated[bool, Option("--remove", help="Take the tags away.")] = False,
) -> None:
    """Tag a conversation, to find it by `list --tag`; print its tags."""
    chosen = list(dict.fromkeys(map(tag_named, tags or [])))
    if remove and not chosen:
        raise UsageError("--remove needs tags", hint="name them after the id")
    with closing(open_store()) as store:
        identity = store.find(conversation)
        now = SavedConversation(store, identity).tag(chosen, remove=remove)
    if chosen:
        say(f"{identity} is tagged {', '.join(now)}" if now else f"{identity} has no tags")
    else:
        print_lines(now)


def rename(
    conversation: ConversationId, title: Annotated[list[str], Argument(metavar="TITLE")]
) -> None:
    """Give a conversation another title."""
    chosen = title_named(" ".join(title))
    with closing(open_store()) as store:
        identity = store.find(conversation)
        store.rename(identity, chosen)
    say(f"renamed {identity}: {chosen}")

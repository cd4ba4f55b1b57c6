"""Leaves out the images of a conversation for models that cannot see images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from moa_cli.core.conversation import Conversation, Message, Part, Turn
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import ImagesNotSeen
from moa_cli.core.once_each import once_each

_S = TypeVar("_S", Turn, Message)


def seen_by(conversation: Conversation, sees: bool | None) -> Conversation:
    """The conversation as a model is sent it.

    A message keeps its parts only if they hold an image, or a file whose text was not read. Any
    other message is sent as its text alone, which holds all of it and which every endpoint takes.


    sees: whether the model takes images. None if that is not known: then images are sent.
    """
    said: tuple[Turn | Message, ...]
    said = (*conversation.turns, *conversation.before, *conversation.after)
    if not [message for message in said if message.parts]:
        return conversation
    turns = tuple(_stripped(turn, sees) for turn in conversation.turns)
    before = tuple(_stripped(message, sees) for message in conversation.before)
    after = tuple(_stripped(message, sees) for message in conversation.after)
    if (turns, before, after) == (conversation.turns, conversation.before, conversation.after):
        return conversation
    return replace(conversation, turns=turns, before=before, after=after)


def check_sight(parts: Iterable[Part], models: Mapping[str, ModelInfo]) -> None:
    """Raise ImagesNotSeen if a prompt holds images, and no model of the mixture can see images.

    models: the models of the mixture, by their names in the profile.
    """
    count = sum(part.kind == "image" for part in parts)
    if count and all(info.sees is False for info in models.values()):
        images = "the image" if count == 1 else f"the {count} images"
        raise ImagesNotSeen(
            f"no model of the profile can see {images}: {', '.join(models)}",
            hint="use a profile with a model that takes images, or leave them out",
        )


def _stripped(said: _S, sees: bool | None) -> _S:
    """A turn or a message without the parts that the model is not sent."""
    if not said.parts or (sees is not False and any(map(_is_beyond_text, said.parts))):
        return said
    return _without_parts(said)


@once_each
def _without_parts(said: _S) -> _S:
    return replace(said, parts=())


def _is_beyond_text(part: Part) -> bool:
    return part.kind == "image" or (part.kind == "file" and bool(part.url) and not part.text)

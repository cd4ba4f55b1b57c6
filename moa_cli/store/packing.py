"""Values as the store keeps them: without what is at its default, and compressed.

A turn of a mixture holds as many answers as it has proposers, and each of them a count of its
own. Written out in full, they would take ten times the room of the conversation itself.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from typing import Any

# Shorter texts gain nothing.
_SHORTEST = 200
# What a damaged or hostile value may claim to be.
_MOST_BYTES = 256_000_000


def as_unicode(text: str) -> str:
    """`text` without halves of surrogate pairs, which UTF-8, and so SQLite, cannot say."""
    return text.encode("utf-8", "replace").decode()


def without_defaults(value: Any) -> Any:
    """The plain values of a dataclass, as `dataclasses.asdict` gives them, less those fields that
    are at their defaults; `values.load_value` makes the same dataclass of them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: without_defaults(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not _is_same(getattr(value, field.name), _default_of(field))
        }
    if isinstance(value, list | tuple):
        return [without_defaults(item) for item in value]
    return value


def _is_same(value: Any, default: Any) -> bool:
    # 0 and 0.0 are equal, but are not written alike.
    return type(value) is type(default) and value == default


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def dump(values: object) -> str:
    """Values as JSON."""
    return as_unicode(json.dumps(values, ensure_ascii=False, separators=(",", ":")))


def pack(values: object) -> bytes:
    """Values as JSON, compressed if that is shorter."""
    data = dump(values).encode()
    if len(data) < _SHORTEST:
        return data
    return min(zlib.compress(data, 6), data, key=len)


def unpack(kept: str | bytes) -> Any:
    """What `pack` or `dump` was given. Raises ValueError if `kept` comes from neither."""
    data = kept.encode() if isinstance(kept, str) else kept
    # What is compressed begins otherwise than any JSON.
    if data[:1] not in (b"{", b"["):
        reader = zlib.decompressobj()
        try:
            data = reader.decompress(data, _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(f"is not what was kept: {error}") from None
        if not reader.eof:
            raise ValueError("is not what was kept: it is cut off")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None

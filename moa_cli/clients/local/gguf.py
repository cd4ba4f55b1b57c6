"""Reads the sizes of a model from the header of its GGUF file.

Format: docs/gguf.md of the ggml project. A file begins with `GGUF`, a version, the number of
tensors and the number of entries; each entry is a key, the type of its value, and the value. All
numbers are little-endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# By the number of a type with a fixed size: its format for `struct`.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Limits for bytes of a text, entries, and items of an array. A damaged length must not make us read
# gigabytes; even a vocabulary takes only a few megabytes.
_MOST_BYTES = 64 << 20
_MOST_ENTRIES = 4096
_MOST_NUMBERS = 4096
_F16_BYTES = 2

_Value = str | int | float | bool | list[int | float | bool] | None


# A large model is split into several files. The runtime opens the first one and finds the others by
# name.
_PART = re.compile(
    r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>(?!0{5})\d{5})(?P<ending>\.gguf)", re.IGNORECASE
)


def part_number(file_name: str) -> int:
    """Which of a model's files this is, from 1; 1 for a model of one file."""
    found = _PART.fullmatch(file_name)
    return int(found["number"]) if found else 1


def part_names(file_name: str) -> list[str]:
    """The names of all files of the model whose first file is named `file_name`."""
    found = _PART.fullmatch(file_name)
    if found is None:
        return [file_name]
    name, count, ending = found["name"], found["count"], found["ending"]
    return [f"{name}-{number:05}-of-{count}{ending}" for number in range(1, int(count) + 1)]


def parts(first: Path) -> list[Path]:
    """The existing files of the model whose first file is `first`."""
    return [path for name in part_names(first.name) if (path := first.with_name(name)).is_file()]


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model.

    context: what it was trained for, in tokens; None if the file does not say.
    token_bytes: the memory that one token of context takes while the model runs.
    """

    context: int | None
    token_bytes: int


def read_shape(path: Path) -> ModelShape | None:
    """The shape of the model in a GGUF file; None if its header cannot be read."""
    try:
        with path.open("rb") as file:
            entries = dict(_entries(file))
    except (OSError, ValueError, struct.error):
        return None
    architecture = entries.get("general.architecture")

    def number(key: str, default: int = 0) -> int:
        value = entries.get(f"{architecture}.{key}", default)
        return value if isinstance(value, int) and value >= 0 else default

    layers, heads = number("block_count"), number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    pair = number("attention.key_length", width) + number("attention.value_length", width)
    kv_heads = entries.get(f"{architecture}.attention.head_count_kv", heads)
    # Some models have a list with the number of heads in each layer.
    in_all = sum(map(int, kv_heads)) if isinstance(kv_heads, list) else _whole(kv_heads) * layers
    return ModelShape(number("context_length") or None, in_all * pair * _F16_BYTES)


def _whole(value: _Value) -> int:
    """The value if it is an integer, else 0."""
    return value if isinstance(value, int) else 0


def _entries(file: BinaryIO) -> Iterator[tuple[str, _Value]]:
    """The entries before the vocabulary, which comes last and is large."""
    magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != MAGIC or version not in _VERSIONS:
        raise ValueError("not a GGUF file of a known version")
    for _ in range(min(count, _MOST_ENTRIES)):
        key = _text(file)
        if key.startswith("tokenizer."):
            return
        (kind,) = struct.unpack("<I", file.read(4))
        yield key, _value(file, kind)


def _value(file: BinaryIO, kind: int) -> _Value:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, kind)
    item_kind, count = struct.unpack("<IQ", file.read(12))
    if item_kind == _STRING and count <= _MOST_NUMBERS:
        for _ in range(count):
            _text(file)
        return None
    if count > _MOST_NUMBERS:
        raise ValueError("an array of this length is not expected here")
    return [_number(file, item_kind) for _ in range(count)]


def _number(file: BinaryIO, kind: int) -> int | float | bool:
    if kind not in _FIXED:
        raise ValueError("a value of an unknown type")
    form = f"<{_FIXED[kind]}"
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    assert isinstance(value, (int, float, bool))
    return value


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST_BYTES:
        raise ValueError("a text of this length is not expected here")
    return file.read(length).decode("utf-8", "replace")

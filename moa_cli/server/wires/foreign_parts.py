"""Converts the message parts of other APIs to the form of chat completions.

Programs that use several APIs mix their forms: a conversation that began over another API continues
over chat completions with its parts unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXTS = ("input_text", "output_text")


def chat_part(part: Any) -> Any:
    """A part in the form of a chat completion. A part of an unknown form stays unchanged."""
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        return _image(part.get("image_url"), part.get("detail"))
    if kind == "input_file":
        given = {name: part.get(name) for name in ("file_data", "filename", "file_id")}
        return {"type": "file", "file": _set(given)}
    source = part.get("source")
    if kind in ("image", "document") and isinstance(source, Mapping):
        return _of_source(kind, part, source)
    return part


def _of_source(kind: str, part: Mapping[str, Any], source: Mapping[str, Any]) -> Any:
    """An image or a document in Anthropic's form."""
    address: Any
    match source.get("type"):
        case "base64":
            address = f"data:{source.get('media_type')};base64,{source.get('data')}"
        case "url":
            address = source.get("url")
        case "text" if kind == "document":
            return {"type": "text", "text": source.get("data")}
        case _:
            return part
    if kind == "image":
        return _image(address)
    return {"type": "file", "file": _set({"file_data": address, "filename": part.get("title")})}


def _image(url: Any, detail: Any = None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": _set({"url": url, "detail": detail})}


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

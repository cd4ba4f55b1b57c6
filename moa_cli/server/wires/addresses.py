"""The addresses of images and files in requests: web addresses and data URIs.

An address that no endpoint accepts is refused before proposals are paid for.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import replace

from moa_cli.core.conversation import Part
from moa_cli.core.values import ValueFault

_WEB = ("http://", "https://")
_DATA = "data:"
# The beginnings of images that models can see. An SVG is not among them: it is read as text.
_PICTURES = tuple(f"data:image/{kind}" for kind in ("png", "jpeg", "jpg", "gif", "webp"))
_IMAGE = re.compile(r"data:image/[\w.+-]+(?:;[\w.=+-]+)*;base64,[\w+/=-]+")

# A data URI whose type is missing or is not that of an image.
_UNTYPED = re.compile(r"data:(?!image/)[^,]*;base64,[\w+/=-]+")


def image_part(url: str, detail: str, *path: str | int) -> Part:
    """The part for an image at a web address, or in a data URI with base64. A data URI of another
    type is read as a file, whose content decides its kind: some clients do not know the type.

    Raises ValueFault, which blames the value at `path`.
    """
    if url.lower().startswith(_WEB):
        return Part("image", url=url, detail=detail)
    # Some clients put line breaks into base64.
    url = "".join(_with_plain_scheme(url).split())
    if _UNTYPED.fullmatch(url):
        return file_part(url, "", *path)
    if not _IMAGE.fullmatch(url):
        raise ValueFault("must be a web address, or a data: URI of an image in base64", path=path)
    return Part("image", url=url, detail=detail)


def file_part(data: str, name: str, *path: str | int) -> Part:
    """The part for a file, or for an image that a client sends as a file. data: a data URI, its
    base64 alone, which some clients send, or a web address. name: the name of the file.

    Raises ValueFault, which blames the value at `path`.
    """
    data = _with_plain_scheme(data)
    if not data.startswith(_DATA) and ":" not in data:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        data = f"{_DATA}{kind};base64,{data}"
    if data.lower().startswith(_PICTURES):
        return replace(image_part(data, "", *path), name=name)
    return Part("file", url=data, name=name)


def _with_plain_scheme(url: str) -> str:
    """A data URI with its scheme in lower case, as later readers expect it."""
    scheme = url[: len(_DATA)]
    return _DATA + url[len(_DATA) :] if scheme.lower() == _DATA else url

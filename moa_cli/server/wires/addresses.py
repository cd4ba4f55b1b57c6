"""Where images and files of requests are: addresses of the web, and data URIs.

An address that no endpoint takes is refused before proposals are paid for.
"""

from __future__ import annotations

import mimetypes
import re

from moa_cli.core.values import ValueFault

_WEB = ("http://", "https://")
_DATA = "data:"
_IMAGE = re.compile(r"data:image/[\w.+-]+(?:;[\w.=+-]+)*;base64,[\w+/=-]+")


def image_address(url: str, *path: str | int) -> str:
    """The address of an image, of the web or a data URI with base64.

    Raises ValueFault, which blames the value at `path`.
    """
    if url.lower().startswith(_WEB):
        return url
    # Some break the lines of base64.
    url = "".join(_with_plain_scheme(url).split())
    if not _IMAGE.fullmatch(url):
        raise ValueFault("must be a web address, or a data: URI of an image in base64", path=path)
    return url


def file_address(data: str, name: str) -> str:
    """The data URI of a file, which clients also send as its base64 alone; an address of the web
    stays one. name: of the file."""
    data = _with_plain_scheme(data)
    if data.startswith(_DATA) or ":" in data:
        return data
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{_DATA}{kind};base64,{data}"


def _with_plain_scheme(url: str) -> str:
    """A data URI with its scheme in lower case, as later readers expect it."""
    scheme = url[: len(_DATA)]
    return _DATA + url[len(_DATA) :] if scheme.lower() == _DATA else url

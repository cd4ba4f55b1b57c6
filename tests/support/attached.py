"""Files to attach: images and PDF files, made byte by byte."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

__all__ = ["GIF", "JPEG", "PNG", "WEBP", "data_uri", "images", "pdf", "png"]

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + b"\x00" * 40
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L" + b"\x00" * 20


def png(width: int = 2, height: int = 2, more: bytes = b"") -> bytes:
    """A red image; `more` stands in a chunk that no reader looks at."""
    rows = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"teXt", more), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
        if data or kind == b"IEND"
    )
    return b"\x89PNG\r\n\x1a\n" + body


PNG = png()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def pdf(*pages: str) -> bytes:
    """A PDF file with a line of text on each page; an empty text is a page without any."""
    numbers = [4 + 2 * place for place in range(len(pages))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, text in zip(numbers, pages, strict=True):
        escaped = text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(")
        line = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % escaped.replace(b")", b"\\)")
        drawn = line if text else b"0 0 72 72 re f"
        bodies.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
            b"/Contents %d 0 R>>" % (number + 1)
        )
        bodies.append(b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn))
    file, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(bodies) + 1
    return (
        file
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, table)
        + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (count, len(file))
    )


def images(message: dict[str, Any]) -> list[str]:
    """The addresses of the images in a message as an endpoint is sent it."""
    parts = message["content"] if isinstance(message["content"], list) else []
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]

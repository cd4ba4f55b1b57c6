"""Reads the text of a PDF file, in a separate process.

`core.files.pdf` runs this module as a child process. It reads the file from standard input and
writes one JSON object: with `text`, or with `fault`, which says what is wrong.

PDF files come from anywhere, and a hostile one can make a parser run without end or use all memory.
This process has limits on both, and when it fails, the conversation goes on.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from typing import Any

# The most bytes of memory. The parser needs some hundred million for the largest files that are
# read.
_MEMORY = 2 << 30


def main() -> None:
    most_pages, most_letters = map(int, sys.argv[1:3])
    _bound_memory()
    try:
        answer = _read(sys.stdin.buffer.read(), most_pages, most_letters)
    except ImportError:
        answer = {"fault": "library"}
    except MemoryError:
        answer = {"fault": "memory"}
    except Exception:
        # A broken file can make the library raise any error.
        answer = {"fault": "broken"}
    sys.stdout.write(json.dumps(answer))


def _bound_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(data: bytes, most_pages: int, most_letters: int) -> dict[str, Any]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    reader = PdfReader(io.BytesIO(data))
    try:
        # Some files are encrypted with an empty password, so that every viewer opens them.
        if reader.is_encrypted and not reader.decrypt(""):
            return {"fault": "password"}
        count = len(reader.pages)
        if count > most_pages:
            return {"fault": "pages", "pages": count}
        texts: list[str] = []
        left = most_letters
        for page in reader.pages:
            texts.append(page.extract_text().strip())
            left -= len(texts[-1])
            if left < 0:
                return {"fault": "length"}
    except (DependencyError, FileNotDecryptedError):
        return {"fault": "password"}
    return {"text": "\n\n".join(filter(None, texts))}


if __name__ == "__main__":
    main()

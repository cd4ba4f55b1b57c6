"""Reads the text of PDF files, with limits on pages, length, memory and time."""

from __future__ import annotations

import json
import os
import re
import sys

from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.sanitize import sanitize

# Limits: bytes and pages of the file, characters of its text, and seconds to read it.
MOST_BYTES, MOST_PAGES, MOST_LETTERS = 50_000_000, 500, 2_000_000
_SECONDS = 60.0
# The environment variables that the reader process needs. It does not get others, because they may
# contain keys.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP")
_FAULTS = {
    "broken": ("is a broken PDF file", "open it in a viewer, and save it again"),
    "password": ("is a PDF file that a password protects", "remove it first: `qpdf --decrypt`"),
    "length": (f"is a PDF file with more than {MOST_LETTERS:,} characters", "split it first"),
    "memory": ("is a PDF file that takes too much memory to read", "split it first"),
    "library": ("needs the package pypdf to be read", "install moa-chat again"),
    "empty": ("is a PDF file without text: its pages are images", "attach them as images"),
    "late": (
        f"is a PDF file whose text is not found within {_SECONDS:g} s",
        "extract its text first: `pdftotext`",
    ),
}


def is_pdf(data: bytes) -> bool:
    return re.match(rb"%PDF-\d\.\d", data) is not None


def pdf_text(data: bytes, name: str, error: type[MoAError] = UsageError) -> str:
    """The text of a PDF file without control sequences, with a blank line between pages.

    Raises `error`, which names the file and what is wrong, if the text cannot be read.
    """
    if len(data) > MOST_BYTES:
        raise error(
            f"{name}: has {len(data):,} bytes; of a PDF file at most {MOST_BYTES:,} are read",
            hint="split it first",
        )
    answer = _read(data)
    fault = answer.get("fault")
    if fault == "pages":
        raise error(
            f"{name}: has {answer['pages']:,} pages; of a PDF file at most {MOST_PAGES} are read",
            hint="split it first",
        )
    text = sanitize(str(answer.get("text", ""))).strip()
    if fault is None and not text:
        fault = "empty"
    if fault is not None:
        told, hint = _FAULTS[str(fault)]
        raise error(f"{name}: {told}", hint=hint)
    return text


def _read(data: bytes) -> dict[str, object]:
    import subprocess

    # -P: Python does not import modules from the current folder.
    command = [sys.executable, "-P", "-m", "moa_cli.core.files.pdf_reader"]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(
            [*command, str(MOST_PAGES), str(MOST_LETTERS)],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"fault": "late"}
    try:
        answer: dict[str, object] = json.loads(done.stdout)
    except ValueError:
        # Without an answer, the process was ended from outside, usually because of its memory use.
        return {"fault": "memory" if done.returncode < 0 else "broken"}
    return answer

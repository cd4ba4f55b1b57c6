"""Removes the pictures from Jupyter notebooks before models read them.

In a notebook, a picture is a text of perhaps a million characters, which no model can see as a
picture.
"""

from __future__ import annotations

import json
from typing import Any

from moa_cli.core.text import byte_count, plural

# Values of an output with at most this many characters are left as they are.
_LONG = 1_000


def without_pictures(text: str) -> tuple[str, str]:
    """The text of a notebook with a note in place of each picture and of other large data; and a
    few words on what was left out. For any other file, the unchanged text, and ""."""
    if '"nbformat"' not in text or not text.lstrip().startswith("{"):
        return text, ""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        return text, ""
    left_out = _empty(notebook)
    if not left_out:
        return text, ""
    size = byte_count(sum(left_out))
    told = f"{plural(len(left_out), 'picture')} or other data of its outputs, {size}"
    return json.dumps(notebook, ensure_ascii=False, indent=1), told


def _empty(notebook: Any) -> list[int]:
    """Replace large data in a notebook by notes. Returns the length of each replaced value."""
    left_out: list[int] = []
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    for cell in cells if isinstance(cells, list) else []:
        if not isinstance(cell, dict):
            continue
        outputs = cell.get("outputs")
        bundles = [
            output.get("data")
            for output in (outputs if isinstance(outputs, list) else ())
            if isinstance(output, dict)
        ]
        pasted = cell.get("attachments")
        bundles += pasted.values() if isinstance(pasted, dict) else ()
        for bundle in bundles:
            if not isinstance(bundle, dict):
                continue
            for kind, value in bundle.items():
                length = len(value) if isinstance(value, str) else len(json.dumps(value))
                if kind.startswith("text/") or length <= _LONG:
                    continue
                bundle[kind] = f"(left out: {byte_count(length)} of {kind})"
                left_out.append(length)
    return left_out

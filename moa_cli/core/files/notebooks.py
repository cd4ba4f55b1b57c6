"""Jupyter notebooks as models read them: without the pictures in their outputs.

A picture is in such a file as text of a million characters, which no model can look at.
"""

from __future__ import annotations

import json
from typing import Any

from moa_cli.core.text import byte_count, plural

# Shorter values of an output are left as they are.
_LONG = 1_000


def without_pictures(text: str) -> tuple[str, str]:
    """The text of a notebook with a note in place of each picture and other data of its outputs,
    and what was left out in a few words; of other files, the text as it is, and ""."""
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
    """Replace the data in a notebook by notes; how long each was."""
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

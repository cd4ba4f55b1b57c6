"""The head of a web page that stands alone: nothing fetched, and no script but one of ours."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

from moa_cli.version import __version__

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_IMAGES = "; img-src data:"
CLOSING = "</main>\n</body>\n</html>\n"


def opening(title: str, *styles: tuple[str, str], images: bool = False, script: str = "") -> str:
    """Everything up to the content, which `CLOSING` follows. title: untrusted, on one line.

    styles: (package, file) of style sheets to come after the one that all pages have. images:
    whether images may be shown that the page itself holds. script: the only one that may run; it
    must hold nothing that a model has written.
    """
    sheets = [("moa_cli.documents", "document.css"), *styles]
    style = "\n".join(files(where).joinpath(name).read_text("utf-8") for where, name in sheets)
    policy = _POLICY + (_IMAGES if images else "")
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="moa {__version__}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
"""

"""The head of a self-contained web page: it fetches nothing, and runs no script except ours."""

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
    """The page up to its content; `CLOSING` follows the content. title: untrusted text, on one
    line.

    styles: (package, file) of style sheets that follow the one of all pages. images: whether images
    that are part of the page may be shown. script: the only script that may run; it must not
    contain text of a model.
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

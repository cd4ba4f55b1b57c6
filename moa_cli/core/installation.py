"""Finds out how this moa was installed, to tell the user how to add an extra to it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """The command that adds an extra, such as `local`, to this installation."""
    prefix = Path(sys.prefix)
    # uv and pipx install moa again, so they need to know where it comes from. pip does not, because
    # it finds moa installed.
    if (prefix / "uv-receipt.toml").is_file() or "uv/tools" in prefix.as_posix():
        return f"uv tool install --force 'moa-chat[{extra}]{_origin()}'"
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx install --force 'moa-chat[{extra}]{_origin()}'"
    if importlib.util.find_spec("pip") is None:
        return f"uv pip install --python {sys.executable} 'moa-chat[{extra}]'"
    return f"{sys.executable} -m pip install 'moa-chat[{extra}]'"


def _origin() -> str:
    """The end of a requirement: the folder or file that moa was installed from, if any."""
    import importlib.metadata

    try:
        recorded = importlib.metadata.distribution("moa-chat").read_text("direct_url.json")
        return f" @ {json.loads(recorded or '')['url']}"
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        return ""

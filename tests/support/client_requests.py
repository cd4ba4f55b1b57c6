"""Requests as released clients send them.

They lie in the file `client_requests/requests.jsonl` of the data that MOA_TEST_DATA names: one a
line, with `client`, `path` and `body`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

__all__ = ["client_requests"]


def client_requests(path: str) -> list[dict[str, Any]]:
    """The requests to a path of the server, its query left out; without the data the test is
    skipped."""
    folder = os.environ.get("MOA_TEST_DATA")
    file = Path(folder or "", "client_requests", "requests.jsonl")
    if not folder or not file.is_file():
        pytest.skip("MOA_TEST_DATA names no requests of clients")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [row for row in rows if row["path"].partition("?")[0] == path]

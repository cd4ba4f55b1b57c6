"""Requests as released clients send them.

They lie in `client_requests/requests.jsonl` of the data that MOA_TEST_DATA names, one a line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

__all__ = ["client_requests"]


def client_requests(path: str) -> list[dict[str, Any]]:
    """The requests to that path, without its query; the test is skipped where there are none."""
    folder = os.environ.get("MOA_TEST_DATA")
    file = Path(folder or "", "client_requests", "requests.jsonl")
    if folder is None or not file.exists():
        pytest.skip("MOA_TEST_DATA names no requests of clients")
    lines = file.read_text("utf-8").splitlines()
    return [
        request for request in map(json.loads, lines) if request["path"].partition("?")[0] == path
    ]

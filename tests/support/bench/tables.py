"""Reading the tables that tests compare with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

__all__ = ["csv_rows", "jsonl_rows"]


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by column name."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def jsonl_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file with a JSON value a line."""
    # Not splitlines(): a text may hold other line separators.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]

"""The folders of the package can be read at a glance, and a name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "moa_cli"
MOST_MODULES = 25


def test_no_folder_holds_more_modules_than_can_be_read_at_a_glance() -> None:
    counts: dict[str, int] = defaultdict(int)
    for module in PACKAGE.rglob("*.py"):
        if module.name != "__init__.py":
            counts[str(module.parent.relative_to(PACKAGE))] += 1
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_two_classes_have_the_same_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module in sorted(PACKAGE.rglob("*.py")):
        for statement in ast.parse(module.read_text("utf-8")).body:
            if isinstance(statement, ast.ClassDef):
                homes[statement.name].append(str(module.relative_to(PACKAGE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}

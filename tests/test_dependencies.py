"""What the code imports is what pyproject.toml declares: nothing comes by another's favour."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
OURS = {"moa_cli", "tests", "benchmarks", "scripts", "examples", "docs"}
# Programs that run in environments of their own.
CLIENTS = ROOT / "tests" / "released_clients" / "programs"
# The modules of distributions that are not installed for the tests.
ABSENT = {"alpaca_eval": "alpaca-eval", "pandas": "pandas"}


@cache
def distributions() -> dict[str, set[str]]:
    found = importlib.metadata.packages_distributions()
    return {module: {plain(name) for name in names} for module, names in found.items()}


def plain(requirement: str) -> str:
    """The distribution's name, as all spellings of it are compared."""
    name = re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder: str) -> Iterator[tuple[Path, str]]:
    """The file and the module's first name of each import."""
    for path in (ROOT / folder).rglob("*.py"):
        if path.is_relative_to(CLIENTS):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield path, node.module.partition(".")[0]


def undeclared(folder: str, declared: set[str]) -> set[str]:
    return {
        f"{path.relative_to(ROOT)} imports {module}"
        for path, module in imported(folder)
        if module not in OURS | sys.stdlib_module_names
        and not declared & distributions().get(module, {ABSENT.get(module, module)})
    }


def of_the_program() -> set[str]:
    extras = PROJECT["project"]["optional-dependencies"]
    groups = [PROJECT["project"]["dependencies"], *extras.values()]
    return {plain(requirement) for group in groups for requirement in group}


def test_all_that_the_program_imports_is_declared() -> None:
    assert undeclared("moa_cli", of_the_program()) == set()


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "scripts", "examples", "docs"])
def test_all_that_the_rest_imports_is_declared(folder: str) -> None:
    groups = PROJECT["dependency-groups"].values()
    listed = {plain(each) for group in groups for each in group if isinstance(each, str)}
    assert undeclared(folder, of_the_program() | listed) == set()


def test_every_dependency_has_a_lower_bound() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = PROJECT["dependency-groups"].values()
    lists = [PROJECT["project"]["dependencies"], *extras, *groups]
    requirements = [text for group in lists for text in group if isinstance(text, str)]
    unbounded = [text for text in requirements if ">=" not in text]
    assert unbounded == [
        "moa-chat[serve]",
        "moa-chat[local,serve,mcp,bench,socks,otel,parquet,ray]",
    ]

"""The pages that come from the code are current, and name what the code has."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from moa_cli.config.schema import load_config
from moa_cli.core.conversation import Turn
from moa_cli.core.jsonl import turn_to_dict
from moa_cli.profile import load
from tests.support.pages import PAGES, ROOT, blocks

DOCS = ROOT / "docs"
_VARIABLE = re.compile(r"\bMOA_[A-Z]+(?:_[A-Z]+)*\b")
_DOTTED = re.compile(r"`((?:\w+\.)+\w+)`")


def test_the_generated_pages_are_those_of_the_program() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}run: uv run python scripts/update_docs.py"


def test_each_variable_of_the_code_is_on_the_page_of_variables() -> None:
    page = (DOCS / "reference" / "environment.md").read_text("utf-8")
    used = {
        name
        for path in (ROOT / "moa_cli").rglob("*.py")
        for name in _VARIABLE.findall(path.read_text("utf-8"))
    }
    assert sorted(name for name in used if f"`{name}`" not in page) == []


def test_each_shipped_profile_is_named() -> None:
    page = (DOCS / "how-to" / "profiles.md").read_text("utf-8")
    for path in (ROOT / "profiles").glob("*.toml"):
        assert f"`{path.stem}`" in page


def test_the_examples_of_settings_and_profiles_say_what_the_pages_say(tmp_path: Path) -> None:
    def first_example(page: str) -> Path:
        texts = [block.text for block in blocks(DOCS / "how-to" / page) if block.language == "toml"]
        path = tmp_path / f"{page}.toml"
        path.write_text(texts[0], encoding="utf-8")
        return path

    assert load_config(first_example("keys.md")).providers["lab"].api_key_env == "LAB_KEY"
    budgets = load_config(first_example("budgets.md"))
    assert (budgets.budget.session, budgets.budget.day) == (0.5, 5.0)
    assert budgets.prices["groq:llama-3.3-70b-versatile"].prompt == 0.59
    loaded = load(str(first_example("profiles.md")))
    assert (loaded.rounds, len(loaded.layer(1))) == (2, 3)


def test_each_file_of_the_code_that_a_page_names_is_there() -> None:
    named = {
        (page, path)
        for page in PAGES
        for path in re.findall(r"`((?:moa_cli|tests|scripts|examples)/[\w./]*)`", page.read_text())
    }
    assert sorted(str(path) for _, path in named if not (ROOT / path).exists()) == []


def test_each_module_that_a_page_of_explanation_names_is_there() -> None:
    lost = []
    for page in (*DOCS.glob("explanation/*.md"), *DOCS.glob("decisions/*.md")):
        for name in _DOTTED.findall(page.read_text("utf-8")):
            room, *parts = name.split(".")
            outside = name == "config.toml" or not (ROOT / "moa_cli" / room).is_dir()
            if not outside and not _is_there(room, parts):
                lost.append(f"{page.name}: {name}")
    assert lost == []


def _is_there(room: str, parts: list[str]) -> bool:
    """Whether `room.a.b` is a module, or a name that a module or a room defines."""
    for number in range(len(parts), -1, -1):
        path = ".".join(["moa_cli", room, *parts[:number]])
        with contextlib.suppress(ModuleNotFoundError):
            if find_spec(path) is not None:
                found: Any = import_module(path) if parts[number:] else path
                for name in parts[number:]:
                    found = getattr(found, name, None)
                return found is not None
    return False


def test_the_turn_of_ask_json_is_described_field_by_field() -> None:
    page = (DOCS / "reference" / "json.md").read_text("utf-8")
    for name in turn_to_dict(Turn(user="")):
        assert f"| `{name}` |" in page


@pytest.mark.slow
def test_the_example_of_the_library_runs_with_the_embedded_model() -> None:
    example = next(
        block.text
        for block in blocks(DOCS / "how-to" / "library.md")
        if 'load_profile("local")' in block.text
    )
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 50
    assert "careful" in done.stdout

"""The README says what the program does: its tables and its example are checked here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_options_and_commands_are_those_of_the_program() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"], check=False
    )
    assert done.returncode == 0, "run: uv run python scripts/update_readme.py"


def test_every_toml_example_is_accepted(tmp_path: Path) -> None:
    from moa_cli.config.schema import load_config
    from moa_cli.profile import load

    config, money, profile = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "config.toml").write_text(config, encoding="utf-8")
    (tmp_path / "money.toml").write_text(money, encoding="utf-8")
    (tmp_path / "example.toml").write_text(profile, encoding="utf-8")
    assert load_config(tmp_path / "config.toml").providers["lab"].api_key_env == "LAB_KEY"
    budgets = load_config(tmp_path / "money.toml")
    assert (budgets.budget.session, budgets.budget.day) == (0.5, 5.0)
    assert budgets.prices["groq:llama-3.3-70b-versatile"].prompt == 0.59
    loaded = load(str(tmp_path / "example.toml"))
    assert (loaded.rounds, len(loaded.layer(1))) == (2, 3)


def test_every_shipped_profile_is_named() -> None:
    for path in (ROOT / "profiles").glob("*.toml"):
        assert f"`{path.stem}`" in README


@pytest.mark.slow
def test_the_library_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 50
    assert "careful" in done.stdout


def test_no_file_names_a_machine_path_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = [".".join(("pypi", "org")), "".join(("python", "hosted"))]
    for name in listed.stdout.splitlines():
        path = ROOT / name
        text = path.read_text(encoding="utf-8", errors="ignore") if path.is_file() else ""
        assert not any(host in text for host in hosts), name

"""What no file of the repository may hold."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.pages import ROOT


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

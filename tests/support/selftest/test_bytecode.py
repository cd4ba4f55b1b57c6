"""The workers of a run share bytecode: the first compiles alone, and the others find it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.bytecode import Turn, kept, shared


def test_what_a_process_compiles_is_kept_in_a_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "")
    (tmp_path / "module.py").write_text("")
    folder = shared()
    assert folder is not None
    with folder:
        subprocess.run([sys.executable, "-c", "import module"], cwd=tmp_path, check=True)
        assert list(Path(folder.name).rglob("module.*.pyc"))
        assert not (tmp_path / "__pycache__").exists()
    assert not Path(folder.name).exists()


def test_where_python_keeps_bytecode_it_keeps_it_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = dict(os.environ)
    assert shared() is None
    assert dict(os.environ) == before


def test_another_python_is_told_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    assert kept() == ()
    monkeypatch.setattr(sys, "pycache_prefix", "/some/folder")
    told = "import sys; print(sys.pycache_prefix)"
    ran = subprocess.run([sys.executable, *kept(), "-c", told], capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "/some/folder"


def test_the_first_worker_compiles_alone_and_all_others_at_once(tmp_path: Path) -> None:
    (tmp_path / "first-worker.lock").touch()
    first = Turn(str(tmp_path))
    come: list[Turn] = []
    others = [
        threading.Thread(target=lambda: come.append(Turn(str(tmp_path))), daemon=True)
        for _ in range(2)
    ]
    for other in others:
        other.start()
    others[0].join(0.2)
    assert come == []
    first.end()
    # Neither of them waits for the other's end.
    for other in others:
        other.join(100)
    assert len(come) == 2
    for turn in come:
        turn.end()


@pytest.mark.parametrize("folder", [None, "there"])
def test_who_shares_no_folder_waits_for_nobody(tmp_path: Path, folder: str | None) -> None:
    name = folder and str(tmp_path / folder)
    turns = [Turn(name), Turn(name)]
    for turn in turns:
        turn.end()

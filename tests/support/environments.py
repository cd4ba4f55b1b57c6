"""What takes long to make is made once for all workers of a run: wheels, environments."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["NotMade", "environment", "made_once", "others_environment"]


class NotMade(Exception):
    """A command failed that makes something for the tests; its message is what it said."""


def made_once(factory: pytest.TempPathFactory, name: str, *commands: Sequence[str]) -> Path:
    """The folder that the commands fill, as their argument `{}`: run by the first worker to come.

    Raises:
        NotMade: A command failed, here or in another worker.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, failure = shared / name, shared / f"{name}.failure"
    with open(shared / f"{name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists() and not failure.exists():
            for command in commands:
                filled = [argument.replace("{}", str(folder)) for argument in command]
                # Not in the checkout, whose settings for uv are of the project alone.
                ran = subprocess.run(
                    filled, cwd=shared, capture_output=True, text=True, check=False
                )
                if ran.returncode != 0:
                    failure.write_text(ran.stderr.strip()[-2000:], "utf-8")
                    break
    if failure.exists():
        raise NotMade(f"{name}: {failure.read_text('utf-8')}")
    return folder


def environment(factory: pytest.TempPathFactory, name: str, *requirements: str) -> Path:
    """The folder of programs of a Python environment that holds `requirements` alone."""
    make = ("uv", "venv", "--quiet", "--python", sys.executable, "{}")
    install = ("uv", "pip", "install", "--quiet", "--python", "{}/bin/python", *requirements)
    return made_once(factory, name, make, install) / "bin"


def others_environment(factory: pytest.TempPathFactory, name: str, *requirements: str) -> Path:
    """An environment for others' programs: where they cannot be installed, the test is skipped."""
    try:
        return environment(factory, name, *requirements)
    except (NotMade, FileNotFoundError) as error:
        pytest.skip(f"{name} cannot be installed: {str(error)[-300:]}")

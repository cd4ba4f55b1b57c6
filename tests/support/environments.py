"""What takes long to make is made once for all workers of a run: wheels, environments.

Environments of other programs are kept for later runs in the folder that MOA_TEST_ENVIRONMENTS
names, if it is set.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["NotMade", "environment", "made_once", "node_modules", "others_environment"]

_KEPT = "MOA_TEST_ENVIRONMENTS"
# For each command, in seconds.
_PATIENCE = 240.0
# Before a test has a home of its own: that of the user says where packages come from.
_AROUND = dict(os.environ)


class NotMade(Exception):
    """A command failed that makes something for the tests; its message is what it said."""


def made_once(
    factory: pytest.TempPathFactory, name: str, *commands: Sequence[str], kept: bool = False
) -> Path:
    """The folder that the commands fill, as their argument `{}`: run by the first worker to come.

    kept: whether a later run may use it, too.

    Raises:
        NotMade: A command failed, here or in another worker.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = shared
    if kept and os.environ.get(_KEPT):
        # Of another list of packages, or another Python, it is another environment.
        told = repr((commands, sys.version)).encode()
        name = f"{name}-{hashlib.sha256(told).hexdigest()[:8]}"
        place = Path(os.environ[_KEPT])
        place.mkdir(parents=True, exist_ok=True)
    # In a kept folder a failure is of one run only: the network may have been away.
    folder, made, failure = place / name, place / f"{name}.made", shared / f"{name}.failure"
    with open(place / f"{name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() and not failure.exists():
            shutil.rmtree(folder, ignore_errors=True)
            for command in commands:
                if (trouble := _run(command, folder, shared)) is not None:
                    failure.write_text(trouble, "utf-8")
                    break
            else:
                made.touch()
    if failure.exists():
        raise NotMade(f"{name}: {failure.read_text('utf-8')}")
    return folder


def _run(command: Sequence[str], folder: Path, cwd: Path) -> str | None:
    """Run a command that fills the folder; what it says if it fails."""
    filled = [argument.replace("{}", str(folder)) for argument in command]
    try:
        # Not in the checkout, whose settings for uv are of the project alone.
        ran = subprocess.run(
            filled,
            cwd=cwd,
            env=_AROUND,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]}: not within {_PATIENCE:g} s"
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    return None if ran.returncode == 0 else ran.stderr.strip()[-2000:]


def environment(
    factory: pytest.TempPathFactory,
    name: str,
    *requirements: str,
    without: Sequence[str] = (),
    kept: bool = False,
) -> Path:
    """The folder of programs of a Python environment that holds `requirements` alone.

    without: dependencies that are left out.
    """
    make = ("uv", "venv", "--quiet", "--python", sys.executable, "{}")
    install = ("uv", "pip", "install", "--quiet", "--python", "{}/bin/python", *requirements)
    if not without:
        return made_once(factory, name, make, install, kept=kept) / "bin"
    # uv takes them from a file only.
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    file = "{}/without.txt"
    leave = (sys.executable, "-c", write, file, "\n".join(without))
    return made_once(factory, name, make, leave, (*install, "--excludes", file), kept=kept) / "bin"


def others_environment(
    factory: pytest.TempPathFactory, name: str, *requirements: str, without: Sequence[str] = ()
) -> Path:
    """An environment for others' programs: where they cannot be installed, the test is skipped."""
    try:
        return environment(factory, name, *requirements, without=without, kept=True)
    except NotMade as error:
        pytest.skip(f"{name} cannot be installed: {str(error)[-300:]}")


def node_modules(factory: pytest.TempPathFactory, name: str, *packages: str) -> Path:
    """A folder with those packages for Node.js; where they cannot be had, the test is skipped."""
    install = ("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", "{}")
    try:
        return made_once(factory, name, (*install, *packages), kept=True)
    except NotMade as error:
        pytest.skip(f"{name} cannot be installed: {str(error)[-300:]}")

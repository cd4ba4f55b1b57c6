"""The script `uv` at the top of the checkout: it finds uv, or gets it with what Python has, or
says in one line which package is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "uv"

# Makes modules impossible to find in the Python that runs the script.
HIDE = "import sys; sys.modules.update(dict.fromkeys({modules!r}))"
ECHO = '#!/bin/sh\necho "{name}: $@"; exit 3\n'


class Checkout:
    """A copy of the script, with a PATH and Python modules of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.bin = folder / "bin"
        self.modules = folder / "modules"
        for directory in (self.folder, self.bin, self.modules):
            directory.mkdir()
        shutil.copy(SCRIPT, self.folder)

    def hide(self, *modules: str) -> None:
        code = HIDE.format(modules=modules)
        (self.modules / "sitecustomize.py").write_text(code, "utf-8")

    def fake_pip(self, code: str) -> None:
        (self.modules / "pip.py").write_text(code, "utf-8")

    def run(
        self, *arguments: str, path: tuple[Path, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-s", str(self.folder / "uv"), *arguments],
            env={
                "PATH": os.pathsep.join(map(str, (*path, self.bin))),
                "PYTHONPATH": str(self.modules),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)


def test_the_uv_on_path_gets_the_arguments_and_gives_its_exit_code(checkout: Checkout) -> None:
    program(checkout.bin / "uv", ECHO.format(name="found"))
    done = checkout.run("run", "moa", "ask", "a b")
    assert (done.returncode, done.stdout, done.stderr) == (3, "found: run moa ask a b\n", "")
    assert not (checkout.folder / ".uv").exists()


def test_the_script_is_not_taken_for_uv_when_its_folder_is_on_path(checkout: Checkout) -> None:
    program(checkout.bin / "uv", ECHO.format(name="found"))
    done = checkout.run("run", path=(checkout.folder,))
    assert done.stdout == "found: run\n"


@pytest.mark.parametrize("place", ["bin", "venv/bin"])
def test_the_uv_of_an_earlier_run_is_used_again(checkout: Checkout, place: str) -> None:
    program(checkout.folder / ".uv" / place / "uv", ECHO.format(name="kept"))
    done = checkout.run("run")
    assert (done.returncode, done.stdout, done.stderr) == (3, "kept: run\n", "")


def test_without_venv_pip_puts_uv_into_the_folder_where_its_children_find_it(
    checkout: Checkout,
) -> None:
    checkout.hide("ensurepip")
    checkout.fake_pip(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--target') + 1], 'bin')\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'uv').write_text('#!/bin/sh\\necho \"$PATH\"')\n"
        "(folder / 'uv').chmod(0o755)\n"
    )
    done = checkout.run("run")
    folder = checkout.folder / ".uv"
    assert (done.returncode, done.stdout) == (0, f"{folder / 'bin'}{os.pathsep}{checkout.bin}\n")
    assert done.stderr == f"uv: getting uv into {folder} (once)\n"


def test_why_pip_fails_is_one_line(checkout: Checkout) -> None:
    checkout.hide("ensurepip")
    checkout.fake_pip("import sys; sys.exit('WARNING: retrying\\nERROR: no network\\n')")
    done = checkout.run("run")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == ["uv: it could not be installed: ERROR: no network"]


@pytest.mark.parametrize(
    ("installer", "command"),
    [
        ("apt", "apt install python3-venv"),
        ("dnf", "dnf install python3-pip"),
        ("apk", "apk add py3-pip"),
        (None, f"{sys.executable} -m ensurepip --user"),
    ],
)
def test_a_python_without_pip_names_the_package_that_brings_it(
    checkout: Checkout, installer: str | None, command: str
) -> None:
    checkout.hide("ensurepip", "pip")
    if installer:
        program(checkout.bin / installer, "")
    done = checkout.run("run", "pytest")
    expected = f"uv: this Python has no pip to get uv with; run: {command}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
    assert not (checkout.folder / ".uv").exists()

"""Programs of others that a benchmark measures, each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def installed(folder: Path, program: str, *packages: str) -> str | None:
    """The path of a program in the environment at `folder`, which is made if it is not there.

    None if it cannot be installed.
    """
    folder = folder.resolve()
    path = folder / "bin" / program
    if path.exists():
        return str(path)
    uv = shutil.which("uv")
    if uv is None:
        return None
    folder.parent.mkdir(parents=True, exist_ok=True)
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode"]
    for command in (
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
        [*install, "--python", str(folder / "bin" / "python"), *packages],
    ):
        # Elsewhere than in this project, whose settings for uv leave `llm` out.
        if subprocess.run(command, cwd=folder.parent, stdout=subprocess.DEVNULL).returncode:
            return None
    return str(path)

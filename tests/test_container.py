"""The container file, as far as it can be tried without a container."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.command import KEY, Moa
from tests.support.server import serving

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what it says, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.partition(" ") for line in lines if line.strip()]
    return [(name, rest.strip()) for name, _, rest in pairs]


def told(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_the_image_runs_without_root_and_without_pip() -> None:
    last = [name for name, _ in instructions()]
    final = instructions()[len(last) - 1 - last[::-1].index("FROM") :]
    users = [rest for name, rest in final if name == "USER"]
    assert users == ["10001:10001"]
    assert any(name == "RUN" and "pip uninstall" in rest for name, rest in final)
    assert last.count("FROM") == 2
    assert "--without-pip" in told("RUN")[0]


def test_what_is_copied_exists_and_nothing_else_gets_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for copied in told("COPY"):
        if not copied.startswith("--from"):
            sources = copied.split()[:-1]
            assert all((ROOT / source).exists() for source in sources)
            assert set(sources) <= allowed
    [extras] = re.findall(r"'\.\[(.*?)\]'", told("RUN")[0])
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()
    assert project["project"]["scripts"]["moa"]
    assert json.loads(told("ENTRYPOINT")[0]) == ["moa"]


def test_the_command_starts_a_server_that_is_healthy(moa: Moa) -> None:
    command, *arguments = json.loads(told("CMD")[0])
    assert command == "serve"
    ran = moa.run(command, "--port", "0", *arguments)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "MOA_SERVE_API_KEY" in ran.err
    [check] = told("HEALTHCHECK")
    _, flag, code = json.loads(check[check.index("[") :])
    with serving(moa, *arguments, env={"MOA_SERVE_API_KEY": KEY}) as server:
        port = server.root.rpartition(":")[2]
        there = [sys.executable, flag, code.replace("8000", port)]
        assert subprocess.run(there, check=False).returncode == 0
        server.end()
        assert subprocess.run(there, check=False, capture_output=True).returncode != 0


def test_its_folders_are_those_that_moa_asks_for(moa: Moa, tmp_path: Path) -> None:
    variables = dict(pair.split("=", 1) for line in told("ENV") for pair in line.split())
    folders = {name: path for name, path in variables.items() if name.startswith("MOA_")}
    assert folders.keys() == {f"MOA_{kind}_DIR" for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
    assert {path for name, path in folders.items() if name != "MOA_CONFIG_DIR"} == {
        "/data/data",
        "/data/state",
        "/data/cache",
    }
    ran = moa.run("config", "path", env={"MOA_CONFIG_DIR": str(tmp_path / "config")})
    assert ran.text.strip() == str(tmp_path / "config" / "config.toml")

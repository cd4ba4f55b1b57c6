"""The wheel carries what the checkout has: built, installed elsewhere, and run there. The source
distribution passes its own tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.environments import environment, made_once
from tests.support.upstream import Reply, Upstream

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("uv") is None:
        pytest.skip("building the wheel needs uv")
    build = ("uv", "build", "--quiet", "--wheel", "--out-dir", "{}", str(ROOT))
    return next(made_once(tmp_path_factory, "wheel", build).glob("*.whl"))


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution's files, away from the checkout."""
    if shutil.which("uv") is None:
        pytest.skip("building the source distribution needs uv")
    build = ("uv", "build", "--quiet", "--sdist", "--out-dir", "{}", str(ROOT))
    (archive,) = made_once(tmp_path_factory, "sdist", build).glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory, "installed", str(wheel)) / "moa"


def _run(
    moa: Path, home: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(moa), *arguments],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_profiles_the_types_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {path.name for path in (ROOT / "profiles").glob("*.toml")}
    assert {Path(name).name for name in names if "/_profiles/" in name} == shipped
    assert "moa_cli/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith("tests/") for name in names)


def test_a_clean_environment_tells_version_and_profiles(installed: Path, tmp_path: Path) -> None:
    version = _run(installed, tmp_path, "--version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "moa")
    listed = _run(installed, tmp_path, "profile", "list")
    assert listed.returncode == 0, listed.stderr
    assert "paper-moa-gpt4o" in listed.stdout


def test_a_clean_environment_answers(installed: Path, tmp_path: Path) -> None:
    with Upstream(api_key="k") as upstream:
        upstream.always("*", Reply(text="forty-two"))
        done = _run(
            installed,
            tmp_path,
            "ask",
            "what is it?",
            TOGETHER_API_KEY="k",
            TOGETHER_BASE_URL=upstream.url,
        )
    assert (done.returncode, done.stdout) == (0, "forty-two\n"), done.stderr
    assert "profile together" in done.stderr


def test_without_the_extra_the_error_names_the_command(installed: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF")
    done = _run(installed, tmp_path, "ask", "-m", f"local:{weights}", "-a", f"local:{weights}", "x")
    assert done.returncode == 77
    assert "'moa-chat[local]'" in done.stderr
    assert done.stdout == ""


def test_the_sdist_holds_every_file_but_those_of_the_hosting(unpacked: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tracked = {name for name in listed.stdout.splitlines() if not name.startswith(".")}
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    assert tracked - there == set()


def test_the_sdist_passes_its_own_tests(unpacked: Path) -> None:
    # Those that read files of the checkout; `make test-fast` there runs the rest.
    chosen = ["tests/test_dependencies.py", "tests/docs/test_readme.py", "tests/test_uv.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-m", "not slow", *chosen],
        cwd=unpacked,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout

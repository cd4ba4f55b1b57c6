"""The wheel carries what the checkout has: built, installed elsewhere, and run there."""

from __future__ import annotations

import os
import shutil
import subprocess
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

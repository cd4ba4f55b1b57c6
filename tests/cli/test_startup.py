"""What only asks for a version or for help loads nothing that is heavy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_options import COMMANDS
from tests.support.command import KEY, Moa, Ran
from tests.support.server import serving
from tests.support.upstream import Upstream

HEAVY = {
    "together",
    "httpx",
    "pydantic",
    "asyncio",
    "logging",
    "rich.live",
    "rich.markdown",
    "rich.console",
    "prompt_toolkit",
    "sqlite3",
    "starlette",
    "uvicorn",
    "xllamacpp",
    "markdown_it",
    "pygments",
    "tomlkit",
}


def loaded(err: str) -> set[str]:
    """The modules of an import-time report."""
    lines = [line.rpartition("|")[2].strip() for line in err.splitlines() if "|" in line]
    return set(lines)


def run(moa: Moa, *arguments: str) -> tuple[Ran, set[str]]:
    """What came of it, and which modules it loaded."""
    # As `-X importtime`: each module is named on standard error as it is loaded.
    ran = moa.run(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.code == 0
    assert ran.out
    return ran, loaded(ran.err)


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_load_nothing_heavy(moa: Moa, flag: str) -> None:
    _, modules = run(moa, flag)
    assert "moa_cli.cli.app" in modules
    assert modules & HEAVY == set()


def test_the_version_needs_no_typer(moa: Moa) -> None:
    _, modules = run(moa, "--version")
    assert modules & {"typer", "inspect", "dataclasses"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["history", "--help"], ["bench", "--help"]])
def test_the_help_of_a_group_loads_none_of_its_commands(moa: Moa, arguments: list[str]) -> None:
    _, modules = run(moa, *arguments)
    assert {
        name for name in modules if name.startswith(("moa_cli.config", "moa_cli.store"))
    } == set()


def test_names_of_commands_are_completed_without_loading_them(moa: Moa) -> None:
    ran, modules = complete(moa, "moa history ")
    assert ran.text.split()[:3] == ["list", "show", "search"]
    assert {
        name for name in modules if name.startswith(("moa_cli.config", "moa_cli.store"))
    } == set()


def complete(moa: Moa, typed: str) -> tuple[Ran, set[str]]:
    """What bash is offered at the end of what was typed, and which modules were loaded for it."""
    words = typed.split(" ")
    env = {
        "_MOA_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    ran = moa.run(env=env)
    return ran, loaded(ran.err)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("moa pro", ["profile"]),
        ("moa ba", ["batch"]),
        ("moa profile sh", ["show"]),
        ("moa ask --ver", ["--verbose"]),
        ("moa ask -p la", ["lab"]),
        ("moa ask --output js", ["json", "jsonl"]),
        ("moa config get bud", ["budget.day", "budget.session", "budget.zone"]),
        ("moa history export --format h", ["html"]),
        ("moa models p", ["perplexity", "pull"]),
        ("moa models la", ["lab"]),
        ("moa models list gr", ["groq"]),
        ("moa models pull s", ["smollm2"]),
        ("moa profile show la", ["lab"]),
        ("moa profile delete la", ["lab"]),
        ("moa compare l", ["list"]),
        ("moa compare list --js", ["--json"]),
        ("moa batch merge --h", ["--help"]),
    ],
)
def test_commands_options_and_values_are_completed(
    moa: Moa, typed: str, offered: list[str]
) -> None:
    assert sorted(complete(moa, typed)[0].text.split()) == offered


def test_completion_says_nothing_of_broken_settings(moa: Moa) -> None:
    (moa.config / "config.toml").write_text("broken =")
    ran, _ = complete(moa, "moa models la")
    assert ran.out == b""
    assert "not valid TOML" not in ran.err


# Many dataclasses each, which a command makes when it runs.
VALUES = {
    "moa_cli.config.schema",
    "moa_cli.profile.schema",
    "moa_cli.core.conversation",
    "moa_cli.core.events",
    "tomllib",
}


@pytest.mark.parametrize("command", [*COMMANDS, "bench", "config", "history", "models", "profile"])
def test_the_help_of_a_command_loads_nothing_heavy_and_no_values(moa: Moa, command: str) -> None:
    _, modules = run(moa, *command.split(), "--help")
    assert modules & (HEAVY | VALUES) == set()


@pytest.mark.parametrize(
    "arguments",
    [["ask", "--dry-run", "hi"], ["profile", "list"], ["profile", "show"], ["config", "list"]],
    ids=" ".join,
)
def test_the_sdk_is_not_loaded_where_no_model_is_asked(moa: Moa, arguments: list[str]) -> None:
    _, modules = run(moa, *arguments)
    # Typer converts values by Pydantic; a word needs no conversion.
    assert modules & HEAVY <= {"asyncio", "logging"}


def test_a_reply_into_a_pipe_loads_no_part_of_the_terminal(moa: Moa) -> None:
    ran, modules = run(moa, "ask", "hi")
    assert ran.out == b"ok\n"
    assert "moa_cli.clients.http.transport" in modules
    assert modules & {"prompt_toolkit", "rich.markdown", "markdown_it"} == set()


HTTP_LIBRARIES = {"together", "httpx", "pydantic", "anyio"}


@pytest.mark.parametrize("profile", ["lab", "together"])
@pytest.mark.parametrize(
    "arguments", [["ask", "hi"], ["chat"], ["batch", "in.jsonl", "out.jsonl"]], ids=lambda a: a[0]
)
def test_an_answer_needs_none_of_the_heavy_http_libraries(
    moa: Moa, upstream: Upstream, profile: str, arguments: list[str]
) -> None:
    (moa.folder / "in.jsonl").write_text('{"id": "a", "prompt": "hi"}\n')
    env = {"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": upstream.url}
    env["PYTHONPROFILEIMPORTTIME"] = "1"
    ran = moa.run(*arguments, "-p", profile, stdin=b"hi\n", env=env)
    assert ran.code == 0
    assert upstream.chats()
    assert loaded(ran.err) & HTTP_LIBRARIES == set()


def test_the_server_loads_no_sdk(moa: Moa, upstream: Upstream) -> None:
    with serving(moa, env={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        assert server.ask().status_code == 200
        server.end()
        assert loaded("\n".join(server.log)) & {"together", "httpx"} == set()


def test_the_version_is_the_package_s(moa: Moa) -> None:
    from moa_cli.version import __version__

    for flag in ("--version", "-V"):
        assert moa.run(flag).text == f"moa {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["profile"]], ids=["moa", "moa profile"])
def test_without_a_command_the_help_is_the_error(moa: Moa, arguments: list[str]) -> None:
    ran = moa.run(*arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith(" ".join(["Usage: moa", *arguments]))
    assert ran.err.rstrip("\n") + "\n" == moa.run(*arguments, "--help").text


def test_an_unknown_command_is_one_line(moa: Moa) -> None:
    ran = moa.run("aks", "hi")
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith("moa: No such command 'aks'")
    assert ran.err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_completion_for_a_shell_can_be_shown(moa: Moa) -> None:
    # Its own name for the setting: otherwise it looks at the process that started this one.
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    ran = moa.run("--show-completion", "bash", env=env)
    assert ran.code == 0
    assert "_MOA_COMPLETE=complete_bash" in ran.text


def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    # Python runs this module before the command; its finder presses Ctrl-C at one import.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Pressing:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == os.environ['PRESSED_AT']:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Pressing())\n"
    )
    ended = {}
    for module in ("moa_cli.cli.app", "moa_cli.cli.exit_codes", "typer", "moa_cli.cli.table"):
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PRESSED_AT": module}
        arguments = [sys.executable, "-m", "moa_cli", "ask", "--help"]
        ran = subprocess.run(arguments, env=environment, capture_output=True, check=False)
        assert (ran.stdout, ran.stderr) == (b"", b"")
        ended[module] = ran.returncode
    # Before the command line is there, as any program that Ctrl-C ends; then by its own code.
    assert set(ended.values()) == {-signal.SIGINT, 130}


def test_ctrl_c_while_a_class_is_made_ends_without_a_traceback(tmp_path: Path) -> None:
    # Python runs this module before the command; it presses Ctrl-C when a field gets its name.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def press(frame, event, argument):\n"
        "    if event == 'call' and frame.f_code.co_name == '__set_name__':\n"
        "        sys.setprofile(None)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "class Watching:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'moa_cli.bench.run.journal':\n"
        "            sys.setprofile(press)\n"
        "sys.meta_path.insert(0, Watching())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "moa_cli", "bench", "report", "run"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")


def test_ctrl_c_in_the_moment_in_which_a_command_ends_leaves_no_traceback(tmp_path: Path) -> None:
    # Python runs this module before the command; it presses Ctrl-C when the command line is left.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def press(frame, event, argument):\n"
        "    code = frame.f_code\n"
        "    left = event == 'return' and code.co_name == 'main'\n"
        "    if left and code.co_filename.endswith(os.path.join('cli', 'app.py')):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.setprofile(press)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "moa_cli", "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (130, b"")
    assert ran.stdout.startswith(b"moa ")

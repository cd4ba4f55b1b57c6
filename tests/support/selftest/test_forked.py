"""A forked command behaves as one that is started afresh."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer.main

from moa_cli.cli.table import app
from tests.support.bench.own_runs import ANSWER, write_prompts
from tests.support.command import Moa, forks
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux only")

SAID = b'{"prompt": "one"}\n{"prompt": "two"}\n'
ENGLISH = "English sentences that a judge can read, and that say enough."
# One of each command, in a home with two conversations, a run of `bench` and an exported file.
EACH: list[tuple[str, bytes | None]] = [
    ("ask hi", None),
    ("chat", b"/help\nhi\n/mixture\n/cost\n"),
    ("serve --port 0 --auth-token x --allow-none", None),
    ("mcp --port 0 --auth-token x", None),
    ("batch prompts.jsonl -", SAID),
    ("batch merge part.jsonl merged.jsonl", None),
    ("compare p", None),
    ("compare list", None),
    ("compare show 1", None),
    ("compare export", None),
    ("compare delete --all -y", None),
    ("compare judge --judge lab:judge -y", None),
    ("models list", None),
    ("models pull nothing", None),
    ("models suggest", None),
    ("setup", None),
    ("doctor --offline", None),
    ("bench list", None),
    ("bench fetch nothing", None),
    ("bench run mine.jsonl -y -o other", None),
    ("bench judge run --judge lab:judge -y", None),
    ("bench export run --format jsonl", None),
    ("bench report run", None),
    ("bench items run", None),
    ("bench sweep mine.jsonl -y --proposers 1,2 -o swept", None),
    ("bench agreement run", None),
    ("bench reproduce table8", None),
    ("bench analyse run --judge lab:judge", None),
    ("bench select run", None),
    ("profile list", None),
    ("profile show", None),
    ("profile new mine --proposer lab:a --aggregator lab:b", None),
    ("profile copy lab copied", None),
    ("profile edit lab", None),
    ("profile delete lab -y", None),
    ("profile check", None),
    ("profile path", None),
    ("config list", None),
    ("config get retries", None),
    ("config set retries 1", None),
    ("config unset retries", None),
    ("config path", None),
    ("config template", None),
    ("config edit", None),
    ("history list", None),
    ("history show", None),
    ("history search hi", None),
    ("history delete --all -y", None),
    ("history path", None),
    ("history stats", None),
    ("history export --format html", None),
    ("history import all.json", None),
    ("history check", None),
    ("history backup copy.db", None),
    ("history recover", None),
    ("history clean", None),
    ("history rename 1 named", None),
    ("history tag 1 tagged", None),
]


def paths_of(commands: Any, *above: str) -> Iterator[str]:
    """Each command that does something, by its path."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from paths_of(command.commands, *above, name)
        else:
            yield " ".join([*above, name])


def test_each_command_is_among_those_that_are_also_started_afresh() -> None:
    root: Any = typer.main.get_command(app)
    tried = [line for line, _ in EACH]
    for path in paths_of(root.commands):
        assert any(line == path or line.startswith(f"{path} ") for line in tried), path


@pytest.fixture(scope="module")
def upstream_of_all() -> Iterator[Upstream]:
    with Upstream() as running:
        running.always("*", ANSWER)
        running.always("judge", Reply(text="[[A]]"))
        yield running


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, upstream_of_all: Upstream) -> Path:
    """The home of a user who has done something."""
    home = tmp_path_factory.mktemp("used")
    moa = Moa(home, upstream_of_all.url)
    for question in ("hi", "ho"):
        assert moa.run("ask", question).code == 0
    (moa.folder / "prompts.jsonl").write_bytes(SAID)
    assert moa.run("bench", "run", write_prompts(moa, 2), "-y", "-o", "run").code == 0
    exported = moa.run("history", "export", "--all", "--format", "json")
    (moa.folder / "all.json").write_bytes(exported.out)
    return home


def without_figures(text: str, home: Path) -> str:
    """What two runs of a command have in common."""
    return re.sub(r"[0-9a-f]{8,}|[\d.]+", "#", text.replace(str(home), "HOME"))


@pytest.mark.parametrize(("line", "stdin"), EACH, ids=[line for line, _ in EACH])
def test_each_command_does_the_same_as_a_fork_and_afresh(
    used: Path, tmp_path: Path, upstream_of_all: Upstream, line: str, stdin: bytes | None
) -> None:
    came = []
    for fresh in (False, True):
        home = tmp_path / ("fresh" if fresh else "forked")
        shutil.copytree(used, home)
        moa = Moa.at(home)
        ran = moa.run(*line.split(), stdin=stdin, env={"EDITOR": "true"}, fresh=fresh)
        texts = [without_figures(text, home) for text in (ran.text, ran.err)]
        # What is learned of a provider's limits depends on how many calls were open at once.
        files = sorted(
            without_figures(str(path), home)
            for path in home.rglob("*")
            if not path.is_relative_to(home / "cache" / "limits")
        )
        came.append((ran.code, texts, files))
    assert came[0] == came[1]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--version"], None),
        (["no-such-command"], None),
        (["ask", "--help"], None),
        (["ask", "hi", "--no-save"], None),
        (["ask", "--no-save"], "from a pipe, ünïcode".encode()),
        (["ask", "--no-save"], b"\xff is no text"),
        pytest.param(["ask", "--no-save"], b"more than a pipe holds " * 20_000, id="long"),
        (["ask", "--no-save", "-f", os.fsdecode(b"no such file \xff")], None),
        (["ask", "-p", "no-such-profile", "hi"], None),
        (["history", "path"], None),
        (["config", "list"], b""),
    ],
    ids=str,
)
def test_exit_code_and_output_are_those_of_a_fresh_process(
    moa: Moa, upstream: Upstream, arguments: list[str], stdin: bytes | None
) -> None:
    upstream.always("agg", Reply(text=lambda request: f"{len(str(request.messages))} ünïcode"))
    # The first call makes the folders and the prices' cache, which both then find.
    moa.run("ask", "hi", "--no-save")
    assert moa.run(*arguments, stdin=stdin) == moa.run(*arguments, stdin=stdin, fresh=True)


def test_a_full_disk_ends_a_command_in_the_same_way(moa: Moa) -> None:
    came = []
    for fresh in (False, True):
        with (
            open("/dev/full", "wb") as full,
            moa.start("--version", stdout=full, fresh=fresh) as process,
        ):
            came.append((process.communicate()[1], process.returncode))
    assert came[0] == came[1]
    assert b"No space left on device" in came[0][0]


def test_a_command_that_does_not_end_can_be_left_and_killed(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with moa.start("ask", "hi") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.01)
        assert process.poll() is None
    assert process.wait() == -signal.SIGKILL
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_commands_run_beside_each_other(moa: Moa, upstream: Upstream) -> None:
    released = threading.Event()
    upstream.always("agg", Reply(after=released))
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(moa.run, "ask", "-r", "0", f"question {n}") for n in range(3)]
        upstream.wait_for(lambda: upstream.in_flight == 3)
        released.set()
        assert [command.result().text for command in running] == ["ok\n"] * 3


def test_a_fork_has_the_limits_of_the_test(moa: Moa, upstream: Upstream) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    upstream.always("agg", Reply(stall_after=0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        with moa.start("ask", "hi") as process:
            upstream.wait_for(lambda: upstream.in_flight == 1)
            limits = Path(f"/proc/{process.pid}/limits").read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert re.search(rf"Max open files +{soft - 1} ", limits)


@pytest.mark.parametrize("name", ["PYTHONUTF8", "LC_ALL", "TZ", "TMPDIR", "TYPER_USE_RICH"])
def test_what_was_read_at_import_must_be_read_afresh(moa: Moa, name: str) -> None:
    assert forks().suits(moa.environment)
    assert not forks().suits({**moa.environment, name: "other"})
    assert forks().suits({**moa.environment, "NO_COLOR": "1", "PATH": "/bin", "HOME": "/root"})


# Names what modules of the package ask the system for while they are imported.
ASKED = """
import os, sys
sys.path[0] = os.getcwd()
from tests.support import forked

ASKING = {
    "time": {"time", "time_ns", "localtime", "gmtime", "monotonic", "perf_counter"},
    "posix": {"getpid", "getppid", "getcwd", "urandom", "uname", "getlogin", "getuid", "isatty"},
}

def profile(frame, event, function):
    if event != "c_call" or function.__name__ not in ASKING.get(function.__module__, ()):
        return
    while frame and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    name = frame.f_globals["__name__"] if frame else ""
    if name.startswith("moa_cli"):
        print(name, function.__name__)

sys.setprofile(profile)
forked.import_all()
"""


def test_one_module_alone_has_at_import_what_differs_between_processes() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", ASKED], cwd=root, capture_output=True, text=True)
    # It gets another value in each fork; see `forked`.
    assert set(done.stdout.splitlines()) == {"moa_cli.core.unique urandom"}, done.stderr

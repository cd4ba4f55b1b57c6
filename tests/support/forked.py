"""`moa` by a fork of a process that has imported the libraries already.

Of a short command's time, most goes into importing other projects' libraries, and the tests run
thousands of commands. One process imports them once and forks for each command. It has loaded
nothing of `moa_cli`: the child imports that as `python -m moa_cli` does, in the command's folder
and environment, at streams of its own, and ends as every Python process ends.

What Python itself reads from the environment when it starts (`STARTING`) cannot be given to a
fork. Commands that change it must be started afresh.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["STARTING", "Forks"]

STARTING = re.compile(r"PYTHON.*|LANG|LANGUAGE|LC_.*|TZ|LD_.*|MALLOC_.*")
_ROOT = Path(__file__).parents[2]
# None of them starts a thread when it is imported: a fork would lose it.
_LIBRARIES = (
    *("asyncio", "concurrent.futures", "dataclasses", "sqlite3", "ssl", "termios", "uuid"),
    *("aiohttp", "anyio", "anyio._backends._asyncio", "certifi", "dotenv", "httpcore", "httpx"),
    *("markdown_it", "platformdirs", "prompt_toolkit", "pydantic", "pygments", "rapidfuzz"),
    *("rich.console", "rich.panel", "rich.table", "together", "tomli_w", "tomlkit", "tomllib"),
    *("typer", "typer.main", "yaml"),
)


class Forks:
    """The process that forks, from the side of the tests."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. environment: holds what commands have of `STARTING`."""
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        atexit.register(self._end)

    @property
    def alive(self) -> bool:
        """Whether it runs still: whatever ended it, later tests should not fail for it."""
        return self._process.poll() is None

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        stdin: bytes | None,
        seconds: float,
    ) -> tuple[int, bytes, bytes]:
        """The exit code and the output of a command; negative is the signal that ended it.

        Args:
            arguments: What follows `moa`.
            folder: Its working directory.
            environment: All of its environment.
            stdin: What it can read; None is nothing, and no pipe.
            seconds: How long it may run.

        Raises:
            subprocess.TimeoutExpired: It ran for longer, and was killed.
        """
        source, feed = (os.open(os.devnull, os.O_RDONLY), -1) if stdin is None else os.pipe()
        (out, out_end), (err, err_end), (state, state_end) = os.pipe(), os.pipe(), os.pipe()
        given = (source, out_end, err_end, state_end)
        with tempfile.TemporaryFile() as request:
            request.write(json.dumps([list(arguments), str(folder), dict(environment)]).encode())
            request.seek(0)
            socket.send_fds(self._requests, [b"."], [request.fileno(), *given])
        for end in given:
            os.close(end)
        with ThreadPoolExecutor(3) as pool, open(state) as told:
            outputs = [pool.submit(_read, out), pool.submit(_read, err)]
            if stdin is not None:
                pool.submit(_write, feed, stdin)
            child = int(told.readline())
            try:
                written = [_within(output, seconds) for output in outputs]
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["moa", *arguments], seconds) from None
            return int(told.readline()), written[0], written[1]


def _read(end: int) -> bytes:
    with open(end, "rb") as pipe:
        return pipe.read()


def _write(end: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(end, "wb") as pipe:
        pipe.write(data)


def _within(output: Future[bytes], seconds: float) -> bytes:
    return output.result(timeout=seconds)


def _serve(requests: socket.socket) -> None:
    """Fork for each request. It returns in the child, as the command, and when tests have ended."""
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    # Ctrl-C ends the tests, and with them this process; its children are as it finds them.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 5)
        if not message:
            sys.exit()
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGINT, interrupt)
            *streams, state = descriptors[1:]
            with open(descriptors[0], "rb") as request:
                arguments, folder, environment = json.load(request)
            _tell_of_child(streams, state)
            _become(streams, arguments, folder, environment)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _tell_of_child(streams: Sequence[int], state: int) -> None:
    """Fork once more; wait for the child, and tell its process id and its exit code."""
    child = os.fork()
    if child == 0:
        os.close(state)
        return
    for stream in streams:
        os.close(stream)
    os.write(state, b"%d\n" % child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(state, b"%d\n" % code)
    os._exit(0)


def _become(
    streams: Sequence[int], arguments: Sequence[str], folder: str, environment: dict[str, str]
) -> None:
    """Take over the streams, arguments, folder and environment of the command."""
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
        os.close(stream)
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        before = getattr(sys, name)
        binary: Any = os.fdopen(before.fileno(), mode, closefd=False)
        lines = name == "stderr"
        text = io.TextIOWrapper(binary, before.encoding, before.errors, line_buffering=lines)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = arguments


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
    runpy.run_module("moa_cli", run_name="__main__", alter_sys=True)

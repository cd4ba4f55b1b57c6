"""`moa` by a fork of a process that has imported its modules already.

Of a short command's time, most goes into imports and its parser, and the tests run thousands of
commands. One process imports all that commands import and builds each command, once, and forks for
each of them. The child has streams, a folder, an environment and a session as the command should
have them, runs `moa_cli` as `python -m moa_cli` does, and ends as a Python process ends.

What was read from the environment by then (by Python itself: `_STARTING`; by imported modules:
they are watched) cannot be given to a fork. `Forks.suits` says which commands must be started
afresh for it. A test that asks which modules a command imports must start it afresh, too.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import resource
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Forked", "Forks", "import_all"]

_STARTING = re.compile(r"PYTHON.*|LANG|LANGUAGE|LC_.*|TZ|LD_.*|MALLOC_.*")
_ROOT = Path(__file__).parents[2]
# They are read at import to no effect: by sysconfig, and by wsgiref, which copies all there is.
_WITHOUT_EFFECT = {"HOME", "PATH"}
# Other projects' libraries that commands import inside functions. None of them starts a thread
# when it is imported: a fork would lose it.
_LIBRARIES = (
    *("asyncio", "concurrent.futures", "dataclasses", "sqlite3", "ssl", "termios", "uuid"),
    *("anyio", "anyio._backends._asyncio", "certifi", "dotenv", "httpcore", "httptools", "httpx"),
    *("markdown_it", "platformdirs", "prompt_toolkit", "pydantic", "pygments", "rapidfuzz"),
    *("rich.console", "rich.panel", "rich.table", "together", "tomli_w", "tomlkit", "tomllib"),
    *("typer", "typer.main", "yaml"),
)
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
# Modules of the package that are programs of their own.
_PROGRAMS = (
    "moa_cli.__main__",
    "moa_cli.bench.report.official_fit",
    "moa_cli.clients.local.server",
)
# What is told of a child: its process id, later its exit status.
_NUMBER = struct.Struct("i")


class Forks:
    """The process that forks, from the side of the tests."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. environment: holds what commands have of `_STARTING`."""
        self._environment = dict(environment)
        self.requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=_ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        told = self.requests.makefile("r").readline()
        self._read = set(json.loads(told)) - _WITHOUT_EFFECT
        atexit.register(self._end)

    @property
    def alive(self) -> bool:
        """Whether it runs still: whatever ended it, later tests should not fail for it."""
        return self._process.poll() is None

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether Python and its modules would start in that environment as they have here."""
        names = {name for name in (*environment, *self._environment) if _STARTING.fullmatch(name)}
        names |= self._read
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def _end(self) -> None:
        self.requests.close()
        self._process.wait()


class Forked(subprocess.Popen[bytes]):
    """A command as a fork.

    It relies on methods of `Popen` that are not public: `_execute_child`, which starts the process
    and closes its ends of pipes, and `_internal_poll` and `_try_wait`, which ask for its exit
    status: here it is a child of another process.
    """

    def __init__(
        self, forks: Forks, arguments: Sequence[str], *, at_terminal: bool = False, **options: Any
    ) -> None:
        """Start it.

        Args:
            forks: The process that forks.
            arguments: What follows `moa`.
            at_terminal: Whether it leads a session at the terminal that is its standard error.
            **options: `cwd`, `env` and the streams, as `Popen` takes them.
        """
        self._forks = forks
        self._arguments = list(arguments)
        self._at_terminal = at_terminal
        super().__init__(["moa", *arguments], **options)

    def _execute_child(self, *values: Any) -> None:
        signature = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
        given = signature.bind(self, *values).arguments
        streams = (given["p2cread"], given["c2pwrite"], given["errwrite"])
        self._state, state = os.pipe()
        limits = [[number, *resource.getrlimit(number)] for number in _LIMITS]
        known = [str(given["cwd"]), dict(given["env"]), limits, self._at_terminal]
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps([self._arguments, *known]).encode())
            file.seek(0)
            socket.send_fds(self._forks.requests, [b"."], [file.fileno(), state, *streams])
        os.close(state)
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[end] for end in ends))  # type: ignore[attr-defined]
        self.pid = self._told()
        self._child_created = True

    def _told(self) -> int:
        told = os.read(self._state, _NUMBER.size)
        if not told:
            raise ChildProcessError("the process that forks has ended")
        number: int = _NUMBER.unpack(told)[0]
        return number

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        lock: threading.Lock = self._waitpid_lock  # type: ignore[attr-defined]
        # Whoever holds the lock is waiting for the status.
        if self.returncode is None and lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                lock.release()
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._state], [], [], 0)[0]:
            return 0, 0
        status = self._told()
        os.close(self._state)
        return self.pid, status


class _Watched(type(os.environ)):  # type: ignore[misc]
    """The environment, which notes what is read."""

    read: set[str]

    def __getitem__(self, name: str) -> str:
        _Watched.read.add(name)
        value: str = super().__getitem__(name)
        return value


def import_all() -> list[str]:
    """Import what commands import, and build each command; the names of what was read from the
    environment."""
    plain = type(os.environ)
    _Watched.read = set()
    os.environ.__class__ = _Watched
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    package = importlib.import_module("moa_cli")
    for module in pkgutil.walk_packages(package.__path__, "moa_cli."):
        if module.name not in _PROGRAMS:
            with suppress(ImportError):
                importlib.import_module(module.name)
    app = importlib.import_module("moa_cli.cli.table").app
    _build(importlib.import_module("moa_cli.cli.commands").built(app))
    os.environ.__class__ = plain
    return sorted(_Watched.read)


def _build(group: Any) -> None:
    """Build each command of a group, and of the groups in it."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            _build(command)


def _serve(requests: socket.socket) -> None:
    """Fork for each request. It returns in the child, as the command, and when tests have ended."""
    requests.sendall(json.dumps(import_all()).encode() + b"\n")
    # Once here, so that the children neither look at what there is by then nor free it.
    gc.collect()
    gc.freeze()
    # Ctrl-C ends the tests, and with them this process; its children are as it finds them.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, int] = {}
    ended, end = os.pipe()
    for pipe in (ended, end):
        os.set_blocking(pipe, False)
    signal.set_wakeup_fd(end)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready, _, _ = select.select([requests.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 512)
            _tell_of_ended(children)
        if requests.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 5)
        if not message:
            sys.exit()
        request, state, *streams = descriptors
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Until the command takes it over, as at the start of a process of its own.
            taken_over = interrupt is signal.default_int_handler
            signal.signal(signal.SIGINT, signal.SIG_DFL if taken_over else interrupt)
            requests.close()
            for descriptor in (ended, end, state, *children.values()):
                os.close(descriptor)
            with open(request, "rb") as file:
                _become(streams, *json.load(file))
            return
        children[child] = state
        os.write(state, _NUMBER.pack(child))
        for descriptor in (request, *streams):
            os.close(descriptor)


def _tell_of_ended(children: dict[int, int]) -> None:
    """Tell the exit status of each child that has ended."""
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                break
            state = children.pop(child)
            # Whoever started it may no longer want to know.
            with suppress(BrokenPipeError):
                os.write(state, _NUMBER.pack(status))
            os.close(state)


def _become(
    streams: Sequence[int],
    arguments: Sequence[str],
    folder: str,
    environment: dict[str, str],
    limits: Sequence[tuple[int, int, int]],
    at_terminal: bool,
) -> None:
    """Take over the streams, arguments, folder, environment and limits of the command."""
    for number, soft, hard in limits:
        if resource.getrlimit(number) != (soft, hard):
            resource.setrlimit(number, (soft, hard))
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
        os.close(stream)
    if at_terminal:
        os.setsid()
        fcntl.ioctl(2, termios.TIOCSCTTY, 0)
    for name, mode in (("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb")):
        before = getattr(sys, name)
        binary: Any = os.fdopen(before.fileno(), mode, closefd=False)
        binary.raw.name = before.name
        lines = name == "stderr" or binary.isatty()
        text: Any = io.TextIOWrapper(binary, before.encoding, before.errors, line_buffering=lines)
        text.mode = mode[0]
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    # All that a module of the package has at import that differs from process to process.
    unique = importlib.import_module("moa_cli.core.unique")
    unique._PROCESS = secrets.token_hex(8)  # type: ignore[attr-defined]


def _end_with(code: object) -> None:
    """End as Python does, but for taking its modules apart.

    That would take most of a short command's time: each object has a count of references, so the
    whole memory that the child shares with its parent would be copied.
    """
    if not isinstance(code, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # What the command has left is told here, such as a task that was never awaited.
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        runpy.run_module("moa_cli", run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        _end_with(leaving.code)
        # As Python ends if that did not.
        raise

"""The embedded model: a child process that serves as an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from moa_cli.clients.local.memory import LocalMemory
from moa_cli.clients.local.weights import SMOLLM2, find_weights
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.config.schema import Config
from moa_cli.core.endpoints import Delta, ModelInfo, Request
from moa_cli.core.errors import ClientError, ConnectionLost, LocalModelUnavailable
from moa_cli.core.installation import install_command
from moa_cli.models.table import Provider

_STOP_SECONDS = 2.0

# The install commands of package managers, and the index of the package's name below. Slim
# container images often lack libgomp.
_INSTALLERS = {
    **{program: (f"{program} install", 0) for program in ("apt", "apt-get")},
    **{program: (f"{program} install", 1) for program in ("dnf", "yum", "microdnf")},
    "zypper": ("zypper install", 0),
    "apk": ("apk add", 1),
    "pacman": ("pacman -S", 2),
}
# The packages with the system libraries that the runtime needs.
_LIBRARIES = {
    "libgomp.so.1": ("libgomp1", "libgomp", "gcc-libs"),
    "libstdc++.so.6": ("libstdc++6", "libstdc++", "gcc-libs"),
}


@dataclass(frozen=True, eq=False)
class _Running:
    """A running child process, and the client of its endpoint."""

    child: subprocess.Popen[str]
    endpoint: OpenAICompatible

    async def aclose(self) -> None:
        await self.endpoint.aclose()
        await asyncio.to_thread(_end, self.child)


class LocalClient:
    """One GGUF model behind a child process, started at the first call.

    model: `smollm2`, the name of a pulled model, or the path of a GGUF file. memory: counts the
    memory of all models of this run. All calls share the child's parallel slots.
    """

    def __init__(self, model: str, config: Config, memory: LocalMemory | None = None) -> None:
        self._model = model
        self._config = config
        self._memory = memory or LocalMemory(config.local)
        # Set as soon as the child runs, so that `aclose` can end a start in progress.
        self._child: subprocess.Popen[str] | None = None
        self._starting: asyncio.Task[_Running] | None = None

    async def _ready(self) -> _Running:
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        starting = self._starting
        # A cancelled call does not stop the start that others wait for. asyncio.shield would print
        # the error of that start since Python 3.14.
        await asyncio.wait([starting])
        return starting.result()

    def _start(self) -> _Running:
        path = find_weights(self._model, self._config)
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalModelUnavailable(
                "local: the embedded runtime is not installed",
                hint=f"install it with: {install_command('local')}",
            )
        self._memory.take(path)
        key = secrets.token_urlsafe(32)
        try:
            child = self._child = _spawn()
        except OSError as error:
            raise LocalModelUnavailable(
                f"local: the embedded model's process cannot be started: {error.strerror}"
            ) from None
        answer = self._tell(child, path, key)
        if "address" not in answer:
            self._memory.release(path)
            _end(child)
            raise _cannot_start(answer, child, path)
        provider = Provider(name="local", base_url=f"{answer['address']}/v1")
        return _Running(child, OpenAICompatible(provider, lambda: key))

    def _tell(self, child: subprocess.Popen[str], path: Path, key: str) -> dict[str, str]:
        """Tell the child what to serve; returns its answer, empty if the child ended without one.

        The key goes through the pipe, never through argv, which all users can read.
        """
        asked = {
            "path": str(path),
            "alias": path.stem if self._model != SMOLLM2 else self._model,
            "key": key,
            "context": self._config.local.context,
            "parallel": self._config.local.parallel,
        }
        # ValueError: the answer is not JSON, or `aclose` has closed the pipe.
        with contextlib.suppress(OSError, ValueError):
            if child.stdin and child.stdout:
                child.stdin.write(json.dumps(asked) + "\n")
                child.stdin.flush()
                answer = json.loads(child.stdout.readline())
                return answer if isinstance(answer, dict) else {}
        return {}

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        running = await self._ready()
        try:
            async with aclosing(running.endpoint.stream(request)) as deltas:
                async for delta in deltas:
                    yield delta
        except ConnectionLost as error:
            raise await self._explain(running, error) from None

    async def models(self) -> list[ModelInfo]:
        running = await self._ready()
        try:
            return await running.endpoint.models()
        except ConnectionLost as error:
            raise await self._explain(running, error) from None

    async def _explain(self, running: _Running, error: ConnectionLost) -> ClientError:
        """The error for a broken connection. If the child has ended, the next call starts another
        one."""
        if not await asyncio.to_thread(_has_ended, running.child):
            return error
        if self._child is running.child:
            # Only the first of several calls that broke together cleans up.
            self._child = self._starting = None
            await running.aclose()
        return _ended(running.child)

    async def aclose(self) -> None:
        starting, self._starting = self._starting, None
        if starting is None:
            return
        if self._child is not None:
            await asyncio.to_thread(_end, self._child)
        with contextlib.suppress(ClientError):
            await (await starting).aclose()


def _spawn() -> subprocess.Popen[str]:
    return subprocess.Popen(
        # -P: a file in the working directory must not be imported instead of a module.
        [sys.executable, "-P", "-m", "moa_cli.clients.local.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # In a session of its own, so that Ctrl-C at the terminal does not end the child.
        start_new_session=True,
        # Busy-waiting threads slow each other down on few cores.
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )


def _cannot_start(
    answer: dict[str, str], child: subprocess.Popen[str], path: Path
) -> LocalModelUnavailable:
    if answer.get("error") == "model":
        return LocalModelUnavailable(
            f"local: {path.name} could not be loaded: {answer['message']}",
            hint="check that it is a complete GGUF file, and that there is enough memory",
        )
    if answer.get("error") == "runtime":
        return LocalModelUnavailable(
            f"local: the embedded runtime cannot be loaded: {answer['message']}",
            hint=_what_it_lacks(answer["message"]),
        )
    return _ended(child)


def _what_it_lacks(message: str) -> str:
    """A hint with the command that installs the missing system library."""
    if "DLL load failed" in message:
        return "it needs the Visual C++ runtime; run: winget install Microsoft.VCRedist.2015+.x64"
    for library, packages in _LIBRARIES.items():
        if library in message:
            for installer, (command, which) in _INSTALLERS.items():
                if shutil.which(installer):
                    return f"run: {command} {packages[which]}"
            names = " or ".join(sorted(packages))
            return f"install the system's package of {library} ({names})"
    return f"install it again with: {install_command('local')}"


def _ended(child: subprocess.Popen[str]) -> LocalModelUnavailable:
    """The error that says why the child has ended."""
    status = child.wait()
    why = f"status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            why = signal.Signals(-status).name
    hint = "try again, or a smaller `local.context` in the config"
    if why == "SIGILL":
        hint = "on x86-64 it needs a processor with AVX2"
    return LocalModelUnavailable(f"local: the embedded model's process ended ({why})", hint=hint)


def _has_ended(child: subprocess.Popen[str]) -> bool:
    # Waits a moment, because the child's connections break shortly before `wait` can return.
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if child.stdin:
            child.stdin.close()
    if not _has_ended(child):
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()

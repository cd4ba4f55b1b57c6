"""The embedded model: a child process of ours that is one more endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from moa_cli.clients.base import Delta, ModelInfo, Request
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.clients.weights import find_weights, install_command
from moa_cli.config import Config
from moa_cli.errors import ClientError, ConnectionLost, LocalModelUnavailable

__all__ = ["LocalClient"]

_STOP_SECONDS = 2.0


class LocalClient:
    """One GGUF model behind a child process, started at the first call.

    model: `smollm2`, or the path of a GGUF file. All calls share the child's parallel slots.
    """

    def __init__(self, model: str, config: Config) -> None:
        self._model = model
        self._config = config
        self._child: subprocess.Popen[str] | None = None
        self._starting: asyncio.Task[OpenAICompatible] | None = None

    async def _ready(self) -> OpenAICompatible:
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        # Shielded: one cancelled call must not stop the start that others wait for.
        return await asyncio.shield(self._starting)

    def _start(self) -> OpenAICompatible:
        path = find_weights(self._model, self._config)
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalModelUnavailable(
                "local: the embedded runtime is not installed",
                hint=f"install it with: {install_command()}",
            )
        key = secrets.token_urlsafe(32)
        address = self._spawn(path, key)
        return OpenAICompatible("local", f"{address}/v1", lambda: key)

    def _spawn(self, path: Path, key: str) -> str:
        """Start the child; returns its address. The key goes through a pipe, never argv."""
        self._child = subprocess.Popen(
            # -P: a file in the working directory must not stand in for a module.
            [sys.executable, "-P", "-m", "moa_cli.clients.local_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A session of its own: Ctrl-C at the terminal is not for it.
            start_new_session=True,
            # Busy-waiting threads slow each other down on few cores.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        child = self._child
        if child.stdin is None or child.stdout is None:
            raise LocalModelUnavailable("local: the embedded runtime has no pipes")
        asked = {
            "path": str(path),
            "alias": path.stem if self._model != "smollm2" else self._model,
            "key": key,
            "context": self._config.local_context,
            "parallel": self._config.local_parallel,
        }
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(asked) + "\n")
            child.stdin.flush()
        line = child.stdout.readline()
        answer = json.loads(line) if line.strip() else {}
        if "address" not in answer:
            raise self._cannot_start(answer, path)
        return str(answer["address"])

    def _cannot_start(self, answer: dict[str, str], path: Path) -> LocalModelUnavailable:
        if answer.get("error") == "model":
            return LocalModelUnavailable(
                f"local: {path.name} could not be loaded: {answer['message']}",
                hint="is it a whole GGUF file, and is there memory enough?",
            )
        if answer.get("error") == "runtime":
            return LocalModelUnavailable(
                f"local: the embedded runtime cannot be loaded: {answer['message']}",
                hint="on Linux it needs the system's OpenMP library (package libgomp1 or libgomp)",
            )
        return self._ended()

    def _ended(self) -> LocalModelUnavailable:
        """Why the child is not there any more."""
        status = self._child.wait() if self._child else 0
        why = f"status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                why = signal.Signals(-status).name
        hint = "try again, or a smaller `local.context` in the config"
        if why == "SIGILL":
            hint = "on x86-64 it needs a processor with AVX2"
        return LocalModelUnavailable(
            f"local: the embedded model's process ended ({why})", hint=hint
        )

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The completion as it comes. Raises a ClientError."""
        inner = await self._ready()
        try:
            async with aclosing(inner.stream(request)) as deltas:
                async for delta in deltas:
                    yield delta
        except ConnectionLost:
            if self._child is None or self._child.poll() is None:
                raise
            ended = self._ended()
            await self._stop()
            raise ended from None

    async def models(self) -> list[ModelInfo]:
        """The one model."""
        return await (await self._ready()).models()

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        child, self._child = self._child, None
        if child is not None:
            await asyncio.to_thread(_end, child)
        if starting is not None:
            with contextlib.suppress(ClientError):
                await (await starting).aclose()

    async def aclose(self) -> None:
        """End the child."""
        await self._stop()


def _end(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if child.stdin:
            child.stdin.close()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()

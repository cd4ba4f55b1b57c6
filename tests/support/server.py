"""`moa serve` as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from tests.support.command import PATIENCE, Moa

__all__ = ["QUESTION", "Server", "chunks", "serving"]

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "why?"}]


class Server:
    """A running server. root: its address without /v1. log: what it wrote on standard error.

    listening: the line that tells its address, with the root as a group.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        key: str | None,
        listening: str = r"listening on (http://\S+)/v1",
    ) -> None:
        self.process = process
        self._url = re.compile(listening)
        self.log: list[str] = []
        self.root = ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # It speaks plain HTTP, and to read the certificates takes longer than most tests' requests.
        self.http = httpx.Client(headers=headers, timeout=PATIENCE, trust_env=False, verify=False)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.wait_for_log(listening)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = self._url.search(line.decode())
            if found:
                self.root = found[1]
            self.log.append(line.decode().rstrip("\n"))

    def close(self) -> None:
        """Take leave of a server that has ended."""
        self.http.close()
        self._reader.join()

    @property
    def url(self) -> str:
        """The base URL, as a client library takes it."""
        return f"{self.root}/v1"

    def wait_for_log(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Until a line of the log matches; the line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.log):
                if re.search(pattern, line):
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"no line matches {pattern}:\n" + "\n".join(self.log))

    def ask(
        self, *, headers: httpx.Headers | dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """A chat completion of `moa`, if the fields do not say otherwise."""
        body = {"model": "moa", "messages": QUESTION, **fields}
        return self.http.post(f"{self.url}/chat/completions", json=body, headers=headers)

    def streaming(self, **fields: Any) -> Any:
        """A context: the response of a streamed completion."""
        body = {"model": "moa", "messages": QUESTION, "stream": True, **fields}
        return self.http.stream("POST", f"{self.url}/chat/completions", json=body)

    def get(self, path: str, **named: Any) -> httpx.Response:
        """GET, from the root."""
        return self.http.get(self.root + path, **named)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@contextmanager
def serving(moa: Moa, *arguments: str, key: str | None = None, **options: Any) -> Iterator[Server]:
    """A server on a free port. key: what the client sends."""
    with ExitStack() as stack:
        process = stack.enter_context(moa.start("serve", "--port", "0", *arguments, **options))
        server = Server(process, key)
        stack.callback(server.close)
        stack.callback(process.kill)
        yield server


def chunks(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a stream of events, which must end well."""
    lines = [line for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]", text[-500:]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

"""`moa` as a program that a shell starts, by the same forks as `Moa.run`."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.command import PATIENCE, started

__all__ = ["forking_program"]

_AFRESH = """#!/bin/sh
exec {python} -m moa_cli "$@"
"""
# Sends arguments, folder, environment and what is piped in; gets exit code and output.
_CLIENT = """#!{python} -SE
import json, os, socket, stat, sys
mode = os.fstat(0).st_mode
piped = stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
stdin = sys.stdin.buffer.read().decode("latin1") if piped else None
with socket.socket(socket.AF_UNIX) as there:
    there.connect({socket!r})
    request = [sys.argv[1:], os.getcwd(), dict(os.environ), stdin]
    there.sendall(json.dumps(request).encode() + b"\\n")
    code, out, err = json.load(there.makefile())
sys.stderr.write(err)
sys.stdout.buffer.write(out.encode("latin1"))
sys.exit(code)
"""


def forking_program() -> str:
    """The text of an executable; starting it takes a fraction of what Python's imports take."""
    if sys.platform != "linux" or "MOA_TEST_FRESH" in os.environ:
        return _AFRESH.format(python=sys.executable)
    return _CLIENT.format(python=sys.executable, socket=_listening())


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Run what a client asks for."""
        arguments, folder, environment, stdin = json.loads(self.rfile.readline())
        given = None if stdin is None else stdin.encode("latin1")
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL if given is None else subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        with started(arguments, environment, cwd=folder, **streams) as process:
            try:
                out, err = process.communicate(given, timeout=PATIENCE)
            finally:
                process.kill()
        answer = [process.returncode, out.decode("latin1"), err.decode(errors="replace")]
        self.wfile.write(json.dumps(answer).encode())


@cache
def _listening() -> str:
    """The socket of a thread that serves for as long as the tests run."""
    path = str(Path(tempfile.mkdtemp()) / "socket")
    server = socketserver.ThreadingUnixStreamServer(path, _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return path

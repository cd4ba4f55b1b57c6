r"""Decides with math-verify whether two answers in mathematics are the same.

math-verify (Hugging Face, Apache-2.0) parses LaTeX and plain expressions into SymPy and compares
them there: as numbers, by simplification, as sets, intervals, matrices and relations. A hostile
expression (`9^{9^{9^9}}`) takes unlimited time and memory, and math-verify's own limits work only
in the main thread of a process. So it runs in a separate process with a time limit for each answer.
After a timeout the process is started again, and the answer counts as wrong, as in math-verify
itself.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from threading import Lock

from moa_cli.core.errors import BenchError

# Seconds for one answer. math-verify itself stops each of its steps after five seconds.
_SECONDS = 30.0
# Seconds for the start of the process, which takes several seconds on a busy machine.
_START_SECONDS = 120.0
# At most this many characters at the end of a reply are read.
_LONGEST = 20_000
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP")


class MathVerifier:
    """A process that compares answers. It is started for the first answer.

    late: how many answers could not be compared in time.
    """

    def __init__(self) -> None:
        self.late = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def compare(self, key: str, reply: str, stated: str | None) -> tuple[bool, str | None]:
        """Whether a reply ends in the right answer, and the answer that was read in it, as SymPy
        writes it; None if there was none. Raises BenchError if math-verify is not installed.

        key: the right answer in LaTeX, without `$`. stated: the text after "the answer is" in the
        reply, if it must be read as LaTeX separately.
        """
        line = json.dumps([key, reply[-_LONGEST:], stated])
        with self._lock:
            answer = self._ask(line)
        if answer is None:
            self.late += 1
            return False, None
        right, read = json.loads(answer)
        return bool(right), None if read is None else str(read)

    def _ask(self, line: str) -> bytes | None:
        """The response of the process; None if it takes too long."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        process = self._process
        if process is None or process.stdin is None:
            return None
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return None
        return self._line(_SECONDS)

    def _start(self) -> None:
        if find_spec("math_verify") is None:
            raise BenchError(
                "answers in mathematics are compared by math-verify, which is not installed",
                hint="`pip install 'moa-chat[bench]'`",
            )
        # -P keeps the current folder off the import path: its modules could hide others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "moa_cli.bench.scoring.math_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        atexit.register(self.close)
        if self._line(_START_SECONDS) is None:
            raise BenchError("math-verify does not start", hint="install moa-chat[bench] again")

    def _line(self, seconds: float) -> bytes | None:
        """The next line of the process; None if none comes in time, and then the process is
        ended."""
        process = self._process
        if process is None or process.stdout is None:
            return None
        ready = sys.platform == "win32" or select.select([process.stdout], [], [], seconds)[0]
        line = process.stdout.readline() if ready else b""
        if not line:
            self.close()
            return None
        return line

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                # Closing may flush data, which fails because the process has ended.
                with suppress(BrokenPipeError):
                    pipe.close()
        atexit.unregister(self.close)


VERIFIER = MathVerifier()


@lru_cache(maxsize=100_000)
def same_answer(key: str, reply: str, stated: str | None = None) -> tuple[bool, str | None]:
    """See `MathVerifier.compare`. Results are cached, so that each reply is compared once."""
    return VERIFIER.compare(key, reply, stated)

"""`moa` as a process of its own, in an empty home, over pipes or at a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte
import tomli_w
from wcwidth import wcwidth

from tests.support.forked import Forked, Forks
from tests.support.scrolling import Scrolling

__all__ = ["KEY", "PATIENCE", "Moa", "Ran", "Terminal", "forks", "started"]

KEY = "lab-key-0123456789abcdef"
_ROOT = Path(__file__).parents[2]
# Seconds after which what does not come never comes: long, as the machine may be busy.
PATIENCE = 100.0
# Seconds within which the kernel passes on what is written at one end of a pseudo-terminal.
_PASSED_ON = 0.02
# Keys for which a terminal sends a signal, unless the program reads key by key.
_SIGNALLING = frozenset("\x03\x1a\x1c")
_STARTING = {"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8"}
# Whether each command is a Python process started afresh, for whoever suspects the forks.
_FRESH = sys.platform != "linux" or "MOA_TEST_FRESH" in os.environ
# The program becomes the leader of the terminal's session, as a shell would start it, so that
# Ctrl-C reaches it as a signal.
_AT_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'moa_cli', *sys.argv[1:]])"
)


_started: list[Forks] = []


def forks() -> Forks:
    """The process of this run that forks, which is started by the first command."""
    if not _started or not _started[-1].alive:
        _started.append(Forks({**_STARTING, "PATH": os.environ.get("PATH", "")}))
    return _started[-1]


def started(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    at_terminal: bool = False,
    fresh: bool = False,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """`moa` as a process.

    Args:
        arguments: What follows `moa`.
        environment: All of its environment.
        at_terminal: Whether it leads a session at the terminal that is its standard error.
        fresh: Whether it is a new Python even where a fork would do.
        **options: For `Popen`. A fork knows the folder and the streams only.
    """
    known = options.keys() <= {"cwd", "stdin", "stdout", "stderr"}
    if known and not fresh and not _FRESH and forks().suits(environment):
        return Forked(forks(), arguments, at_terminal=at_terminal, env=environment, **options)
    start = ("-c", _AT_TERMINAL) if at_terminal else ("-m", "moa_cli")
    command = [sys.executable, *start, *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=at_terminal, **options)


def _without_none(environment: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if value is not None}


@dataclass(frozen=True)
class Ran:
    """What came of a process."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


class Moa:
    """A user's machine: its home, its settings, its environment; and the command on it.

    There are the provider `lab` at `url`, its key in LAB_KEY, and the profile `lab`, which is
    the default: proposers a, b and c, aggregator agg.
    """

    def __init__(self, home: Path, url: str) -> None:
        self._live_in(home)
        for folder in (self.folder, self.config / "profiles"):
            folder.mkdir(parents=True)
        self.configure(providers={"lab": {"base_url": url, "api_key_env": "LAB_KEY"}})
        self.profile("lab", "a", "b", "c")

    @classmethod
    def at(cls, home: Path) -> Moa:
        """The machine of a user who lives there already, such as a copy of another's home."""
        moa = cls.__new__(cls)
        moa._live_in(home)
        return moa

    def _live_in(self, home: Path) -> None:
        self.folder = home / "work"
        self.config = home / "config"
        self.state = home / "state"
        self.environment = {
            **_STARTING,
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "TERM": "xterm-256color",
            "LAB_KEY": KEY,
            **{f"MOA_{kind.upper()}_DIR": str(home / kind) for kind in _FOLDERS},
        }

    def configure(self, *, profile: str = "lab", **settings: Any) -> None:
        """Write config.toml."""
        table = {"profile": profile, "retries": 0, **settings}
        (self.config / "config.toml").write_text(tomli_w.dumps(table), "utf-8")

    def settings(self) -> dict[str, Any]:
        """What config.toml says."""
        return tomllib.loads((self.config / "config.toml").read_text("utf-8"))

    def profile(
        self,
        name: str,
        *proposers: str | Mapping[str, Any],
        aggregator: str | Mapping[str, Any] = "agg",
        **settings: Any,
    ) -> Path:
        """Write a profile of models at the upstream (by id) or anywhere (by table)."""
        table: dict[str, Any] = {**settings, "aggregator": _model(aggregator)}
        if proposers:
            table["proposers"] = [_model(proposer) for proposer in proposers]
        path = self.config / "profiles" / f"{name}.toml"
        path.write_text(tomli_w.dumps(table), "utf-8")
        return path

    @contextmanager
    def start(
        self, *arguments: str, fresh: bool = False, **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The running process, which is killed in the end if it runs still.

        Its output goes to pipes, if `options` do not say otherwise. fresh: see `started`.
        """
        environment = _without_none(self.environment | dict(options.pop("env", {})))
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        streams = {"stdin": subprocess.DEVNULL, **pipes, **options}
        with started(arguments, environment, cwd=self.folder, fresh=fresh, **streams) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        env: Mapping[str, str | None] | None = None,
        fresh: bool = False,
        patience: float = PATIENCE,
    ) -> Ran:
        """Run to the end.

        Args:
            arguments: What follows `moa`.
            stdin: What it can read; None is nothing, and no pipe.
            env: Changes of the environment; None takes one away.
            fresh: See `started`.
            patience: Seconds after which it never ends.
        """
        given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(*arguments, stdin=given, env=env or {}, fresh=fresh) as process:
            out, err = process.communicate(stdin, timeout=patience)
        return Ran(process.returncode, out, err.decode())

    def terminal(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        stdin: Path | None = None,
        stdout: Path | None = None,
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Terminal:
        """The process at a pseudo-terminal; standard input and output may be files instead.

        fresh: see `started`.
        """
        environment = self.environment | dict(env or {})
        return Terminal(
            arguments, self.folder, environment, columns, rows, stdin, stdout, fresh=fresh
        )


_FOLDERS = ("config", "data", "state", "cache")


def _model(model: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"model": f"lab:{model}"} if isinstance(model, str) else dict(model)


class _Screen(Scrolling):
    """Answers questions (where the cursor is), as terminals do.

    Tests look at it many times a second, so a row is put together only after it has changed.
    """

    def __init__(self, master: int, columns: int, rows: int) -> None:
        self._answer_to = master
        self._rows: list[str] = []
        super().__init__(columns, rows, history=10_000)

    def write_process_input(self, data: str) -> None:
        os.write(self._answer_to, data.encode())

    @property
    def display(self) -> list[str]:
        """The rows as texts."""
        changed = set(self.dirty)
        self.dirty.clear()
        # An accent for the last character of a row counts as a change of the row below it.
        changed |= {row - 1 for row in changed}
        if len(self._rows) != self.lines:
            self._rows = [""] * self.lines
            changed = set(range(self.lines))
        for row in changed & set(range(self.lines)):
            self._rows[row] = _text_of(self.buffer[row], self.columns)
        return list(self._rows)


def _text_of(row: Mapping[int, Any], columns: int) -> str:
    texts = []
    place = 0
    while place < columns:
        text = row[place].data
        texts.append(text)
        # A wide character has the place to its right, too.
        place += 2 if text > "\u02ff" and wcwidth(text[0]) == 2 else 1
    return "".join(texts)


class Terminal:
    """A terminal with a scrollback, a program that runs at it, and a user's fingers.

    raw: every byte that the program has written to it.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        environment: Mapping[str, str],
        columns: int,
        rows: int,
        stdin: Path | None,
        stdout: Path | None,
        *,
        fresh: bool = False,
    ) -> None:
        self.raw = bytearray()
        self._written_before = -1
        self._master, self._slave = os.openpty()
        self.screen = _Screen(self._master, columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._set_size(columns, rows)
        self.modes_before = self.modes()
        self.flags_before = self.flags()
        with (
            open(stdin or os.devnull, "rb") as file_in,
            open(stdout or os.devnull, "wb" if stdout else "rb") as file_out,
        ):
            self.process = started(
                arguments,
                environment,
                at_terminal=True,
                fresh=fresh,
                cwd=folder,
                stdin=file_in if stdin else self._slave,
                stdout=file_out if stdout else self._slave,
                stderr=self._slave,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        if self._slave >= 0:
            os.close(self._slave)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As the user pulls at the window's corner."""
        self.screen.resize(rows, columns)
        self._set_size(columns, rows)

    def flags(self) -> list[Any]:
        """All settings of the terminal."""
        return termios.tcgetattr(self._slave)

    def modes(self) -> tuple[bool, bool]:
        """Whether typed characters are echoed, and lines are edited by the terminal itself."""
        flags = self.flags()[3]
        return bool(flags & termios.ECHO), bool(flags & termios.ICANON)

    def send(self, keys: str) -> None:
        """Type."""
        # A terminal discards on Ctrl-C what has not been shown by then.
        while self._pump(0):
            pass
        if _SIGNALLING & set(keys):
            # Python notices a signal that comes just before it waits for a line only after that
            # line. Nobody presses Ctrl-C in the microsecond behind a question.
            deadline = time.monotonic() + 1
            while not self._waits() and time.monotonic() < deadline:
                self._pump(0.01)
        self._written_before = len(self.raw)
        os.write(self._master, keys.encode())
        # The kernel passes them on a little later; until then they seem to be read.
        select.select([self._slave], [], [], _PASSED_ON)

    def is_read(self) -> bool:
        """Whether the program, which reads key by key, has read all that was typed."""
        return not select.select([self._slave], [], [], 0)[0]

    def has_answered(self) -> bool:
        """Whether the program has read all that was typed, has written something since, and waits
        for more; all that it wrote is shown then."""
        if not (self.is_read() and self._waits()):
            return False
        self.settle(_PASSED_ON)
        return len(self.raw) > self._written_before

    def _waits(self) -> bool:
        """Whether the program has nothing to do, as far as the system tells."""
        try:
            process = Path(f"/proc/{self.process.pid}")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            # One that is woken by another thread of the program has something to do.
            return state != "R" and not (process / "wchan").read_text().startswith("futex")
        except OSError:
            return True

    def _pump(self, seconds: float) -> bool:
        """Show what the program writes within that time; whether it wrote anything."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def wait_for(self, what: str | Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until a text is to be seen (on the screen, not above it) or a predicate holds."""
        deadline = time.monotonic() + seconds
        while not (what in "\n".join(self.shown()) if isinstance(what, str) else what()):
            if time.monotonic() > deadline:
                screen = "\n".join(self.lines())
                raise AssertionError(f"not within {seconds} s: {what}; there is:\n{screen}")
            self._pump(0.02)

    def settle(self, seconds: float = 0.3) -> None:
        """Until the program has written nothing for so long."""
        while self._pump(seconds):
            pass

    def wait(self, seconds: float = PATIENCE) -> int:
        """Until the program has ended and all it wrote is shown; its exit code."""
        self.wait_for(lambda: self.process.poll() is not None, seconds)
        self.modes_after = self.modes()
        os.close(self._slave)
        self._slave = -1
        while self._pump(0.5):
            pass
        return self.process.returncode

    def shown(self) -> list[str]:
        """The screen's rows, without spaces at their ends, without empty rows at its end."""
        return _trimmed(line.rstrip() for line in self.screen.display)

    def lines(self) -> list[str]:
        """The scrollback and the screen."""
        width = self.screen.columns
        above = [
            "".join(row[place].data for place in range(width)).rstrip()
            for row in self.screen.history.top
        ]
        return _trimmed([*above, *self.shown()])

    def written(self) -> list[str]:
        """The lines as the program has written them: those that are too wide are not folded."""
        text = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[^\[])", "", self.raw.decode())
        return text.replace("\r\n", "\n").splitlines()

    def shows_cursor(self) -> bool:
        """Whether the cursor can be seen."""
        return not self.screen.cursor.hidden


def _trimmed(lines: Any) -> list[str]:
    rows = list(lines)
    while rows and not rows[-1]:
        rows.pop()
    return rows

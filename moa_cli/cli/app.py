"""`main`: runs the command line, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from typing import Any

from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, READER_GONE, of_error

# Options of `moa` itself: what follows one of them names a command.
_ROOT_OPTIONS = ("-V", "--version", "-h", "--help", "--debug")


def main(arguments: list[str] | None = None) -> int:
    """Run `moa` with `arguments` (default: those of the process); returns the exit code."""
    _prepare_streams()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result = _run(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as leaving:
        # Typer makes one of a broken pipe, with a code that says nothing.
        if isinstance(leaving.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except OSError as error:
        # A long text fails while it is written, and leaves nothing behind; files have a name.
        is_full = error.errno == errno.ENOSPC
        name = "standard output: " if _drop_unwritten() or is_full else ""
        name = f"{error.filename}: " if error.filename else name
        return _say(f"{name}{error.strerror or error}", None, FAILED)
    return result if isinstance(result, int) else 0


def _run(arguments: list[str]) -> Any:
    """The result of the command, or the exit code."""
    if arguments in (["--version"], ["-V"]):
        # Answered without Typer, whose import takes several times as long as all the rest.
        from moa_cli.version import __version__

        sys.stdout.write(f"moa {__version__}\n")
        return 0
    import typer

    from moa_cli.cli.table import app
    from moa_cli.core.errors import MoAError

    arguments = _meant(arguments)

    try:
        if os.environ.get("MOA_LOG", "").strip():
            from moa_cli.core import debug_log

            debug_log.to_file(os.environ["MOA_LOG"].strip(), arguments)
        return app(arguments, prog_name="moa", standalone_mode=False)
    except MoAError as error:
        return _say(error.message, error.hint, of_error(error))
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage(error)


def _meant(arguments: list[str]) -> list[str]:
    """The arguments with the command that may be left out: `moa` alone at a terminal is the chat,
    and `moa "a question"` asks it.

    A question holds a space, so that a mistyped command is not sent to models.
    """
    given = arguments[1:] if arguments[:1] == ["--debug"] else arguments
    if not given:
        at_terminal = all(
            stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)
        )
        return ["chat", *arguments] if at_terminal else arguments
    is_question = any(map(_holds_a_space, given))
    begins_so = _holds_a_space(given[0]) or given[0].startswith("-")
    if is_question and begins_so and given[0] not in _ROOT_OPTIONS:
        return ["ask", *arguments]
    return arguments


def _holds_a_space(word: str) -> bool:
    """Whether there are several words in it, on one line or on many."""
    return len(word.split()) > 1


def _prepare_streams() -> None:
    """Pipes and files get UTF-8 whatever the locale; a terminal that cannot show a character
    gets a question mark, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Keys typed in another encoding are no reason for a traceback; see `holds_bytes`.
        sys.stdin.reconfigure(errors="surrogateescape")


def _say(message: str, hint: str | None, code: int) -> int:
    from moa_cli.core.sanitize import one_line
    from moa_cli.core.text import with_hint

    line = one_line(f"moa: {with_hint(message, hint)}")
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    return code


def _usage(error: Any) -> int:
    import typer

    message = error.format_message().rstrip()
    if "\n" in message:
        # `moa` or `moa profile` alone: the help is the message.
        typer.echo(message, err=True)
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "moa"
    return _say(message.rstrip("."), f"see `{command} --help`", error.exit_code)


def _reader_gone() -> int:
    _drop_unwritten()
    return READER_GONE


def _drop_unwritten() -> bool:
    """Drop what standard output does not take; whether there was such.

    The interpreter would try again when it ends, and report that in its own words.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False

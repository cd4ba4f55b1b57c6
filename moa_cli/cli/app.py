"""`main`: runs the command line, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Any

from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, READER_GONE, USAGE, of_error
from moa_cli.cli.streams import prepare_streams

# Options of `moa` itself: the word after one of them is the name of a command.
_ROOT_OPTIONS = ("-V", "--version", "-h", "--help", "--debug")
# Errors show at most this many characters of a prompt, and of a message of Typer, which may contain
# a prompt.
_SHOWN, _LONGEST_MESSAGE = 60, 300


def main(arguments: list[str] | None = None) -> int:
    """Run `moa` with `arguments` (default: those of the process); returns the exit code."""
    prepare_streams()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result = _run(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except RuntimeError as error:
        # Before Python 3.12, this takes the place of what is raised while a class is made.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED
        raise
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as leaving:
        # For a broken pipe, Typer raises SystemExit with an exit code of its own.
        if isinstance(leaving.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except OSError as error:
        # If writing a long text fails, nothing stays in the buffer. So an error of a full disk
        # without a file name is one of standard output, too.
        is_full = error.errno == errno.ENOSPC
        name = "standard output: " if _drop_unwritten() or is_full else ""
        name = f"{error.filename}: " if error.filename else name
        if error.errno == errno.ENOENT and not error.filename:
            # No other question to the system fails without naming a file.
            return _say("the working directory was removed", "`cd` to another one", FAILED)
        return _say(f"{name}{error.strerror or error}", None, FAILED)
    return result if isinstance(result, int) else 0


def _run(arguments: list[str]) -> Any:
    """The result of the command, or the exit code."""
    if arguments in (["--version"], ["-V"]):
        # This is answered without Typer, whose import takes several times as long as everything
        # else.
        from moa_cli.version import __version__

        sys.stdout.write(f"moa {__version__}\n")
        return 0
    import typer

    from moa_cli.cli.commands import built
    from moa_cli.cli.table import app
    from moa_cli.core.errors import MoAError

    arguments = _meant(arguments)
    try:
        if os.environ.get("MOA_LOG", "").strip():
            from moa_cli.core import debug_log

            debug_log.to_file(os.environ["MOA_LOG"].strip(), arguments)
        return built(app)(arguments, prog_name="moa", standalone_mode=False)
    except MoAError as error:
        code = of_error(error)
        if "_MOA_COMPLETE" in os.environ:
            # A message would be written into the line that the user types.
            return code
        hint = (_dash_hint(arguments) if code == USAGE else None) or error.hint
        return _say(error.message, hint, code)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage(error, arguments)


def _meant(arguments: list[str]) -> list[str]:
    """The arguments, with the command if it was left out: `moa` alone at a terminal means `chat`,
    and `moa "a question"` means `ask`.

    A question must contain a space, so that a mistyped command is not sent to models.
    """
    given = arguments[1:] if arguments[:1] == ["--debug"] else arguments
    if not given:
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return ["chat", *arguments] if at_terminal else arguments
    is_question = any(map(_holds_a_space, given))
    begins_so = _holds_a_space(given[0]) or given[0].startswith("-")
    if is_question and begins_so and given[0] not in _ROOT_OPTIONS:
        return ["ask", *arguments]
    return arguments


def _holds_a_space(word: str) -> bool:
    """Whether there are several words in it, on one line or on several."""
    return len(word.split()) > 1


def _dash_hint(arguments: list[str], unknown: str | None = None) -> str | None:
    """The hint for an error that seems to come from a prompt that begins with a dash, else None.

    Such a prompt is read as options: `-mean of 3` sets the option `-m`. It is recognised by its
    spaces. unknown: the option that does not exist, if that is the error.
    """
    from moa_cli.cli.commands import built
    from moa_cli.cli.table import app

    is_other = " ".join(arguments[:2]) in built(app).list_commands(None)  # such as `compare list`
    if is_other or arguments[:1] not in (["ask"], ["compare"]):
        return None
    import shlex

    before = "-"
    for word in arguments[1:]:
        if word == "--":
            break
        # The value of an option may begin with a dash, too, but is never an unknown option.
        is_value = before.startswith("-") and not _holds_a_space(before) and before != "-"
        is_cause = not is_value if unknown is None else unknown.lstrip("-") in word
        if is_cause and word.startswith("-") and _holds_a_space(word.split("=")[0]):
            return f"to send it as the prompt: moa {arguments[0]} -- {shlex.quote(word[:_SHOWN])}"
        before = word
    if unknown is None:
        return None
    return f"see `moa {arguments[0]} --help`; a prompt that begins with a dash goes after `--`"


def _say(message: str, hint: str | None, code: int) -> int:
    from moa_cli.core.sanitize import one_line
    from moa_cli.core.text import with_hint
    from moa_cli.terminal.tty import folded

    line = one_line(f"moa: {with_hint(message, hint)}")
    with contextlib.suppress(OSError):
        sys.stderr.write(folded(line, sys.stderr) + "\n")
        sys.stderr.flush()
    return code


def _usage(error: Any, arguments: list[str]) -> int:
    import typer

    from moa_cli.core.sanitize import one_line

    message = error.format_message().rstrip()
    # Typer does not export this class. Testing for `option_name` is no way out: other errors have
    # it, too.
    is_unknown = type(error).__name__ == "NoSuchOption"
    if "\n" in message and not is_unknown:
        # `moa` or `moa profile` alone: the help is the message.
        typer.echo(message, err=True)
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "moa"
    hint = _dash_hint(arguments, error.option_name if is_unknown else None)
    line = one_line(message, _LONGEST_MESSAGE).rstrip(".")
    hint = hint or f"see `{command} --help`"
    if command == "moa" and len(arguments) > 1:
        if message.startswith("No such command"):
            hint += "; a question without a command stands in quotes"
        elif is_unknown:
            hint += "; the options of a command follow its name, as in `moa ask -m MODEL`"
    return _say(line, hint, error.exit_code)


def _reader_gone() -> int:
    _drop_unwritten()
    return READER_GONE


def _drop_unwritten() -> bool:
    """Drop buffered output that standard output does not accept. Returns whether there was any.

    Otherwise the interpreter would try to write it again at its end, and print an error of its own.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False

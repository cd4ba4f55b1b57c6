"""The command line, and `main`: the one place where an error becomes a line and a code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Annotated

import typer

from moa_cli.cli import (
    archive,
    ask,
    batch,
    chat,
    compare,
    config,
    doctor,
    history,
    models,
    profiles,
    serve,
    stats,
    tags,
    upkeep,
)
from moa_cli.cli.bench import app as bench
from moa_cli.cli.commands import Commands
from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, READER_GONE, of_error
from moa_cli.core.errors import MoAError
from moa_cli.version import __version__

__all__ = ["app", "main"]

# Without rich markup, help needs none of Rich and no tag in a text can go astray.
app = Commands(
    name="moa",
    help="Mixture-of-Agents in the terminal: several models answer, one writes the reply.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("batch")(batch.batch)
app.command("compare")(compare.compare)
app.add_typer(bench.app, name="bench")
app.add_typer(profiles.app, name="profile")
app.add_typer(config.app, name="config")
history.app.command("stats")(stats.stats)
history.app.command("export")(archive.export)
history.app.command("import")(archive.import_)
history.app.command("check")(upkeep.check)
history.app.command("backup")(upkeep.backup)
history.app.command("recover")(upkeep.recover)
history.app.command("clean")(upkeep.clean)
history.app.command("rename")(tags.rename)
history.app.command("tag")(tags.tag)
app.add_typer(history.app, name="history")
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moa {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Mixture-of-Agents in the terminal: several models answer, one writes the reply."""


def main(arguments: list[str] | None = None) -> int:
    """Run `moa` with `arguments` (default: the process's); returns the exit code."""
    _prepare_streams()
    try:
        result = app(arguments, prog_name="moa", standalone_mode=False)
        sys.stdout.flush()
    except MoAError as error:
        return _say(error.message, error.hint, of_error(error))
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage(error)
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
        name = f"{error.filename}: " if error.filename else ""
        return _say(f"{name}{error.strerror or error}", None, FAILED)
    return result if isinstance(result, int) else 0


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

    line = one_line(f"moa: {message} ({hint})" if hint else f"moa: {message}")
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    return code


def _usage(error: typer.TyperException) -> int:
    message = error.format_message().rstrip()
    if "\n" in message:
        # `moa` or `moa profile` alone: the help is the message.
        typer.echo(message, err=True)
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "moa"
    return _say(message.rstrip("."), f"see `{command} --help`", error.exit_code)


def _reader_gone() -> int:
    # What is still buffered has no reader; without this the interpreter tries again at exit.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE

"""The classes of `moa`'s commands and groups of commands.

A group made by `deferred` knows only the names of its commands and the first sentence of their
help. It imports a command's module when that command is called. So the help of `moa`, the
completion of names, and each single command load only what they need.

Every command refuses blank values of its options and arguments. `--api-key "$KEY"` with an unset
variable gives an empty text. Treating that as "not given" would start a server without a key, ask
other models than the user meant, or delete without a limit. A few options are exempt, for which an
empty text has a meaning.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import UserDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, get_args

import typer
import typer.main
from typer import Option
from typer.core import TyperCommand, TyperGroup

from moa_cli.core.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
# Exempt parameters: an empty system prompt removes it, a prompt may come from standard input, and a
# setting may be an empty text. The commands themselves refuse an empty search, and an empty name of
# a profile to save.
_MAY_BE_EMPTY = ("system", "prompt", "value", "words", "save_profile")
# What Pydantic says of a value, and how it is said here.
_PYDANTIC = {
    "Input should be a valid integer.*": "must be a whole number",
    "Input should be a valid number.*": "must be a number",
    "Input should be a finite number": "must be a finite number",
    "Input should be greater than or equal to (.*)": r"must be \1 or more",
    "Input should be less than or equal to (.*)": r"must be \1 or less",
    r"Value error, .* is not one of (.*?)\.?": r"must be one of \1",
}


def check_not_empty(name: str, value: object) -> None:
    """Raise UsageError if `value`, a text or a list of texts, holds a blank text.

    name: the option, variable or argument, as the user knows it.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(text, str) and not text.strip() for text in texts):
        raise UsageError(
            f"{name} is empty", hint="leave it out, or set the variable that it comes from"
        )


def _write_debug_log(wanted: bool) -> None:
    if wanted:
        from moa_cli.core import debug_log

        debug_log.to_stderr(sys.argv[1:])


# An option of `moa` itself, and of each command that calls models. It takes effect before the other
# options are parsed.
Debug = Annotated[
    bool,
    Option(
        "--debug",
        help="Write a debug log to standard error: requests, answers, decisions; no keys."
        " MOA_LOG=FILE writes it to a file.",
        callback=_write_debug_log,
        is_eager=True,
    ),
]


class _Unconverted:
    """Returns values that need no conversion unchanged, so that Pydantic is not imported for them.

    Since 0.29 Typer converts all values by Pydantic, even if nothing was typed, or only words.
    Importing Pydantic takes longer than importing Typer. This object takes the place of Typer's own
    converter of a parameter (`_runtime_param`, which Typer makes when it is first needed). At the
    first value that needs a conversion, it lets Typer make its own. A Typer that does not use that
    attribute works as before, only slower.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value of a parameter, as Typer's own converter returns it."""
        annotation = param.type_descriptor.annotation
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if type(value) is annotation or value in get_args(annotation):
            # A typed word, a choice of a `Literal`, or a default. All other typed values are a
            # `str`.
            return value
        if annotation == list[str] and isinstance(value, list | tuple):
            return list(value)
        param._runtime_param = None
        try:
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)
        except typer.BadParameter as error:
            raise typer.BadParameter(_plainly(error), ctx=ctx, param=param) from error


def _plainly(error: typer.BadParameter) -> str:
    """What is wrong with a value, and the value. Pydantic, which Typer quotes, says neither in the
    words of this program nor names the value."""
    for words, plain in _PYDANTIC.items():
        if found := re.fullmatch(words, error.message):
            faults: list[Any] = getattr(error.__cause__, "errors", list)()
            given = f", not {faults[0]['input']!r}" if faults else ""
            return f"{found.expand(plain)}{given}"
    return error.message


_UNCONVERTED = _Unconverted()


def _spare_conversions(command: Any, ctx: Any) -> None:
    for parameter in command.get_params(ctx):
        vars(parameter)["_runtime_param"] = _UNCONVERTED


class _NotEmpty(TyperCommand):
    """A command that refuses blank values before it looks at any of them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help. It shows arguments by their names alone, without the Python types that
        Typer adds since version 0.29, such as `<list[str]>`."""
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                vars(parameter)["display_type_rich"] = lambda ctx: None
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _spare_conversions(self, ctx)
        if not ctx.resilient_parsing:
            if any(option.name == "file" and option.multiple for option in self.params):
                from moa_cli.cli.following_files import with_following_files

                args = list(with_following_files(args))
            # The texts as they were typed: of a path, "" would have become ".".
            try:
                given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            except typer.TyperException as error:
                # Not every error of the parser knows its command.
                vars(error).update(ctx=ctx)
                raise
            for parameter in self.params:
                name = parameter.name or ""
                if name in given and name not in _MAY_BE_EMPTY:
                    check_not_empty(_shown(parameter), given[name])
        return super().parse_args(ctx, args)


def _shown(parameter: Any) -> str:
    """The name of a parameter for messages: an option's longest spelling, or an argument's name."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).strip("[]").upper()
    return str(max(parameter.opts, key=len))


class Commands(typer.Typer):
    """A `Typer` whose commands refuse blank values. Its help does not use Rich: that is faster, and
    `[…]` in a text is no markup."""

    def __init__(self, **settings: Any) -> None:
        usual: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "cls": Group}
        fixed: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
        super().__init__(**{**usual, **fixed, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_F], _F]:
        return super().command(name, cls=_NotEmpty, **settings)


class Group(TyperGroup):
    """A group that converts no value without need."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _spare_conversions(self, ctx)
        return super().parse_args(ctx, args)


def deferred(package: str, table: Mapping[str, tuple[str, str]], **settings: Any) -> Commands:
    """A group whose commands are imported when they are called.

    table: for each name, where in the package the command is (`module:attribute`, a function or a
    `Commands`), and the first sentence of its help. settings: arguments of `typer.Typer`.
    """
    found = {name: (f"{package}.{place}", help) for name, (place, help) in table.items()}

    class DeferredGroup(Group):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands: Any = _Loading(found)

        def list_commands(self, ctx: Any) -> list[str]:
            return list(found)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            # Nothing is imported yet.
            return _Deferred(cmd_name, *found[cmd_name]) if cmd_name in found else None

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
            # `batch` takes a file and `compare` a prompt, so neither can be a group. A file of that
            # name is `./merge`; a prompt of one such word goes after `--`.
            if " ".join(args[:2]) in found:
                args = [" ".join(args[:2]), *args[2:]]
            return super().resolve_command(ctx, args)

        def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
            # A shell would quote a name of two words, and `moa "batch merge"` is a question.
            offered = super().shell_complete(ctx, incomplete)
            return [item for item in offered if " " not in item.value]

    return Commands(cls=DeferredGroup, **settings)


class _Loading(UserDict[str, Any]):
    """Commands by name. Each is imported when it is looked up. data: where each command is."""

    def __getitem__(self, name: str) -> Any:
        return _loaded(name, self.data[name][0])


class _Deferred(TyperCommand):
    """A placeholder for a command in its group's help and completion. It loads the command when it
    is called."""

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help, rich_markup_mode=None)
        self._place = place

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """See `TyperCommand`. The context is that of the real command."""
        loaded = _loaded(self.name or "", self._place)
        return loaded.make_context(info_name, args, *rest, **extra)


@cache
def built(app: Commands) -> Any:
    """`moa` itself, as Typer runs it."""
    return typer.main.get_command(app)


@cache
def _loaded(name: str, place: str) -> Any:
    """The command at that place (see `deferred`), imported now."""
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = Commands()
    alone.command(name)(found)
    return typer.main.get_command(alone)

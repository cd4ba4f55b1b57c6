"""Commands none of whose options and arguments may be given empty.

`--api-key "$KEY"` with an unset variable gives an empty text. To take that for "not given" would
start a server that lets everybody in, ask other models than were meant, or delete without a
limit. So it is refused for all options alike, but for those that an empty text means something
for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from moa_cli.core.errors import UsageError

__all__ = ["Commands", "check_not_empty"]

_F = TypeVar("_F", bound=Callable[..., Any])
# By the names of parameters: a system prompt may be taken away, a prompt comes from standard
# input too, a setting may be an empty text; what is searched for, and the name of a profile to
# save, are refused where they are used.
_MAY_BE_EMPTY = ("system", "prompt", "value", "words", "save_profile")


def check_not_empty(name: str, value: object) -> None:
    """Raise UsageError if `value`, a text or a list of texts, holds a blank text.

    name: the option, variable or argument, as the user knows it.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(text, str) and not text.strip() for text in texts):
        raise UsageError(
            f"{name} is empty", hint="leave it out, or set the variable that it comes from"
        )


class _NotEmpty(TyperCommand):
    """A command that refuses blank values before it looks at any of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `TyperCommand`."""
        if not ctx.resilient_parsing:
            # The texts as they were typed: of a path, "" would have become ".".
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in self.params:
                name = parameter.name or ""
                if name in given and name not in _MAY_BE_EMPTY:
                    check_not_empty(_shown(parameter), given[name])
        return super().parse_args(ctx, args)


def _shown(parameter: Any) -> str:
    """The longest spelling of an option, or an argument's name."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).strip("[]").upper()
    return str(max(parameter.opts, key=len))


class Commands(typer.Typer):
    """A `Typer` whose commands refuse blank values."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_F], _F]:
        """See `typer.Typer.command`."""
        return super().command(name, cls=_NotEmpty, **settings)

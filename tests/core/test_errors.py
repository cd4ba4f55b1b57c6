"""The error tree is drawn as it is, exported whole, and every error can say its piece."""

from __future__ import annotations

import inspect
import re

import pytest

from moa_cli.core import errors
from moa_cli.core.errors import ClientError, MoAError

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException)
}


def drawn_tree() -> dict[str, str | None]:
    """Parent by class, as the module's docstring draws it."""
    parents: dict[str, str | None] = {}
    above: list[str] = []
    for line in str(errors.__doc__).splitlines():
        found = re.match(r"((?:[│ ]   )*)(?:[├└]── )?([A-Z][A-Za-z]+)(?:\s{2,}\S.*)?$", line)
        if not found:
            continue
        depth = len(found[1]) // 4 + ("──" in line)
        parents[found[2]] = above[depth - 1] if depth else None
        above[depth:] = [found[2]]
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real = {
        name: None if kind is MoAError else kind.__bases__[0].__name__
        for name, kind in CLASSES.items()
    }
    assert drawn_tree() == real
    assert len(real) > 15


def test_everything_is_exported_in_order() -> None:
    assert errors.__all__ == sorted(CLASSES)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_has_one_base_a_docstring_a_message_and_a_hint(kind: type[MoAError]) -> None:
    error = kind("what was wrong", hint="what to do")
    assert len(kind.__bases__) == 1
    assert kind.__doc__
    assert isinstance(error, MoAError)
    assert (str(error), error.message, error.hint) == (
        "what was wrong",
        "what was wrong",
        "what to do",
    )
    assert kind("alone").hint is None


def test_only_what_may_pass_by_itself_is_tried_again() -> None:
    retryable = {
        name
        for name, kind in CLASSES.items()
        if issubclass(kind, ClientError) and kind("x").retryable
    }
    assert retryable == {"ConnectionLost", "RateLimited", "ServerFailed"}
    assert ClientError("x").retry_after is None
    assert ClientError("x", retry_after=2).retry_after == 2

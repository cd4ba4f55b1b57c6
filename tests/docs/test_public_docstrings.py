"""The public library explains itself: a docstring parser finds arguments, results and fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import griffe
import pytest

import moa_cli

NAMES = [name for name in moa_cli.__all__ if name not in ("Event", "__version__")]


def sections(documented: Any) -> dict[griffe.DocstringSectionKind, Any]:
    """What the docstring says, by kind of section."""
    text = inspect.getdoc(documented) or ""
    options = {"returns_multiple_items": False, "returns_named_value": False}
    return {
        part.kind: part.value
        for part in griffe.Docstring(text).parse("google", warnings=False, **options)
    }


def public_functions() -> Iterator[tuple[str, Any]]:
    """Functions, and the methods of classes, by name."""
    for name in NAMES:
        found = getattr(moa_cli, name)
        if inspect.isfunction(found):
            yield name, found
        elif inspect.isclass(found):
            for base in found.__mro__:
                if not base.__module__.startswith("moa_cli"):
                    continue
                for method, function in vars(base).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{name}.{method}", function


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_summary(name: str) -> None:
    told = sections(getattr(moa_cli, name))
    assert griffe.DocstringSectionKind.text in told, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_tells_its_arguments_and_its_result(name: str) -> None:
    told = sections(FUNCTIONS[name])
    signature = inspect.signature(FUNCTIONS[name])
    takes = {parameter for parameter in signature.parameters if parameter != "self"}
    arguments = told.get(griffe.DocstringSectionKind.parameters, [])
    assert {argument.name.lstrip("*") for argument in arguments} == takes
    returned = typing.get_type_hints(FUNCTIONS[name]).get("return", type(None))
    tells = griffe.DocstringSectionKind.returns in told
    assert tells == (returned is not type(None)), f"{name} returns {returned}"
    # A colon in the text would make a type of what stands before it.
    for result in told.get(griffe.DocstringSectionKind.returns, []):
        assert " " not in str(result.annotation or ""), result.annotation


@pytest.mark.parametrize(
    "name", [name for name in NAMES if dataclasses.is_dataclass(getattr(moa_cli, name))]
)
def test_a_value_tells_its_fields(name: str) -> None:
    cls = getattr(moa_cli, name)
    told = {
        field.name
        for base in cls.__mro__
        for kind in ("attributes", "parameters")
        for field in sections_of_class(base).get(griffe.DocstringSectionKind(kind), [])
    }
    assert {field.name for field in dataclasses.fields(cls)} <= told


def sections_of_class(cls: type) -> dict[griffe.DocstringSectionKind, Any]:
    """As `sections`, but nothing that is inherited."""
    return sections(cls) if cls.__dict__.get("__doc__") else {}


def test_all_that_the_library_returns_and_raises_is_exported() -> None:
    for name in ("ask", "ask_async", "run_turn", "run_report", "open_clients", "load_profile"):
        raised = sections(FUNCTIONS[name]).get(griffe.DocstringSectionKind.raises, [])
        ours = {str(fault.annotation) for fault in raised} - {
            "RuntimeError",
            "TypeError",
            "ValueError",
        }
        assert ours <= set(moa_cli.__all__)


def test_what_a_profile_and_a_turn_are_made_of_is_exported() -> None:
    for cls in (moa_cli.Profile, moa_cli.Turn):
        for name, field in typing.get_type_hints(cls).items():
            made_of = {
                inner.__name__
                for inner in all_types(field)
                if isinstance(inner, type) and dataclasses.is_dataclass(inner)
            }
            # Where settings come from is not a caller's to say.
            if name != "origins":
                assert made_of <= set(moa_cli.__all__), name


def all_types(hint: Any) -> set[Any]:
    """A type and those that it is made of."""
    return {hint}.union(*map(all_types, typing.get_args(hint)))


def test_each_event_is_exported() -> None:
    from moa_cli.core.events import Event

    assert {cls.__name__ for cls in typing.get_args(Event)} <= set(moa_cli.__all__)

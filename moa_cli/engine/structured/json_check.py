"""The check of a value by a JSON Schema, in bounded time.

A schema comes from a client, and a value from a model, so neither is trusted. They cannot block the
process: each pattern has a time limit, each check has limited processor time, and endless recursion
is an error. Three things are not checked: `format`, which is only an annotation in the standard; a
pattern that is not a valid regular expression; and `unevaluatedProperties` in a schema with
`patternProperties`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import islice
from typing import Any

from moa_cli.engine.structured.json_schema import TYPES, short

# Seconds of processor time that one check may take, and seconds that one match of a pattern may
# take.
_SECONDS, _PATTERN_SECONDS = 3.0, 0.5
# The clock is read once for this many checked keywords, because reading it takes time.
_BETWEEN_LOOKS = 64
# Longer patterns, in characters, count as matched, because compiling them takes too long.
_LONGEST_PATTERN = 2000
# The most useful error is chosen among this many errors of a value.
_MOST_ERRORS = 100
_LONGEST_SENTENCE = 300


class Uncheckable(Exception):
    """A value could not be checked. The message says why."""


def problem_of(value: object, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a value, in one sentence with the place; None if it matches the schema.

    schema: one that `check_schema` accepts. Raises Uncheckable. This may take seconds, so it is
    called outside the event loop.
    """
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # A registry without a retriever cannot fetch anything.
    validator = _validator_class(*_traits(json.dumps(schema)))(schema, registry=Registry())
    _clock.start()
    try:
        error = best_match(islice(validator.iter_errors(value), _MOST_ERRORS))
        return None if error is None else _sentence(error)
    except RecursionError:
        raise Uncheckable("it or its schema is nested too deeply to be checked") from None
    except Unresolvable:
        raise Uncheckable("its schema refers to what is not in it") from None
    except ArithmeticError:
        raise Uncheckable("it holds a number that is too large to be checked") from None


@lru_cache(maxsize=32)
def _traits(schema: str) -> tuple[str, bool, bool]:
    """The traits that determine the validator of a schema: the draft that it names, whether it has
    a list in `items` (as in older drafts), and whether it has `patternProperties`."""
    found = json.loads(schema)
    old = False

    def look(values: dict[str, Any]) -> None:
        nonlocal old
        old = old or isinstance(values.get("items"), list)

    json.loads(schema, object_hook=look)
    return str(found.get("$schema", "")), old, '"patternProperties"' in schema


@cache
def _validator_class(draft: str, old: bool, patterns: bool) -> Any:
    """The validator of a draft. Its slow keywords are replaced, and every keyword reads the
    clock."""
    from jsonschema import Draft201909Validator, Draft202012Validator, validators

    default = Draft201909Validator if old else Draft202012Validator
    base = validators.validator_for({"$schema": draft} if draft else {}, default=default)
    own: dict[str, Callable[..., Any]] = {
        "additionalProperties": _additional_properties,
        "enum": _enum,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    if patterns:
        # The library would match the patterns without a time limit.
        own["unevaluatedProperties"] = _unchecked
    keywords = {**base.VALIDATORS, **{name: own[name] for name in own if name in base.VALIDATORS}}
    return validators.extend(base, {name: _timed(check) for name, check in keywords.items()})


class _Clock(threading.local):
    """The time limit of the check that runs in this thread. A check stays in one thread."""

    def start(self) -> None:
        self.calls = 0
        self.end = time.thread_time() + _SECONDS
        self.enums: dict[int, frozenset[Any]] = {}

    def look(self) -> None:
        self.calls += 1
        if not self.calls % _BETWEEN_LOOKS and time.thread_time() > self.end:
            raise Uncheckable(f"its check by the schema takes longer than {_SECONDS:g} s")


_clock = _Clock()


def _timed(check: Callable[..., Any]) -> Callable[..., Any]:
    def timed(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _clock.look()
        return check(validator, value, instance, schema)

    return timed


def _unchecked(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    yield from ()


def _found(pattern: str, text: str) -> bool:
    """Whether a pattern matches somewhere in a text; true if the pattern cannot be used."""
    import regex

    if len(pattern) > _LONGEST_PATTERN:
        return True
    try:
        return regex.search(pattern, text, timeout=_PATTERN_SECONDS) is not None
    except TimeoutError:
        raise Uncheckable(f"the pattern {short(pattern)} takes too long to be matched") from None
    except (regex.error, RecursionError, OverflowError, MemoryError):
        return True


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _found(pattern, instance):
        yield _error(f"{short(instance)} does not match the pattern {short(pattern)}")


def _pattern_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, below in value.items():
        for name, entry in instance.items():
            _clock.look()
            if _found(pattern, name):
                yield from validator.descend(entry, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    more = [
        name
        for name in instance
        if name not in named and not any(_found(pattern, name) for pattern in patterns)
    ]
    if value is False and more:
        names = ", ".join(map(short, more[:5]))
        yield _error(f"has what the schema does not allow: {names}")
    elif value is not False:
        for name in more:
            yield from validator.descend(instance[name], value, path=name)


def _enum(validator: Any, values: Any, instance: Any, schema: Any) -> Iterator[Any]:
    # The keys are kept, because one long list may be compared with many values.
    keys = _clock.enums.get(id(values))
    if keys is None:
        keys = _clock.enums[id(values)] = frozenset(map(_key, values))
    if _key(instance) not in keys:
        some = ", ".join(map(short, values[:8])) + ", …" * (len(values) > 8)
        yield _error(f"is {short(instance)}, which is not one of {some}")


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if wanted and isinstance(instance, list):
        seen = set()
        for item in instance:
            _clock.look()
            key = _key(item)
            if key in seen:
                yield _error(f"holds {short(item)} more than once")
                return
            seen.add(key)


def _key(value: Any) -> Any:
    """A key that is equal for values that are equal in JSON: 1 equals 1.0, but not true."""
    if isinstance(value, dict):
        return frozenset((name, _key(entry)) for name, entry in value.items())
    if isinstance(value, list):
        return tuple(map(_key, value))
    return type(value) is bool, value


def _error(message: str) -> Any:
    from jsonschema import ValidationError

    return ValidationError(message)


def _sentence(error: Any) -> str:
    """An error of the library as a sentence for a model: the place, and what is wrong there."""
    value, instance = error.validator_value, error.instance
    if error.validator == "type":
        wanted = " or ".join(TYPES[name] for name in ([value] if isinstance(value, str) else value))
        said = f"must be {wanted}, but is {short(instance)}"
    elif error.validator == "required":
        missing = [name for name in value if name not in instance]
        said = f"lacks {', '.join(map(short, missing[:5]))}"
    elif error.validator == "oneOf":
        said = "fits more than one of the schemas of `oneOf`"
    elif error.validator in ("additionalProperties", "enum", "uniqueItems"):
        said = error.message
    else:
        said = f"breaks `{error.validator}`: {error.message}"
    where = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path
    )
    told = " ".join(f"${where} {said}".split())
    half = _LONGEST_SENTENCE // 2
    return told if len(told) <= _LONGEST_SENTENCE else f"{told[:half]} … {told[-half:]}"

"""Different ids of the same model.

Providers list a model under one id and accept several forms of it: with the prefix `models/`
(Gemini), with a route as suffix (`:nitro`, `:floor`, `:novita`), with or without a date, and in
upper or lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

_T = TypeVar("_T")
# 2024-08-06, 20250929, 09-2025, 0613, 2411
_DATE = re.compile(
    r"[-@](?:20\d\d-?[01]\d-?[0-3]\d|[01]\d-20\d\d|[01]\d[0-3]\d|2[3-9][01]\d|latest)$"
)
_FREE = ":free"


def plain(model: str) -> str:
    """The id in lower case, without `models/` and `:latest`, which make no difference."""
    return model.lower().removeprefix("models/").removesuffix(":latest")


def without_route(model: str) -> str:
    """The id without its route. A suffix with a digit, such as a size, means another model."""
    head, colon, tail = model.rpartition(":")
    is_route = colon and tail and not re.search(r"\d", tail) and f":{tail}" != _FREE
    return head if is_route else model


def without_date(model: str) -> str:
    """The id without a date, or `latest`, at its end."""
    return _DATE.sub("", model)


def says_free(model: str) -> bool:
    """Whether the id says that the model costs nothing."""
    return model.lower().endswith("free")


def find_model(model: str, known: Mapping[str, _T]) -> _T | None:
    """The value for a model, whose id may be listed in another form. None if no listed id means the
    same model, or several do. known: the values by the listed ids."""
    if model in known:
        return known[model]
    asked = plain(model)
    routed = without_route(asked)
    for wanted in (asked, routed):
        found = _matches(wanted, known, plain)
        if len(found) == 1:
            return known[found[0]]
    if without_date(routed) == routed:
        # An id without a date usually means the newest one with a date.
        found = _matches(routed, known, lambda listed: without_date(plain(listed)))
        if found:
            return known[max(found)]
    return None


def find_similar(model: str, known: Mapping[str, _T]) -> _T | None:
    """The value for the same model with another date (the newest one), or under another vendor.

    Its price may differ, so this is the last resort.
    """
    root = without_date(without_route(plain(model)))
    found = _matches(root, known, lambda listed: without_date(plain(listed)))
    if not found:
        found = _matches(_tail(root), known, lambda listed: without_date(_tail(plain(listed))))
    return known[max(found)] if found else None


def forms(model: str) -> Iterator[str]:
    """Other forms of the id, the most similar first."""
    seen = []
    asked = plain(model)
    routed = without_route(asked.removesuffix(_FREE))
    for form in (model.lower(), asked, routed, _tail(routed), without_date(_tail(routed))):
        if form and form not in seen:
            seen.append(form)
            yield form


def _matches(wanted: str, known: Iterable[str], form: Callable[[str], str]) -> list[str]:
    # Each form is a part of the id in lower case. Checking that first is faster for a long list.
    return [listed for listed in known if wanted in listed.lower() and form(listed) == wanted]


def _tail(model: str) -> str:
    return model.rpartition("/")[2]

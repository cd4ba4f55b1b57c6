"""One row of the table: what an endpoint does, and what a turn makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.script import ANSWER, Script


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What an endpoint does, and what is expected of a turn that meets it.

    name: unlike any other. does: in words, for the documentation. scripts: for its requests one
    after the other, of which the last is for all that follow. at: which endpoint is meant, if it
    is not the one that follows scripts; see `tests.faults.places`.

    answer: the text of its answer; None if there is none. error, reads: the class of the error
    and the sentence that the user reads. again: whether the request is made again, by a rule that
    waits (`Retrying`). begun: whether text has come by then, which ends the turn of an aggregator;
    spoke: whether reasoning has. waits: seconds that it asks to wait. requests: how many a call
    makes, if that is not what `again` says. told: tokens of prompt and answer, if the endpoint
    tells them and is believed. headless: whether not even the head of its answer can be read, so
    that it is not known to be billed. settings: of the model.
    """

    name: str
    does: str
    scripts: tuple[Script, ...] = ()
    at: str = ""
    answer: str | None = None
    error: str = ""
    reads: str = ""
    again: bool = False
    begun: bool = False
    spoke: bool = False
    waits: float | None = None
    requests: int | None = None
    told: tuple[int, int] | None = None
    headless: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def script(self, before: int) -> Script:
        """What is done with a request, after so many of the same call."""
        return self.scripts[min(before, len(self.scripts) - 1)]


def answered(name: str, does: str, *scripts: Script, answer: str = ANSWER, **more: Any) -> Fault:
    """It gives an answer all the same."""
    told = more.pop("told", (9, 3))
    return Fault(name=name, does=does, scripts=scripts, answer=answer, told=told, **more)


def lost(name: str, does: str, script: Script, error: str, reads: str, **more: Any) -> Fault:
    """It gives none."""
    return Fault(name=name, does=does, scripts=(script,), error=error, reads=reads, **more)

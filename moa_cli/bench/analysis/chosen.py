"""The profile that a choice of models comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from moa_cli.bench.report.values import ReadRun
from moa_cli.core.errors import BenchError
from moa_cli.profile import Profile, build

__all__ = ["chosen_profile"]

# Of all models of a profile; the rest is of single ones.
_SHARED: Final = (
    "multi_turn",
    "system",
    "temperature",
    "max_tokens",
    "timeout",
    "reference_placement",
    "on_all_failed",
)
_NOT_OF_A_MODEL: Final = ("name", "samples", "fallbacks")


def chosen_profile(
    name: str,
    description: str,
    proposers: Sequence[tuple[str, ReadRun]],
    aggregator: tuple[str, ReadRun],
) -> Profile:
    """A mixture of these models, each with the settings that it had in its run.

    All else, the number of rounds among it, is as in the first proposer's run.
    Raises BenchError or ProfileError if a run's profile cannot be read.
    """
    base: Mapping[str, Any] = proposers[0][1].settings["profile"]
    table = {key: base[key] for key in _SHARED if key in base}
    return build(
        name,
        {
            **table,
            "description": description,
            "rounds": max(1, base.get("rounds", 1)),
            "proposers": [_settings(run, model) for model, run in proposers],
            "aggregator": _settings(aggregator[1], aggregator[0], reply=True),
        },
    )


def _settings(run: ReadRun, model: str, *, reply: bool = False) -> dict[str, Any]:
    """The model's table. reply: as an aggregator's, if it was that in the run."""
    tables = list(_tables(run.settings["profile"]))
    for one in reversed(tables) if reply else tables:
        if one.get("model") == model:
            return {key: value for key, value in one.items() if key not in _NOT_OF_A_MODEL}
    raise BenchError(f"{run.path}: its profile has no model {model}")


def _tables(profile: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tables of the models, as layers meet them, the aggregator's last."""
    yield from profile.get("proposers", ())
    for layer in profile.get("layers", ()):
        yield from layer["proposers"]
    yield profile["aggregator"]

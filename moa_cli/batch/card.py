"""The data card of an output: how it came about, for whoever uses the data later."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moa_cli.batch.lines import identity_of
from moa_cli.batch.prompts import BatchSettings, Intake
from moa_cli.bench.run.settings import ModelFacts
from moa_cli.core import paths
from moa_cli.core.money import price_values
from moa_cli.core.outcomes import cut_text
from moa_cli.core.text import dumps

_FORMAT = 1


def card_path(out: Path) -> Path:
    """Where the card of an output stands."""
    return out.with_name(f"{out.name}.card.json")


def write_card(
    out: Path,
    source: str,
    intake: Intake,
    settings: BatchSettings,
    models: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the card of an output, of all of its starts. Raises OSError.

    source: the name of the input. models: what each model's calls took; see
    `tally.ModelTally`. Lines are counted from the output itself, so that the card tells of
    what is there.
    """
    facts = settings.facts or {}
    card = {
        "format": _FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": settings.versions and asdict(settings.versions),
        "input": {
            "name": source,
            "rows": intake.digest.lines,
            "sha256": intake.digest.sha256,
            "left_out": intake.bad,
            "reading": settings.reading,
        },
        "output": {"name": out.name, **_counts(out)},
        "profile": settings.profile,
        "prompt": settings.prompt,
        "strict": settings.strict,
        "seeds": _seeds(settings.profile),
        "models": {
            name: {**models[name], "price": _price(facts.get(name))} for name in sorted(models)
        },
    }
    with paths.replacing(card_path(out)) as file:
        file.write(dumps(card, indent=2).encode() + b"\n")


def _price(facts: ModelFacts | None) -> dict[str, Any] | None:
    return None if facts is None or facts.price is None else dict(price_values(facts.price))


def _counts(out: Path) -> dict[str, Any]:
    """What stands in the lines."""
    answers = failed = degraded = cut = unpriced = 0
    cost = 0.0
    answered_by: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    with out.open(encoding="utf-8-sig") as file:
        for line in file:
            values = json.loads(line)
            _, _, good = identity_of(values)
            ours, reason, model = _parts(values)
            if ours.get("cost") is None:
                unpriced += 1
            else:
                cost += ours["cost"]
            losses.update(ours.get("lost", ()))
            degraded += bool(ours.get("lost"))
            if not good:
                failed += 1
                errors[values["error"].get("kind") or values["error"].get("code")] += 1
                continue
            answers += 1
            answered_by[str(model)] += 1
            cut += cut_text(reason) is not None
    return {
        "answers": answers,
        "failed": failed,
        "degraded": degraded,
        "cut": cut,
        "cost": round(cost, 12),
        "lines_of_unknown_cost": unpriced,
        "answered_by": dict(answered_by.most_common()),
        "losses": dict(losses.most_common()),
        "errors": dict(errors.most_common()),
    }


def _parts(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None, object]:
    """Of a line: our fields, the finish reason and the model."""
    if "response" not in values or "custom_id" not in values:
        return values, values.get("finish_reason"), values.get("model")
    body = (values["response"] or {}).get("body", {})
    choices = body.get("choices") or [{}]
    return values.get("moa", {}), choices[0].get("finish_reason"), body.get("model")


def _seeds(profile: Any, place: str = "") -> dict[str, Any]:
    """The seeds that requests hold, by their places in the profile."""
    found: dict[str, Any] = {}
    inner = (
        profile.items()
        if isinstance(profile, Mapping)
        else enumerate(profile, 1)
        if isinstance(profile, list | tuple)
        else ()
    )
    for key, value in inner:
        at = f"{place}.{key}" if place else str(key)
        if key == "seed":
            found[at] = value
        else:
            found |= _seeds(value, at)
    return found

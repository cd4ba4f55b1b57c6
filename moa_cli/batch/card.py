"""The data card of an output: it tells later users of the data how the data was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moa_cli.batch.lines import identity_of, is_openai_answer
from moa_cli.batch.prompts import BatchSettings, Intake
from moa_cli.batch.tally import ModelTally, add_tally, tally_in
from moa_cli.bench.run.settings import ModelFacts
from moa_cli.core import paths
from moa_cli.core.money import price_values
from moa_cli.core.outcomes import cut_text
from moa_cli.core.text import dumps

_FORMAT = 1


def card_path(out: Path) -> Path:
    """The path of an output's card."""
    return out.with_name(f"{out.name}.card.json")


def write_card(
    out: Path,
    lines: Path,
    source: str,
    intake: Intake,
    settings: BatchSettings,
    models: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the card of an output, which covers all starts of its batch. Raises OSError.

    lines: the file of its answers as JSON lines: the output itself, or the file that it was made
    from. source: the name of the input. models: sums over each model's calls; see
    `tally.ModelTally`. The lines are counted anew, so that the card describes the actual file.
    """
    facts = settings.facts or {}
    card = {
        "format": _FORMAT,
        "written": _now(),
        "versions": settings.versions and asdict(settings.versions),
        "input": {
            "name": source,
            "rows": intake.digest.lines,
            "sha256": intake.digest.sha256,
            "left_out": intake.bad,
            "reading": settings.reading,
        },
        "output": {"name": out.name, **_counts(lines)},
        "shard": settings.shard,
        "provider_batch": bool(settings.provider_batch),
        "profile": settings.profile,
        "prompt": settings.prompt,
        "strict": settings.strict,
        "seeds": _seeds(settings.profile),
        "models": {
            name: {**models[name], "price": _price(facts.get(name))} for name in sorted(models)
        },
    }
    _write(out, card)


def merge_cards(parts: Sequence[tuple[Path, str | None]], out: Path, lines: Path) -> list[Path]:
    """Write the card of a merged output. Its sums over calls are those of all parts.

    parts: the outputs, each with its shard or None if that is unknown. lines: see `write_card`.
    Returns the parts without a card, whose calls are missing in the sums. If no part has a card,
    none is written. Raises OSError.
    """
    cards = [(path, shard, read_card(path)) for path, shard in parts]
    known = [card for _, _, card in cards if card is not None]
    without = [path for path, _, card in cards if card is None]
    if not known:
        return without
    models: ModelTally = {}
    prices: dict[str, list[Any]] = {}
    told: list[dict[str, Any]] = []
    for path, shard, card in cards:
        if card is None:
            told.append({"name": path.name, "shard": shard, "card": False})
            continue
        add_tally(models, tally_in(card))
        for name, values in card["models"].items():
            prices.setdefault(name, []).append(values["price"])
        counts = {name: card["output"][name] for name in ("answers", "failed", "cost")}
        own = {"name": path.name, "shard": shard, "card": True, "written": card["written"]}
        told += card.get("parts") or [{**own, "versions": card["versions"], **counts}]
    first = known[0]
    _write(
        out,
        {
            **{name: value for name, value in first.items() if name != "parts"},
            "written": _now(),
            "versions": _common([card["versions"] for card in known]),
            "output": {"name": out.name, **_counts(lines)},
            "shard": None,
            "parts": told,
            "models": {
                name: {**models[name], "price": _common(prices[name])} for name in sorted(models)
            },
        },
    )
    return without


def _common(values: Sequence[Any]) -> Any:
    """The value that all of them have; None if they differ."""
    return values[0] if all(value == values[0] for value in values) else None


def read_card(out: Path) -> dict[str, Any] | None:
    """The card of an output; None if it is missing or cannot be read."""
    try:
        card: dict[str, Any] = json.loads(card_path(out).read_bytes())
        tally_in(card)
        if all(name in card["output"] for name in ("answers", "failed", "cost")):
            return card if card["format"] == _FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(out: Path, card: Mapping[str, Any]) -> None:
    with paths.replacing(card_path(out)) as file:
        file.write(dumps(card, indent=2).encode() + b"\n")


def _price(facts: ModelFacts | None) -> dict[str, Any] | None:
    return None if facts is None or facts.price is None else dict(price_values(facts.price))


def _counts(lines: Path) -> dict[str, Any]:
    """Counts over the lines of an output."""
    answers = failed = degraded = cut = unpriced = 0
    cost = 0.0
    answered_by: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    with lines.open(encoding="utf-8-sig") as file:
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
    """The fields of a line that `moa` defines, its finish reason and its model."""
    if not is_openai_answer(values):
        return values, values.get("finish_reason"), values.get("model")
    body = (values["response"] or {}).get("body", {})
    choices = body.get("choices") or [{}]
    return values.get("moa", {}), choices[0].get("finish_reason"), body.get("model")


def _seeds(profile: Any, place: str = "") -> dict[str, Any]:
    """The seeds that are sent with requests, by their paths in the profile."""
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

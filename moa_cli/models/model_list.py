"""Parses the lists of models of providers and servers.

There is no common format. An entry may have its context length and its price in one of a dozen
fields, per token or per million tokens, as numbers or texts, for itself or for each of several
hosts. A value that cannot be understood is unknown. It is never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moa_cli.core.endpoints import ModelInfo, check_info
from moa_cli.core.money import Price, PriceTier, in_usd
from moa_cli.models.names import says_free

_Row = Mapping[str, Any]

_CONTEXTS = (
    "context_length",
    "context_window",
    "max_context_length",
    "max_model_len",
    "max_input_tokens",
    "inputTokenLimit",
    "input_token_limit",
    "max_context_window_tokens",
    "availableContextTokens",
    "context_size",
    "max_context_tokens",
    "context_tokens",
    "contextLength",
    "contextWindow",
    "max_seq_len",
    "n_ctx",
    "n_ctx_train",
)
# Tables in an entry that may hold further facts.
_INSIDE = ("meta", "metadata", "model_spec", "capabilities", "limits", "limit", "top_provider")
_PROMPT = ("input", "prompt", "input_tokens", "input_price", "prompt_price")
_COMPLETION = ("output", "completion", "output_tokens", "output_price", "completion_price")
_CACHED = (
    "cached_input",
    "input_cache_read",
    "cache_read",
    "cache_input",
    "cached_input_tokens",
    "cache_read_tokens",
)
# Prices in units of 0.0001 USD per million tokens: xAI's, then Novita's.
_IN_TEN_THOUSANDTHS = (
    ("prompt_text_token_price", "completion_text_token_price", "cached_prompt_text_token_price"),
    ("input_token_price_per_m", "output_token_price_per_m", ""),
)
# USD a token. Prices per million tokens are above this value, prices per token are below it.
_MOST_PER_TOKEN = 0.001

# Fields that say whether the model can call tools: truth values, lists, and words in these lists.
_TOOL_KEYS = frozenset(
    {
        "function_calling",
        "supportsFunctionCalling",
        "supportsTools",
        "supports_function_calling",
        "supports_tool_calls",
        "supports_tools",
        "tool_calling",
        "tool_calls",
        "tool_use",
        "tools",
    }
)
_WHOLE_LISTS = ("supported_parameters", "supported_features")
_TOOL_LISTS = (*_WHOLE_LISTS, "capabilities", "features", "tags")
_TOOL_WORDS = frozenset(
    {
        "function_call",
        "function_calling",
        "functions",
        "tool_calling",
        "tool_calls",
        "tool_use",
        "tools",
    }
)

# Fields of an entry, or of a table in it, that say whether the model takes images.
_FLAGS = (
    "vision",
    "supports_vision",
    "supportsVision",
    "supports_image_input",
    "supports_image_in",
    "supports_images",
    "image_input",
    "image",
)
# Lists of kinds of input, and lists of abilities, in which one word may stand for images.
_INPUTS = ("input_modalities", "supported_input_modalities", "inputModalities", "input")
_ABILITIES = ("capabilities", "features", "tags", "supported_features")
_VISION = frozenset({"vision", "image", "images", "image_input", "multimodal", "vlm"})
_SIGHT_INSIDE = (
    "architecture",
    "capabilities",
    "modalities",
    "supports",
    "metadata",
    "meta",
    "model_spec",
)

# Words in an id that tell the kind of model where the list does not.
_KINDS = (
    ("embedding", r"embed|(?:^|[-/_])(?:bge|gte|e5|minilm|voyage)(?:[-_]|$)"),
    ("rerank", r"rerank"),
    ("moderation", r"moderation|guard|safeguard|shield"),
    (
        "audio",
        r"whisper|tts|transcri|audio|speech|realtime|orpheus|lyria|voxtral-(?:mini|small)-tra|"
        r"(?:^|[-/_])(?:voice|sonic|parakeet|canary|playai)(?:[-_]|$)",
    ),
    ("image", r"image|dall-e|imagen|flux|diffusion|sdxl|banana|seedream|recraft|ideogram"),
    ("video", r"(?:^|[-/_])(?:sora|veo|kling|wan\d|hailuo|seedance|vidu|pixverse)|video"),
    (
        "other",
        r"^(?:davinci|babbage|ada|curie)(?:-|$)|-instruct-0914$|^gpt-3\.5-turbo-instruct|^aqa$|"
        r"(?:^|[-/_])ocr(?:[-_]|$)|computer-use|robotics",
    ),
)
# The kinds of models by the words that lists use for types and outputs.
_TOLD_KINDS = {
    "chat": "chat",
    "llm": "chat",
    "vlm": "chat",
    "language": "chat",
    "code": "chat",
    "text": "chat",
    "embedding": "embedding",
    "embeddings": "embedding",
    "image": "image",
    "audio": "audio",
    "speech": "audio",
    "transcribe": "audio",
    "transcription": "audio",
    "tts": "audio",
    "asr": "audio",
    "video": "video",
    "rerank": "rerank",
    "score": "rerank",
    "moderation": "moderation",
}


def read_list(payload: object) -> list[ModelInfo] | None:
    """The models of a list: first chat models, then others, both in the order of the list. None if
    it is not a list of models. payload: the list as parsed JSON."""
    rows = _rows(payload)
    if rows is None:
        return None
    # In Gemini's and Ollama's own format, entries are under `models` and may have a name instead of
    # an id.
    native = isinstance(payload, Mapping) and not payload.get("data")
    names = ("id", "model", "name") if native else ("id",)
    found = (_info(row, names) for row in rows)
    infos = {info.id: info for info in found if info is not None}
    return sorted(infos.values(), key=lambda info: info.kind != "chat")


def _rows(payload: object) -> list[object] | None:
    if isinstance(payload, list):
        return payload
    if not isinstance(payload, Mapping):
        return None
    for name in ("data", "models", "result", "items"):
        inner = payload.get(name)
        if isinstance(inner, list):
            return inner
        if isinstance(inner, Mapping):
            if (rows := _rows(inner)) is not None:
                return rows
            # A table of entries by id becomes a list of entries.
            return [{"id": key, **row} for key, row in inner.items() if isinstance(row, Mapping)]
    return None


def _info(row: object, names: tuple[str, ...]) -> ModelInfo | None:
    """The facts in an entry; None if it has no id. names: the fields that may have the id."""
    if isinstance(row, str):
        row = {"id": row}
    if not isinstance(row, Mapping):
        return None
    values = (row.get(name) for name in names)
    found = next((value for value in values if isinstance(value, str) and value.strip()), None)
    if found is None:
        return None
    model = found.removeprefix("models/") or found
    hosts = [host for host in _list(row.get("providers")) if isinstance(host, Mapping)]
    context = _context(row)
    if context is None:
        context = max(filter(None, map(_context, hosts)), default=None)
    price = _price_of(row, model)
    if price is None:
        price = _highest(hosts, model)
    return ModelInfo(
        id=model,
        context_length=context,
        price=price,
        kind=_kind(row, model),
        tools=_tools(row, hosts),
        sees=_sight(row),
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _context(row: _Row) -> int | None:
    for part in _tables_in(row):
        for name in _CONTEXTS:
            number = _number(part.get(name))
            if number is not None and number >= 1 and number == int(number):
                return int(number)
    return None


def _tables_in(
    row: _Row, names: Sequence[str] = _INSIDE, deeper: Sequence[str] = ("limits",)
) -> Iterator[_Row]:
    """The entry, and the tables in it that may have further fields.

    names: names of tables in the entry. deeper: names of tables in these tables.
    """
    yield row
    for name in names:
        table = row.get(name)
        if isinstance(table, Mapping):
            yield table
            yield from (inner for key in deeper if isinstance(inner := table.get(key), Mapping))


def _number(value: object) -> float | None:
    """A number, or the number that a text contains; None for anything else."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# --- prices


def _highest(hosts: list[_Row], model: str) -> Price | None:
    """The highest price of the hosts that a router may choose. With a lower one, a cap might be
    exceeded."""
    prices = [
        price
        for host in hosts
        if host.get("status") in (None, "live") and (price := _price_of(host, model)) is not None
    ]
    return max(prices, key=lambda price: price.prompt + price.completion, default=None)


def _price_of(row: _Row, model: str) -> Price | None:
    for part in _tables_in(row):
        if not in_usd(part):
            return None
        for name in ("pricing", "prices", "price"):
            pricing = part.get(name)
            if isinstance(pricing, Mapping):
                if not in_usd(pricing):
                    return None
                return _price(pricing, free=says_free(model))
        for names in _IN_TEN_THOUSANDTHS:
            found = [_number(part.get(name)) for name in names]
            if found[0] is not None and found[1] is not None:
                scaled = [None if value is None else _scaled(value, 1e-4) for value in found]
                return _checked(Price(scaled[0] or 0.0, scaled[1] or 0.0, scaled[2]))
    return None


def _price(pricing: _Row, *, free: bool) -> Price | None:
    """The price in a table of prices. free: whether the model's name says that it is free.
    Otherwise two prices of 0 mean an unknown price: Together lists 0 also for models that it does
    not sell by the token."""
    unit = str(pricing.get("unit", ""))
    prompt = _rate(pricing, _PROMPT, unit)
    completion = _rate(pricing, _COMPLETION, unit)
    if prompt is None or completion is None:
        return None
    if not (prompt or completion or free) and "input" in pricing:
        return None
    fee = _number(pricing.get("request"))
    if fee is None and pricing.get("request") not in (None, ""):
        # The model has a fee per request, but the list does not tell how much it is.
        return None
    cached = _rate(pricing, _CACHED, unit)
    tiers = tuple(_tiers(pricing, Price(prompt, completion, cached), unit))
    return _checked(Price(prompt, completion, cached, fee or 0.0, tiers))


def _checked(price: Price) -> Price | None:
    """The price; None if it is absurd. Users are told that a price is unknown."""
    try:
        check_info(ModelInfo(id="", price=price))
    except ValueError:
        return None
    return price


def _rate(pricing: _Row, names: tuple[str, ...], unit: str) -> float | None:
    """The first of these prices that the table has, in USD per million tokens."""
    for name in names:
        value = pricing.get(name)
        if isinstance(value, Mapping):
            value = value.get("usd", value.get("USD"))
        number = _number(value)
        if number is None:
            continue
        # OpenRouter's router models have -1, because their price depends on the model they choose.
        return _scaled(number, _factor(name, value, number, unit)) if number >= 0 else None
    return None


def _factor(name: str, value: object, number: float, unit: str) -> float:
    """The factor that converts a number to USD per million tokens."""
    if re.search(r"1m|million|mtok", unit, re.IGNORECASE):
        return 1.0
    if re.search(r"1k|thousand", unit, re.IGNORECASE):
        return 1e3
    if "per_token" in unit:
        return 1e6
    # In OpenRouter's fields, texts are always prices of one token.
    is_text = isinstance(value, str)
    if name in ("prompt", "completion", "input_cache_read"):
        return 1e6 if is_text or number < _MOST_PER_TOKEN else 1.0
    return 1e6 if is_text and number < _MOST_PER_TOKEN else 1.0


def _scaled(number: float, factor: float) -> float:
    """The product, rounded to 12 digits, so that 0.0000003 · 1e6 is 0.3."""
    return float(f"{number * factor:.12g}")


def _tiers(pricing: _Row, base: Price, unit: str) -> Iterator[PriceTier]:
    """Prices for long prompts, from OpenRouter's `overrides` or Vercel's `input_tiers`."""
    for row in _list(pricing.get("overrides")):
        start = _number(row.get("min_prompt_tokens")) if isinstance(row, Mapping) else None
        if isinstance(row, Mapping) and start is not None and start >= 1:
            prompt, completion = _rate(row, _PROMPT, unit), _rate(row, _COMPLETION, unit)
            yield PriceTier(
                int(start) - 1,
                base.prompt if prompt is None else prompt,
                base.completion if completion is None else completion,
                base.cached if (cached := _rate(row, _CACHED, unit)) is None else cached,
            )
    starts: dict[int, dict[str, float]] = {}
    for name in ("input", "output", "input_cache_read"):
        for row in _list(pricing.get(f"{name}_tiers")):
            if not isinstance(row, Mapping):
                continue
            start, cost = _number(row.get("min")), _rate({"input": row.get("cost")}, _PROMPT, unit)
            if start and cost is not None:
                starts.setdefault(int(start), {})[name] = cost
    for first, told in sorted(starts.items()):
        yield PriceTier(
            first - 1,
            told.get("input", base.prompt),
            told.get("output", base.completion),
            told.get("input_cache_read", base.cached),
        )


# --- whether the model calls tools


def _tools(row: _Row, hosts: list[_Row]) -> bool | None:
    """Whether the model calls tools; None if the entry does not say. For a router, one host with
    tools is enough."""
    own = _own_tools(row)
    if own is not None or not hosts:
        return own
    found = [_own_tools(host) for host in hosts if host.get("status") in (None, "live")]
    if True in found:
        return True
    return False if found and None not in found else None


def _own_tools(row: _Row) -> bool | None:
    for part in _tables_in(row):
        for holder in (part, part.get("capabilities"), part.get("supports")):
            for name, value in holder.items() if isinstance(holder, Mapping) else ():
                if name not in _TOOL_KEYS:
                    continue
                told = value.get("supported") if isinstance(value, Mapping) else value
                if isinstance(told, bool):
                    return told
        for name in _TOOL_LISTS:
            listed = part.get(name)
            if isinstance(listed, list) and listed:
                words = {str(word).lower().replace("-", "_") for word in listed}
                if words & _TOOL_WORDS:
                    return True
                # These lists are complete, so tools are not supported. Other lists may be
                # incomplete.
                if name in _WHOLE_LISTS or "completion" in words:
                    return False
    return None


# --- whether the model takes images


def _sight(row: _Row) -> bool | None:
    """Whether the model takes images; None if the entry does not say."""
    for part in _tables_in(row, _SIGHT_INSIDE, _SIGHT_INSIDE):
        for name in _FLAGS:
            value = part.get(name)
            # In Anthropic's list, the value is a table.
            value = value.get("supported") if isinstance(value, Mapping) else value
            if isinstance(value, bool):
                return value
        for name in _INPUTS:
            inputs = _words(part.get(name))
            if inputs:
                return "image" in inputs or "images" in inputs
        ways_in, arrow, _ = str(part.get("modality", "")).partition("->")
        if arrow:
            return "image" in ways_in
    for name in _ABILITIES:
        abilities = _words(row.get(name))
        if abilities & _VISION:
            return True
        if name == "capabilities" and "completion" in abilities:
            # Ollama and llama.cpp list all abilities of a model.
            return False
    # LM Studio's values.
    return {"vlm": True, "llm": False}.get(str(row.get("type", "")).lower())


def _words(value: object) -> set[str]:
    """The words of a list, in lower case; empty for a value of another type."""
    return {str(word).lower() for word in value} if isinstance(value, list) else set()


# --- the kind of output


def _kind(row: _Row, model: str) -> str:
    told = _told_kind(row)
    if told not in (None, "chat"):
        return told or "chat"
    by_name = next((kind for kind, words in _KINDS if re.search(words, model.lower())), "chat")
    # If the entry says chat, a name with "audio" or "image" means the input, not the output.
    return "chat" if told == "chat" and by_name in ("audio", "image", "video") else by_name


def _told_kind(row: _Row) -> str | None:
    """The kind of model by the entry's fields; None if it does not say."""
    architecture = row.get("architecture")
    for part in (row, architecture if isinstance(architecture, Mapping) else {}):
        outputs = [str(output).lower() for output in _list(part.get("output_modalities"))]
        if outputs:
            return "chat" if "text" in outputs else _TOLD_KINDS.get(outputs[0], "other")
    type_ = row.get("type")
    if isinstance(type_, str) and type_.lower() in _TOLD_KINDS:
        return _TOLD_KINDS[type_.lower()]
    capabilities = row.get("capabilities")
    if isinstance(capabilities, Mapping) and capabilities.get("completion_chat") is False:
        return "other"
    methods = _list(row.get("supportedGenerationMethods"))
    if methods and "generateContent" not in methods:
        return "embedding" if any("embed" in str(method) for method in methods) else "other"
    return None

"""Small instruct models to begin with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SuggestedModel:
    """A model of the hub: what to pull, and how large its file is, in GB."""

    reference: str
    name: str
    gigabytes: float
    licence: str


# Three families in each tier, because models of one family answer alike. The sizes are those that
# the publishers list for the Q4_K_M (or Q8_0) files.
_TIERS: tuple[tuple[SuggestedModel, ...], ...] = tuple(
    tuple(SuggestedModel(f"hf:{repo}", name, size, licence) for repo, name, size, licence in tier)
    for tier in (
        (
            ("Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", "Qwen2.5 0.5B", 0.49, "Apache-2.0"),
            ("HuggingFaceTB/SmolLM2-360M-Instruct-GGUF:Q8_0", "SmolLM2 360M", 0.39, "Apache-2.0"),
            ("bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "Llama 3.2 1B", 0.81, "Llama 3.2"),
        ),
        (
            ("Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M", "Qwen2.5 1.5B", 1.12, "Apache-2.0"),
            ("bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "Llama 3.2 1B", 0.81, "Llama 3.2"),
            ("ggml-org/gemma-3-1b-it-GGUF:Q4_K_M", "Gemma 3 1B", 0.81, "Gemma"),
        ),
        (
            ("unsloth/Qwen3-4B-Instruct-2507-GGUF:Q4_K_M", "Qwen3 4B 2507", 2.50, "Apache-2.0"),
            ("bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "Llama 3.2 3B", 2.02, "Llama 3.2"),
            ("ggml-org/gemma-3-4b-it-GGUF:Q4_K_M", "Gemma 3 4B", 2.49, "Gemma"),
        ),
        (
            ("bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", "Qwen2.5 7B", 4.68, "Apache-2.0"),
            ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M", "Llama 3.1 8B", 4.92, "Llama 3.1"),
            ("ggml-org/gemma-3-12b-it-GGUF:Q4_K_M", "Gemma 3 12B", 7.30, "Gemma"),
        ),
    )
)
# A model needs this multiple of its file size: the rest is the context of four calls at a time, and
# the process.
_CONTEXT_SHARE = 1.3


def suggest(limit: int | None) -> tuple[SuggestedModel, ...]:
    """Three models of different families that run beside each other within `limit` bytes.

    The largest tier that fits; the smallest tier if none fits, or if the limit is not known.
    """
    for tier in reversed(_TIERS):
        in_all = sum(model.gigabytes for model in tier) * 1e9 * _CONTEXT_SHARE
        if limit is not None and in_all <= limit:
            return tier
    return _TIERS[0]

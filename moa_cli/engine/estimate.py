"""What calls will take, told before they are made."""

from __future__ import annotations

from moa_cli.core.conversation import Usage
from moa_cli.core.money import Price, priced
from moa_cli.core.tokens import estimated_usage
from moa_cli.profile import ModelSettings

# Of an answer whose model has no max_tokens. Measured replies of current models to the 805
# instructions of AlpacaEval 2 are 300 to 600 tokens long.
ASSUMED_TOKENS = 1000


def forecast_call(settings: ModelSettings, prompt: int, price: Price | None) -> Usage:
    """What one call will take, with as long an answer as it may give. prompt: its tokens."""
    return priced(estimated_usage(prompt, settings.max_tokens or ASSUMED_TOKENS), price)

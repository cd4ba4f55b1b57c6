"""Quirks: the ways in which endpoints differ from OpenAI's own API. Each has a name.

The table of providers lists the quirks of built-in providers. The setting `providers.NAME.quirks`
lists those of the user's own providers. Only the client acts on quirks.
"""

from __future__ import annotations

from typing import Literal

Quirk = Literal[
    "max_completion_tokens",
    "no_stream_options",
    "no_system_role",
    "no_temperature",
    "no_top_p",
    "no_seed",
    "random_seed",
    "deployment_path",
    "unlisted_names",
]

# Each quirk as a sentence about the endpoint, for the documentation.
MEANINGS: dict[Quirk, str] = {
    "max_completion_tokens": "It calls `max_tokens` `max_completion_tokens`.",
    "no_stream_options": "It does not take `stream_options`.",
    "no_system_role": "It takes no system message: its text is sent at the start of the first user"
    " message.",
    "no_temperature": "It does not take `temperature`.",
    "no_top_p": "It does not take `top_p`.",
    "no_seed": "It does not take `seed`.",
    "random_seed": "It calls `seed` `random_seed`.",
    "deployment_path": "Calls go to `/deployments/MODEL/chat/completions` below the base URL.",
    "unlisted_names": "Its list of models does not hold the names that calls use.",
}

"""Names of tools that are too long for most endpoints.

Anthropic's API accepts names of 128 characters, and agents make long ones of the names of plugins,
servers and tools.
"""

from __future__ import annotations

import hashlib

# The longest name of a function that OpenAI and most other providers accept.
_LONGEST = 64


def sendable(name: str) -> str:
    """The name that the model sees: the same one if it is short enough. A longer name is always
    shortened to the same one."""
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{name[: _LONGEST - 9]}_{digest}"

"""The memory that models on this machine take."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from moa_cli.clients.local.gguf import parts, read_shape
from moa_cli.config.schema import LocalSettings
from moa_cli.core.errors import LocalModelUnavailable

_GB = 1_000_000_000
# Bytes that a process takes beside the weights and the context: measured 80 to 200 MB.
_PROCESS_BYTES = 200 << 20
# Bytes for a token of context that are assumed if the header of a file cannot be read.
_UNKNOWN_TOKEN_BYTES = 100 << 10
# The share of the machine's memory that all models together may take if the user sets no limit.
_SHARE = 0.75
# The limits of a container, by version 2 and version 1 of control groups.
_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_bytes() -> int | None:
    """The memory of this machine, or of the container this runs in; None if it is not known."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _GROUP_LIMITS:
        # A group without a limit says `max`, or a number beyond all memory.
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    if sys.platform == "win32":
        found.append(_windows_bytes())
    return min((size for size in found if size > 0), default=None)


def _windows_bytes() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "page", "page_free")),
            *((name, ctypes.c_ulonglong) for name in ("virtual", "virtual_free", "extended")),
        )

    status = Status()
    status.length = ctypes.sizeof(status)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.total)


def needed_bytes(weights: Path, settings: LocalSettings) -> int:
    """The memory that a model takes while it runs: weights, context of all slots, process."""
    shape = read_shape(weights)
    token_bytes = shape.token_bytes if shape else _UNKNOWN_TOKEN_BYTES
    context = settings.context * settings.parallel
    files = sum(part.stat().st_size for part in parts(weights))
    return files + token_bytes * context + _PROCESS_BYTES


class LocalMemory:
    """Keeps the memory of all models of one run within a limit.

    A machine that runs out of memory swaps for minutes or kills one of the user's programs, so a
    model that does not fit is refused before it is loaded.
    """

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._taken: dict[Path, int] = {}
        self._lock = threading.Lock()

    def limit(self) -> int | None:
        """The bytes that all models may take; None if nothing limits them."""
        if self._settings.memory is not None:
            return int(self._settings.memory * _GB)
        whole = machine_bytes()
        return None if whole is None else int(whole * _SHARE)

    def take(self, weights: Path) -> None:
        """Note that a model is loaded. Raises LocalModelUnavailable if it does not fit."""
        need, limit = needed_bytes(weights, self._settings), self.limit()
        with self._lock:
            others = sum(size for path, size in self._taken.items() if path != weights)
            if limit is not None and need + others > limit:
                beside = f" beside {size_in_words(others)} of other models" if others else ""
                raise LocalModelUnavailable(
                    f"local: {weights.name} needs about {size_in_words(need)} of memory{beside};"
                    f" the limit is {size_in_words(limit)}",
                    hint="choose a smaller model, lower `local.context` or `local.parallel`, or"
                    " set `local.memory` in the config",
                )
            self._taken[weights] = need

    def release(self, weights: Path) -> None:
        with self._lock:
            self._taken.pop(weights, None)


def size_in_words(size: int) -> str:
    """A size in words: `98 MB`, `2.4 GB`."""
    return f"{size / _GB:.1f} GB" if size >= _GB else f"{size / 1_000_000:.0f} MB"

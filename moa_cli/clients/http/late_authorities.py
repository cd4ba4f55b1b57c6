"""Imports aiohttp without reading the system's authorities, a tenth of the time of `moa ask`.

aiohttp makes two TLS contexts when it is imported, and both read all certificates that the system
trusts. We use neither of them: `tls_context` says whom we trust. But other code in the process may,
so such a context reads them when it is first used.
"""

from __future__ import annotations

import ssl
import sys
from threading import Lock
from typing import Any

_lock = Lock()


class _LateContext(ssl.SSLContext):
    """Reads its authorities when it is first used, and is a plain context from then on."""

    def _complete(self) -> None:
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]
        self.set_default_verify_paths()

    def wrap_socket(self, *given: Any, **named: Any) -> ssl.SSLSocket:
        self._complete()
        return self.wrap_socket(*given, **named)

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        self._complete()
        return self.wrap_bio(*given, **named)


def import_aiohttp() -> None:
    """Import aiohttp, unless that was done."""
    with _lock:
        if "aiohttp" in sys.modules or "set_default_verify_paths" in vars(ssl.SSLContext):
            # The second: another package has replaced Python's way to read them.
            return
        # A context that another thread makes meanwhile comes late, too, which does not harm it.
        ssl.SSLContext.set_default_verify_paths = _put_off  # type: ignore[assignment]
        try:
            import aiohttp  # noqa: F401
        finally:
            del ssl.SSLContext.set_default_verify_paths


def _put_off(context: ssl.SSLContext) -> None:
    if type(context) is ssl.SSLContext:
        context.__class__ = _LateContext
    else:
        super(ssl.SSLContext, context).set_default_verify_paths()

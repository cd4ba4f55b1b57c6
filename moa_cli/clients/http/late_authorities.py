"""Imports aiohttp without the system's authorities, which saves a tenth of the time of `moa ask`.

aiohttp makes two TLS contexts when it is imported, and both read all certificates that the system
trusts. We use neither of them: `tls_context` says whom we trust. But other code in the process may
use such a context, so it reads the certificates when it is first used.
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
    """Import aiohttp, if it is not imported yet."""
    with _lock:
        if "aiohttp" in sys.modules or "set_default_verify_paths" in vars(ssl.SSLContext):
            # The second condition: another package has already replaced the method that reads the
            # authorities.
            return
        # A context that another thread makes meanwhile also reads its authorities late, which does
        # no harm.
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

"""The debug log: requests to endpoints, their results, and the reasons for decisions.

`--debug` writes it to standard error, `MOA_LOG=FILE` to a file. Entries go through `logging`, under
a name for each package (`moa.clients`, `moa.engine`, …), so that a program that uses the library
can handle them itself. The log contains prompts and answers. Known secrets are replaced before a
record is made. In place of an image, the log has its kind and size.

`logging` is imported only with the first handler, and each package checks only once for each
request whether there is one. So without a log, a token takes no additional time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from moa_cli.core import paths
from moa_cli.core.errors import UsageError
from moa_cli.core.files.data_uris import without_data
from moa_cli.core.text import ACTIVE, SECRET_PARAMETER

if TYPE_CHECKING:
    import logging

_MASK = "[key]"
# Secrets shorter than _SHORTEST_SECRET characters are not replaced. Of a longer secret, each piece
# of _PIECE characters is replaced too, because an endpoint may send the secret back in pieces.
_SHORTEST_SECRET, _PIECE = 4, 8
# Names of fields, headers, variables, options and settings whose values are secret.
_NAMES = r"api[-_]?key|(?:access|auth|refresh|id)[-_]token|secret|passw(?:or)?d|credentials?"
_HEADER = re.compile(r".*(?:key|token|secret|password|cookie|authorization)", re.IGNORECASE)
_VARIABLE = re.compile(r".*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?", re.IGNORECASE)
_OPTION = re.compile(
    r"-+(?:.*-)?(?:key|token|secret|password)|providers\.[^.]+\.(?:headers|query)(?:\..+)?",
    re.IGNORECASE,
)
# Secrets in a text: `"api_key": "…"` (perhaps with escaped quotes), `x-api-key: …`, `?key=…`,
# `Bearer …` and `://name:…@`.
_PLACED = (
    re.compile(rf"""((?:{_NAMES}|authorization|cookie)\\*["']\s*:\s*\\*["'])[^"'\\]+""", re.I),
    re.compile(rf"((?:{_NAMES}|authorization|cookie)\s*[:=]\s*)[^\s\"'&,;[]+", re.I),
    SECRET_PARAMETER,
    re.compile(r"(\b(?:Bearer|Basic) )[\w.~+/=-]{4,}", re.I),
    re.compile(r"(://)[^/\s@\"']+(?=@)"),
)
_UNPRINTABLE = re.compile(rf"[\x00-\x1f]|{ACTIVE.pattern}")
# The scheme of a URL, and the user name and password.
_LOGIN = re.compile(r"((?:[a-z][a-z0-9+.-]*:)?/+)?([^/?#\s]*)@", re.IGNORECASE)
_ENTRY = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")

_secrets: set[str] = set()
_pieces: set[str] = set()
_on_terminal = False
# The number of the current turn, for the entries about it.
TURN: ContextVar[int | None] = ContextVar("turn", default=None)


def add_secret(text: str) -> None:
    """Replace `text` in the log from now on: the text itself, and its forms in JSON and URLs."""
    for form in {text, json.dumps(text)[1:-1], quote(text, safe="")}:
        if len(form) >= _SHORTEST_SECRET:
            _secrets.add(form)
            _pieces.update(form[at : at + _PIECE] for at in range(len(form) - _PIECE + 1))


def add_url(url: str) -> None:
    """Replace the user name and password of `url` in the log from now on."""
    for secret in url_secrets(url):
        add_secret(secret)


def url_secrets(url: str) -> list[str]:
    """The user name and password of `url`, in the forms in which an endpoint may send them back.
    The scheme may be missing or mistyped."""
    found = _LOGIN.match(url)
    pair = unquote(found[2]) if found and (found[1] or ":" in found[2]) else ""
    user, _, password = pair.partition(":")
    basic = b64encode(f"{user}:{password}".encode()).decode()
    return [basic, pair, password or user] if pair else []


def mask(text: str) -> str:
    """`text` without known secrets, and without the values in places where secrets usually
    stand."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    kept: list[str] = []
    end = 0
    for at in range(len(text) - _PIECE + 1 if _pieces else 0):
        if text[at : at + _PIECE] in _pieces:
            if at >= end:
                kept += [text[end:at], _MASK]
            end = at + _PIECE
    text = "".join([*kept, text[end:]])
    for pattern in _PLACED:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


class RoomLog:
    """The log of one package. name: its name in `logging`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._log: logging.Logger | None = None

    @property
    def enabled(self) -> bool:
        """Whether there is a handler. Check this once for many entries."""
        if self._log is None:
            # If `logging` is not imported, there can be no handler.
            loaded = sys.modules.get("logging")
            if loaded is None:
                return False
            self._log = loaded.getLogger(self._name)
        return self._log.isEnabledFor(10)

    def write(self, what: str, *, data: str | None = None, **values: object) -> None:
        """Add an entry, if there is a handler.

        values: written as JSON, but single words without quotes; None is left out. data: written at
        the end, unchanged.
        """
        if self.enabled and self._log is not None:
            values = {"turn": TURN.get(), **values}
            told = "".join(f" {k}={_told(v)}" for k, v in values.items() if v is not None)
            told += "" if data is None else f" data={data}"
            # An entry is one line, so control characters are escaped as in JSON.
            masked = mask(without_data(what + told))
            line = _UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], masked)
            self._log.debug("%s", line)


def _told(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r"[\s\"=]", value):
        return value
    if isinstance(value, float):
        return f"{value:.3f}"
    return json.dumps(value, ensure_ascii=False, default=str)


def to_file(name: str, arguments: Iterable[str]) -> None:
    """Append the debug log to a file from now on. Raises UsageError if the file cannot be used.

    arguments: the command line, for the first entry.
    """
    _begin(_opened(paths.expand(name)), arguments)


def to_stderr(arguments: Iterable[str]) -> None:
    """Write the debug log to standard error from now on. arguments: see `to_file`."""
    global _on_terminal
    _on_terminal = sys.stderr.isatty()
    _begin(sys.stderr.fileno(), arguments)


def _begin(target: int, arguments: Iterable[str]) -> None:
    import logging
    import platform

    from moa_cli.version import __version__

    log = logging.getLogger("moa")
    if any(getattr(handler, "target", None) == target for handler in log.handlers):
        return
    _learn_secrets(os.environ)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(_handler(target))
    RoomLog("moa.cli").write(
        "moa begins",
        version=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        arguments=_without_values(list(arguments)),
    )


def on_terminal() -> bool:
    """Whether the log goes to a terminal. Then nothing else must be redrawn there."""
    return _on_terminal


def _learn_secrets(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        add_url(value)
        # Some variables hold several secrets, separated by commas. A path is not a secret.
        for text in value.split(",") if _VARIABLE.fullmatch(name) else ():
            if len(text.strip()) >= _PIECE and not text.startswith("/"):
                add_secret(text.strip())
    # The SDK sends the headers in this variable. Their values stand after the colons.
    for line in environment.get("TOGETHER_CUSTOM_HEADERS", "").split("\n"):
        add_secret(line.partition(":")[2].strip())


def _without_values(arguments: list[str]) -> list[str]:
    """The arguments without the values of options and settings whose names suggest a secret.

    From now on, the log hides the logins of addresses among them.
    """
    found = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        add_url(value if argument.startswith("-") else argument)
        masked = f"{name}={_MASK}" if equals and _OPTION.fullmatch(name) else argument
        found.append(_MASK if _OPTION.fullmatch(before) else masked)
    return found


def _opened(path: Path) -> int:
    """Open a log file for appending. Raises UsageError if it is not a log file."""
    from moa_cli.core.files.new_file import why_unfit

    if unfit := why_unfit(path.name):
        raise UsageError(f"MOA_LOG: {path}: {unfit}", hint="choose another name")
    hint = "name a file that does not exist yet, or an earlier log"
    try:
        paths.refuse_database(path)
        own = [paths.database_file(), paths.config_file(), paths.history_file()]
        own += [own[0].with_name(own[0].name + suffix) for suffix in paths.DATABASE_SUFFIXES]
        place = Path(os.path.realpath(path))
        if place in [Path(os.path.realpath(known)) for known in own] or place.suffix == ".toml":
            raise UsageError(f"MOA_LOG: {path} is the name of one of moa's own files", hint=hint)
        if path.exists():
            if not path.is_file():
                raise UsageError(f"MOA_LOG: {path} is not a file", hint=hint)
            with path.open("rb") as file:
                start = file.read(64)
            if start and not _ENTRY.match(start):
                raise UsageError(f"MOA_LOG: {path} is not a debug log of moa", hint=hint)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with contextlib.suppress(AttributeError, OSError):
            os.fchmod(handle, 0o600)
        return handle
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"MOA_LOG: {path} cannot be written: {why}") from None


def _handler(descriptor: int) -> logging.Handler:
    import logging

    class Handler(logging.Handler):
        """Writes each line by one system call, so that several processes can share a file."""

        target = descriptor
        failed = False

        def emit(self, record: logging.LogRecord) -> None:
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            line = f"{when}.{int(record.msecs):03d}Z {record.name} {record.getMessage()}\n"
            try:
                os.write(self.target, line.encode("utf-8", "replace"))
            except OSError as error:
                if not self.failed:
                    self.failed = True
                    with contextlib.suppress(OSError):
                        sys.stderr.write(f"moa: the debug log is cut short: {error.strerror}\n")

    return Handler()


def names_secret(name: str) -> bool:
    """Whether a header or parameter of that name may hold a secret."""
    return bool(_HEADER.match(name) or re.search(r"sig|auth|code|passw|cred", name, re.I))


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower(): _MASK if _HEADER.fullmatch(name) else value for name, value in headers.items()
    }

"""Inputs and outputs of batches at addresses: `s3://bucket/in.parquet`, `gs://…`, `https://…`.

fsspec reads and writes them through its package for that kind of address (`s3fs`, `gcsfs`, …). If
that package is not installed, Arrow's own clients for S3 and Google Cloud Storage are used. Both
take credentials from the usual places: environment variables such as AWS_ACCESS_KEY_ID and
AWS_ENDPOINT_URL, the files of the provider's own tools, or the machine's role.
"""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from moa_cli.batch.sources import BLOCK, Source, data_files
from moa_cli.clients.http.proxies import find_proxy
from moa_cli.clients.transport import BadSetting
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.installation import install_command
from moa_cli.core.text import without_login

# At least two characters before the colon: a single letter is a Windows drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# The query of an address in what a client says of it: it may hold a signature.
_QUERY = re.compile(r"\?[^\s'\"]+")
# Seconds in which Arrow tries to reach Google Cloud Storage again.
_RETRY_SECONDS = 20
# Names of values in fsspec's file information that change when the file changes.
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified")


def is_address(text: str) -> bool:
    """Whether IN or OUT is an address, and not a file of this machine."""
    return _ADDRESS.match(text) is not None


@dataclass(frozen=True)
class RemotePath:
    """A file or a folder at an address. address: as it is shown. files: an fsspec file system.
    path: the path in it."""

    address: str
    files: Any
    path: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def is_page(self) -> bool:
        """Whether it is at a web server, to which nothing can be written."""
        return _is_page(self.address)

    def exists(self) -> bool:
        """Whether it exists. Raises BenchError if that cannot be found out."""
        with _told(self.address):
            return bool(self.files.exists(self.path))

    def copy_from(self, path: Path) -> None:
        """Copy a local file to this address. Raises BenchError."""
        with _told(self.address), path.open("rb") as file, self._open(self.path, "wb") as copy:
            shutil.copyfileobj(file, copy, BLOCK)

    def beside(self, name: str) -> RemotePath:
        """Another file in the same folder."""
        cut = len(self.name)
        return RemotePath(self.address[:-cut] + name, self.files, self.path[:-cut] + name)

    def sources(self) -> list[Source]:
        """The file at this address, or all files of a folder or of a pattern with `*`, in the order
        of their names. Raises BenchError if there is nothing."""
        with _told(self.address):
            return [self._source(path) for path in self._found()]

    def _found(self) -> list[str]:
        if self.is_page:
            return [self.path]
        if glob.has_magic(self.path) and not self.files.exists(self.path):
            matches = self.files.glob(self.path, detail=True)
            found = sorted(path for path in matches if matches[path]["type"] != "directory")
        elif self.files.isdir(self.path):
            folder = self.path.rstrip("/") + "/"
            names = (path.removeprefix(folder) for path in self.files.find(self.path))
            # An object that stands for a folder ends with a slash.
            found = [folder + path for path in data_files(names) if path[-1:] not in ("", "/")]
        else:
            self.files.info(self.path)
            return [self.path]
        if not found:
            raise FileNotFoundError("there are no such files")
        return found

    def _open(self, path: str, mode: str) -> BinaryIO:
        if "file" in self.files.protocol:
            paths.refuse_database(Path(path))
        return cast("BinaryIO", self.files.open(path, mode))

    def _source(self, path: str) -> Source:
        scheme = self.address.partition("://")[0]
        name = self.address if path == self.path else f"{scheme}://{path}"

        def read() -> BinaryIO:
            with _told(name):
                return self._open(path, "rb")

        def stamp() -> list[Any] | None:
            with _told(name):
                info = self.files.info(path)
            mark = next((str(info[mark]) for mark in _MARKS if info.get(mark)), None)
            return None if mark is None else [path, info.get("size"), mark]

        return Source(name, read, stamp)


def place_at(address: str) -> RemotePath:
    """The file or folder at an address. Raises UsageError if no installed package can access such
    an address."""
    address = _ADDRESS.sub(lambda scheme: scheme[0].lower(), address, count=1)
    # For messages and logs. What follows a question mark may sign the address. In a store, a
    # question mark may also be part of a pattern.
    query = r"\?.*" if _is_page(address) else r"\?[\w.-]+=.*"
    shown = re.sub(query, "", without_login(address), flags=re.DOTALL)
    try:
        if urlsplit(address).password is not None:
            raise UsageError(
                "an address must hold no password",
                hint="keep credentials in variables such as AWS_SECRET_ACCESS_KEY",
            )
    except ValueError:
        raise UsageError(f"{shown}: is no address") from None
    try:
        import fsspec
    except ImportError:
        raise UsageError(
            f"{shown}: files at addresses need the package fsspec",
            hint=f"install it with: {install_command('ray')}",
        ) from None
    options = {"client_kwargs": _way_to(address, shown)} if _is_page(address) else {}
    with _told(shown):
        try:
            files, path = fsspec.core.url_to_fs(address, **options)
        except (ImportError, ValueError) as error:
            files, path = _by_arrow(address, shown, str(error))
    return RemotePath(shown, files, path)


def _is_page(address: str) -> bool:
    """Whether it is at a web server: HTTP has no folders, and a question mark starts the query and
    not a pattern."""
    return address.startswith(("http://", "https://"))


def _way_to(address: str, shown: str) -> dict[str, str]:
    """What fsspec's client for web servers is told of the proxy. By itself, it takes none from the
    environment. Raises UsageError if the proxy cannot be used."""
    try:
        proxy = find_proxy(address)
    except BadSetting as error:
        raise UsageError(f"{shown}: {error.problem}", hint=error.hint) from None
    if proxy is None:
        return {}
    if proxy.is_socks:
        raise UsageError(
            f"{shown}: {proxy.variable}: batches read no web address through a SOCKS proxy",
            hint="fetch the file first, or use another proxy",
        )
    return {"proxy": proxy.url}


def _by_arrow(address: str, shown: str, why: str) -> tuple[Any, str]:
    """Arrow's own file system for an address. shown: the address in messages. why: why fsspec
    cannot access it."""
    if address.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in address:
        # By itself, Arrow tries for 15 minutes, in which Ctrl-C has no effect.
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={_RETRY_SECONDS}"
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        files, path = FileSystem.from_uri(address)
    except (ImportError, ValueError, NotImplementedError):
        raise UsageError(f"{shown}: cannot be reached: {why}") from None
    return ArrowFSWrapper(files), path


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn the errors of all clients that fsspec may use into BenchError."""
    try:
        yield
    except (BenchError, UsageError):
        raise
    except Exception as error:
        told = _QUERY.sub("", _why(error).partition("\n")[0]) or type(error).__name__
        raise BenchError(f"{address}: cannot be read or written: {told}") from None


def _why(error: Exception) -> str:
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError):
        return getattr(error, "strerror", None) or str(error)
    # fsspec raises this for whatever a web server says, and if there is none.
    status = getattr(cause, "status", 404)
    if status not in (404, 410):
        return f"{status} {getattr(cause, 'message', '')}"
    unreachable = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return str(cause) if unreachable else "there is no such file"

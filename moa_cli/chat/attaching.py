"""Attaches files to the prompts of a chat: files that a command names, and files that a prompt
mentions.

The chat asks before it attaches files that seem to contain secrets, or that have very many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from moa_cli.chat.named_files import mentioned_files
from moa_cli.chat.outcomes import Outcome, Question, Send, TypeAgain
from moa_cli.core.conversation import Part
from moa_cli.core.errors import UsageError
from moa_cli.core.files.attaching import Attached, Gathered, gather, told
from moa_cli.core.files.attachments import prompt_of
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural, with_hint
from moa_cli.terminal.file_questions import secrets_question, size_text

if TYPE_CHECKING:
    from moa_cli.chat.commands.registry import Host

_MOST_NAMED = 2


def attach(
    host: Host,
    names: Sequence[str],
    *,
    keep: bool = False,
    allow_secrets: bool = False,
    yes: bool = False,
    then: Callable[[], Outcome] = lambda: None,
    otherwise: Callable[[], Outcome] = lambda: None,
) -> Outcome:
    """Attach files to the next prompt, and show a line about them. Returns the outcome of `then`,
    or a question to the user.

    names: paths of files and folders, and patterns. keep: whether they go with later prompts, too.
    allow_secrets: do not ask about secrets. yes: do not ask about the size. then, otherwise: return
    the next outcome, after the files are attached or if the user says no. Raises UsageError if the
    files cannot be attached.
    """
    gathered = _gathered(host, names)
    kept = keep or host.options.keep_files

    def add(files: Sequence[Attached]) -> Outcome:
        _add(host, ", ".join(names), files, kept=kept)
        return then()

    def stop() -> Outcome:
        host.say("nothing is attached")
        return otherwise()

    def go_on() -> Outcome:
        return add(gathered.files) if yes else _ask_about_size(host, gathered, add, stop)

    return go_on() if allow_secrets else _ask_about_secrets(host, gathered, go_on, stop)


def with_mentioned(host: Host, text: str) -> Outcome:
    """Send a prompt with the files that it mentions, after a question if one is needed. If a file
    cannot be read, the reason is shown, and the prompt goes back to the line."""
    names, missing = mentioned_files(text)
    for name in missing:
        host.say(f"moa: {one_line(name, 80)}: there is no such file, so the line is sent as text")
    if not names:
        return Send(text)
    try:
        gathered = _gathered(host, names)
        attached = {file.place for file in host.options.attachments}
        gathered.files = [file for file in gathered.files if file.place not in attached]
        send = partial(_send, host, text)
        give_back = partial(TypeAgain, text)
        count = partial(_ask_about_size, host, gathered, send, give_back)
        return _ask_about_secrets(host, gathered, count, give_back)
    except UsageError as error:
        host.say(one_line(f"moa: {with_hint(error.message, error.hint)}"))
        return TypeAgain(text)


def current_files(host: Host) -> list[Attached]:
    """The attached files as they are now on the disk. Raises UsageError if one cannot be read."""
    files = host.options.attachments
    try:
        files[:] = [file.current() for file in files]
    except UsageError as error:
        raise UsageError(error.message, hint="/files drop NAME removes it") from None
    return files


def attached_text(files: Sequence[Attached]) -> str:
    """A text for the bar about the attached files: `notes.txt, photo.png attached`."""
    if not files:
        return ""
    names = [one_line(file.place.name, 30) for file in files[:_MOST_NAMED]]
    if len(files) > _MOST_NAMED:
        names[1:] = [f"{len(files) - 1} more"]
    kept = all(file.kept for file in files)
    return f"{', '.join(names)} {'kept' if kept else 'attached'}"


def _gathered(host: Host, names: Sequence[str]) -> Gathered:
    def sees() -> bool:
        return any(info.sees is not False for info in host.session.known().values())

    gathered = gather(names, sees=sees)
    for note in gathered.notes:
        host.say(one_line(f"moa: {note}"))
    return gathered


def _ask_about_secrets(
    host: Host, gathered: Gathered, go_on: Callable[[], Outcome], stop: Callable[[], Outcome]
) -> Outcome:
    """Go on, after a question if files seem to contain secrets. If the user says no, these files
    are left out."""
    secrets = gathered.secrets
    if not secrets:
        return go_on()

    def without() -> Outcome:
        gathered.files = [file for file in gathered.files if not file.secret]
        host.say(f"left out: {plural(len(secrets), 'file')} that may hold secrets")
        return go_on() if gathered.files else stop()

    hint = "`/file PATH --allow-secrets` attaches it"
    return Question(secrets_question(secrets), go_on, without, hint)


def _ask_about_size(
    host: Host,
    gathered: Gathered,
    go_on: Callable[[Sequence[Attached]], Outcome],
    stop: Callable[[], Outcome],
) -> Outcome:
    """Go on, after a question if all files together have too many tokens."""
    others = {file.place for file in gathered.files}
    tokens = gathered.tokens + sum(
        file.tokens for file in host.options.attachments if file.place not in others
    )
    most = host.options.confirm_tokens
    if not most or tokens <= most:
        return go_on(gathered.files)
    session = host.session
    question = f"{size_text(tokens, session.profile, session.known())}: send?"
    yes = partial(go_on, gathered.files)
    return Question(question, yes, stop, "`/file PATH --yes` attaches it")


def _add(host: Host, name: str, files: Sequence[Attached], *, kept: bool) -> None:
    """Attach these files. A file that is attached already is replaced by its present state."""
    held = host.options.attachments
    places = {file.place for file in files}
    held[:] = [file for file in held if file.place not in places]
    held += [replace(file, kept=kept) for file in files]
    what = name
    if len(files) != 1 or not files[0].named:
        tokens = sum(file.tokens for file in files)
        what = f"{name} ({plural(len(files), 'file')}, about {tokens:,} tokens)"
    when = "each prompt until `/files drop`" if kept else "the next prompt"
    more = f" ({len(held)} files)" if len(held) > len(files) else ""
    host.say(f"{what} {'goes' if len(files) == 1 else 'go'} with {when}{more}")


def _send(host: Host, text: str, files: Sequence[Attached]) -> Outcome:
    if not files:
        return Send(text)
    if host.options.keep_files:
        # The attached files go with this prompt, and with later ones.
        host.options.attachments += [replace(file, kept=True) for file in files]
        return Send(text)
    host.say(f"with {told(files)}")
    prompt, parts = prompt_of([Part("text", text), *(file.part for file in files)])
    return Send(prompt, parts=parts)

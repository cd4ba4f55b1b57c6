"""The merge prompt: a profile's own prompt that presents the references to a model.

In a profile, a variable, an option or `/set`, its value is the name of a text file or the text
itself. A text is recognized by its `{references}`. The file is read together with the setting. So a
`Profile`, and a stored turn, run or profile, contain the text, which is the prompt that was sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from moa_cli.config.toml import names_key
from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.core.files.text import line_feeds, read_text
from moa_cli.core.text import nearest
from moa_cli.core.values import ValueFault

PLACEHOLDERS = ("references", "count", "prompt")
# A name in double braces means the text of the name in single braces. All other braces are plain
# text, such as JSON.
_NAMES = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


def check(text: str) -> None:
    """Raise ValueFault for an unknown placeholder, or if {references} is missing."""
    if not text.strip():
        # An empty text means the same as no merge prompt.
        return
    found = _placeholders(text)
    for name in found:
        if name not in PLACEHOLDERS:
            near = nearest(name, PLACEHOLDERS)
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            hint = f"did you mean {{{near}}}?" if near else f"known: {known}"
            raise ValueFault(
                f"holds {{{name}}}, which is no placeholder",
                hint=f"{hint} (as text, write {{{{{name}}}}})",
            )
    if "references" not in found:
        raise ValueFault(
            "has no {references}", hint="write {references} where the answers are to stand"
        )


def _placeholders(text: str) -> list[str]:
    return [match[2] for match in _NAMES.finditer(text) if match[2]]


def holds_prompt(text: str | None) -> bool:
    """Whether the merge prompt contains the user's prompt."""
    return text is not None and "prompt" in _placeholders(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The merge prompt with `values` in place of its placeholders. Braces in a value are not
    replaced."""
    return _NAMES.sub(lambda match: values[match[2]] if match[2] else f"{{{match[1]}}}", text)


def as_text(text: str) -> str:
    """`text` as a part of a merge prompt, escaped so that it contains no placeholder."""
    return re.sub(r"\{([A-Za-z_]\w*)\}", r"{{\1}}", text)


def behind_references(text: str, more: str) -> str:
    """The merge prompt with the literal text `more` after the references."""
    places = [match.end() for match in _NAMES.finditer(text) if match[2] == "references"]
    return f"{text[: places[0]]}\n\n{as_text(more)}{text[places[0] :]}"


def names_file(value: str) -> bool:
    """Whether a setting is the name of a file, and not the text itself."""
    return bool(value.strip()) and "\n" not in value and "references" not in _placeholders(value)


def read_file(value: str, folder: Path, place: str) -> tuple[str, Path]:
    """The text of the file that a setting names, without trailing line ends, and the file's path.

    folder: the base of a relative name. place: where the setting was read. Raises ProfileError if
    the file is missing, is not text, or is not a merge prompt.
    """
    path = folder / paths.expand(value)
    if not paths.is_file(path) and not paths.is_pipe(path):
        key = "" if names_key(place, ("merge_prompt",)) else "`merge_prompt`: "
        raise ProfileError(
            f"{key}there is no file {path}",
            place=place,
            path=("merge_prompt",),
            hint="name a text file, or give the text itself, with {references} in it",
        )
    text = line_feeds(read_text(path, ProfileError)).rstrip("\n")
    try:
        if not text.strip():
            raise ValueFault("is empty", hint="write {references} where the answers are to stand")
        check(text)
    except ValueFault as fault:
        raise ProfileError(
            f"`merge_prompt` {fault.problem}",
            place=str(path),
            path=("merge_prompt",),
            hint=fault.hint,
        ) from None
    return text, path

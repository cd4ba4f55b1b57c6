"""Names of settings: `save`, `budget.day`, `prices."openai:gpt-4.1".prompt`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import reduce

from moa_cli.config.schema import CONFIG_KEYS, Config, ServerKeySettings
from moa_cli.core.errors import UsageError
from moa_cli.core.text import nearest, quoted
from moa_cli.core.values import Key, keys_of

# The tables in which the user names tables, and the placeholder for such a name. Those of `server`
# are in its table `keys`.
NAMED = {"prices": "MODEL", "providers": "NAME", "server": "NAME"}
SERVER_KEYS = ("server", "keys")
# The keys of these tables.
KEYS_OF = {
    name: keys_of(key.item.type if name in NAMED else key.type)
    for name, key in CONFIG_KEYS.items()
    if key.kind == "table" and name != "server"
} | {"server": keys_of(ServerKeySettings)}
_SECRET = re.compile(r"(api_?|secret_?)?key|token|secret|password|credential", re.IGNORECASE)
_QUOTED = re.compile(r"""(["'])(?P<name>.+)\1(?:\.(?P<last>[^"']*))?""")


@dataclass(frozen=True)
class Name:
    """The name of a setting: its path through the tables, and its key."""

    path: tuple[str, ...]
    key: Key

    def __str__(self) -> str:
        return dotted(self.path)


def dotted(path: tuple[str, ...]) -> str:
    """The path as a user types it, with quotes around parts that need them."""
    return ".".join(map(quoted, path))


def leaves() -> dict[tuple[str, ...], Key]:
    """All settings that are not tables. MODEL or NAME stands for names that the user chooses."""
    found: dict[tuple[str, ...], Key] = {}
    for table, key in CONFIG_KEYS.items():
        if table not in KEYS_OF:
            found[table,] = key
            continue
        above = (*path_of(table), NAMED[table]) if table in NAMED else (table,)
        found |= {(*above, name): inner for name, inner in KEYS_OF[table].items()}
    return found


def path_of(table: str) -> tuple[str, ...]:
    """The path to the tables whose names the user chooses."""
    return SERVER_KEYS if table == "server" else (table,)


def default_of(path: tuple[str, ...]) -> object:
    """The default value of a setting; None if there is none."""
    return None if path[0] in NAMED else reduce(getattr, path, Config())


def find_name(text: str) -> Name:
    """The setting of that name; a model's name may be quoted or not.

    Raises UsageError, with the nearest name, if there is none.
    """
    head, dot, rest = text.strip().partition(".")
    if head not in CONFIG_KEYS or (dot and head not in KEYS_OF):
        raise _unknown(text, head if head not in CONFIG_KEYS else text)
    key = CONFIG_KEYS[head]
    if not dot:
        return Name((head,), key)
    keys = KEYS_OF[head]
    above: tuple[str, ...] = (head,)
    last: str | None = rest
    if head in NAMED:
        if head == "server":
            inner, dot, rest = rest.partition(".")
            if inner != "keys":
                raise _unknown(text, inner, (head,), {"keys": key})
            if not dot:
                return Name(SERVER_KEYS, keys_of(key.type)["keys"])
        name, last = _named(rest, keys, split_always=head != "prices")
        if not name:
            raise _unknown(text, text)
        above = (*path_of(head), name)
    if last is None:
        item = keys_of(key.type)["keys"].item if head == "server" else key.item
        return Name(above, replace(key, type=item.type))
    if last not in keys:
        raise _unknown(text, last, above, keys)
    return Name((*above, last), keys[last])


def _named(rest: str, keys: dict[str, Key], *, split_always: bool) -> tuple[str, str | None]:
    """The name that the user chose, and the key after it, if there is one.

    Shells remove quotes, and names of models contain dots. So the part after the last dot is a key
    only if such a key exists. (Other names contain no dots: `split_always`.)
    """
    quoted = _QUOTED.fullmatch(rest)
    if quoted:
        return quoted["name"], quoted["last"]
    name, dot, last = rest.rpartition(".")
    return (name, last) if dot and (split_always or last in keys) else (rest, None)


def _unknown(
    text: str, word: str, above: tuple[str, ...] = (), keys: dict[str, Key] | None = None
) -> UsageError:
    message = f"there is no setting `{text}`"
    if _SECRET.search(word):
        hint = (
            "keys are never kept in config.toml: they come from the environment, a .env file,"
            " or the command in providers.NAME.api_key_cmd"
        )
        return UsageError(message, hint=hint)
    known = [*CONFIG_KEYS, *map(dotted, leaves())] if keys is None else list(keys)
    near = nearest(word, known)
    if near:
        meant = dotted((*above, near)) if above else near
        return UsageError(message, hint=f"did you mean `{meant}`?")
    return UsageError(message, hint="`moa config list` lists the settings")

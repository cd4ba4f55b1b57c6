"""Lets the user choose the models of the mixture from the lists of providers, with prices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings

from moa_cli.chat.pick_list import MOST_MATCHES, PickList, steady
from moa_cli.clients.pool import ClientPool
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import price_cell
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.profile import Overrides, Profile
from moa_cli.profile.layering import add_proposer, drop_proposer, override
from moa_cli.terminal.table import Column, cell_len, fitted, padded, spoken_rows, table_lines

_WHERE = "/model"
_NAME_CELLS = 52
# The width of the columns after the name: the context, and two prices.
_FACTS_CELLS = 32
_COLUMNS_FOR_FACTS, _COLUMNS_FOR_KEYS = 56, 74


@dataclass(frozen=True)
class ModelChoice:
    """The changes that the user has chosen. aggregator: None keeps the present one."""

    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    aggregator: str | None = None

    def over(self, profile: Profile) -> Profile:
        """The profile with these models. Raises ProfileError if it would not be valid."""
        # Models are removed last, because a round must not become empty in between.
        for model in self.added:
            profile = add_proposer(profile, model, _WHERE)
        for model in self.dropped:
            profile = drop_proposer(profile, model, _WHERE)
        if self.aggregator is not None:
            profile = override(profile, Overrides(aggregator=self.aggregator), _WHERE)
        return profile


class ModelPicker(PickList[ModelChoice]):
    """The list of models. Proposers and aggregator are marked. The mixture changes only at Enter.

    profile: the mixture so far. lists: the clients, which know the lists of models. typed: the
    words that the list is filtered by at first. source: the input for keys.
    """

    def __init__(self, profile: Profile, lists: ClientPool, typed: str, source: Input) -> None:
        super().__init__("Models: ", source, typed)
        self._lists = lists
        self._profile = profile
        self._before = tuple(dict.fromkeys(proposer.model for proposer in profile.proposers))
        self._proposers = list(self._before)
        self._aggregator = profile.aggregator.model
        self._reading = 0
        self._names: list[str] = []
        self._all: list[str] = []
        self._read_lists()

    async def follow(self) -> None:
        """Read the lists of providers again, and show each one as soon as it has come."""
        waiting = set(self._lists.catalog.read_stale())
        while waiting:
            self._reading = len(waiting)
            self.shown_anew(from_top=False)
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self._read_lists()
        self._reading = 0
        self.shown_anew(from_top=False)

    def _read_lists(self) -> None:
        self._all = model_names(self._profile, self._lists.listed())
        self.narrow(from_top=False)

    def narrow(self, *, from_top: bool = True) -> None:
        marked = self._names[self._place] if self._names and not from_top else None
        self._names = fitting(self._all, self._line.text)[:MOST_MATCHES]
        self._widest = max((cell_len(one_line(name)) for name in self._names), default=0)
        if marked in self._names:
            # The same model stays marked when new rows come in above it.
            self._place = self._names.index(marked)
        self.shown_anew(from_top=from_top)

    def count(self) -> int:
        return len(self._names)

    def row(self, place: int, columns: int) -> tuple[str, str]:
        model = self._names[place]
        has_facts = columns >= _COLUMNS_FOR_FACTS
        width = columns - 3 - (_FACTS_CELLS if has_facts else 0)
        name = padded(model, min(self._widest, _NAME_CELLS, width))
        facts = ""
        if has_facts:
            context, *prices = model_cells(self._lists.known(model))
            facts = f"{context:>10}{prices[0]:>11}{prices[1]:>11}"
        roles = "P" * (model in self._proposers) + "A" * (model == self._aggregator)
        return f"{roles:<3}", f"{name}{facts}"

    def below(self, place: int, columns: int) -> StyleAndTextTuples:
        mixture = f"P proposers: {', '.join(self._proposers) or 'none'} · A: {self._aggregator}"
        if not self._names:
            head = "no listed model matches; `/add NAME` takes any name"
        else:
            head = self._facts(self._names[place], columns)
        count = f"{place + 1}/{len(self._names)}" if self._names else "0"
        if columns < _COLUMNS_FOR_KEYS:
            enter = "Enter" if self._choice() else "Enter A"
            keys = f"{count} · Tab P · Ctrl-A A · {enter} · Esc"
        else:
            enter = "uses these" if self._choice() else "makes it A"
            keys = f"{count} · Tab proposer · Ctrl-A aggregator · Enter {enter} · Esc leaves"
        rows = [steady(head, columns), steady(mixture, columns), fitted(keys, columns)]
        return [("class:dim", "\n".join(rows))]

    def _facts(self, model: str, columns: int) -> str:
        """A line about the lists of models, if some are not read; else about the marked model: the
        facts that have no column."""
        if self._reading:
            return f"reading {plural(self._reading, 'list')} of models…"
        unread = self._lists.catalog.unread()
        if unread:
            return "not read: " + "; ".join(unread.values())
        info = self._lists.known(model)
        told = ["context, and $ per million tokens, in and out"]
        if info.from_table:
            told.append("~ from the table that comes with moa")
        if info.sees:
            told.append("sees images")
        if columns < _COLUMNS_FOR_FACTS:
            # On a narrow screen, the row has no room for these facts.
            context, sent, written = model_cells(info)
            return f"context {context} · ${sent} in, ${written} out"
        return " · ".join(told)

    def _choice(self) -> ModelChoice | None:
        """The changes so far; None if there are none."""
        added = tuple(model for model in self._proposers if model not in self._before)
        dropped = tuple(model for model in self._before if model not in self._proposers)
        changed = self._aggregator != self._profile.aggregator.model
        if not (added or dropped or changed):
            return None
        return ModelChoice(added, dropped, self._aggregator if changed else None)

    def accept(self) -> None:
        choice = self._choice()
        if choice is None and self._names:
            choice = ModelChoice(aggregator=self._names[self._place])
        if choice is not None:
            self.leave(choice)

    def more_keys(self, keys: KeyBindings) -> None:
        keys.add("tab")(lambda event: self._toggle())
        keys.add("c-a")(lambda event: self._appoint())

    def _toggle(self) -> None:
        if not self._names:
            return
        model = self._names[self._place]
        if model in self._proposers:
            self._proposers.remove(model)
        else:
            self._proposers.append(model)

    def _appoint(self) -> None:
        if self._names:
            self._aggregator = self._names[self._place]


def model_names(profile: Profile, listed: Mapping[str, ModelInfo]) -> list[str]:
    """The names of all models: first those of the profile, then those of the providers' lists.

    A name that cannot be typed is left out, because a list may contain any text.
    """
    own = (*(proposer.model for proposer in profile.proposers), *profile.models())
    typable = (name for name in listed if name.isprintable() and " " not in name)
    return list(dict.fromkeys([*own, *typable]))


def fitting(names: Iterable[str], typed: str) -> list[str]:
    """The names that contain all the typed words. Case makes no difference."""
    words = typed.lower().split()
    return [name for name in names if all(word in name.lower() for word in words)]


def model_cells(info: ModelInfo) -> tuple[str, str, str]:
    """The context, the price of prompts and the price of answers, as texts; `?` means unknown."""
    context = "?" if info.context_length is None else f"{info.context_length:,}"
    price = info.price
    return (
        context,
        price_cell(price.prompt if price else None, from_table=info.from_table),
        price_cell(price.completion if price else None, from_table=info.from_table),
    )


def model_table(
    names: Sequence[str], lists: ClientPool, width: int, *, spoken: bool = False
) -> list[str]:
    """The models as a table, for a chat that cannot show a list. spoken: as sentences instead."""
    cells = [model_cells(lists.known(name)) for name in names]
    price = "dollars per million tokens" if spoken else "$/M"
    columns = [
        Column("model", list(names), widest=_NAME_CELLS),
        Column("context", [row[0] for row in cells], right=True),
        Column(f"{price} in", [row[1] for row in cells], right=True),
        Column(f"{price} out", [row[2] for row in cells]),
    ]
    if spoken:
        return spoken_rows(columns[0], columns[1:])
    return table_lines(columns, width)

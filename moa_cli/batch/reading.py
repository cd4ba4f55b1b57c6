"""How input rows become prompts: which fields are used, and how often each prompt is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from moa_cli.bench.data.items import DataRow, Item, read_own
from moa_cli.core.conversation import Message
from moa_cli.core.errors import BenchError, UsageError

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_COMPLETIONS = "/v1/chat/completions"
# Fields in the body of OpenAI's rows about which no warning is needed. `messages` is used. Users
# expect that the profile decides the model. The others do not change an answer.
_BODY = ("messages", "model", "user", "metadata", "store", "safety_identifier")

ReadMessages = Callable[[DataRow, list[object]], list[Message]]


@dataclass(frozen=True)
class InputFormat:
    """How rows become prompts.

    column: the field that holds the prompt, instead of `prompt`. id_field: the field that holds the
    id, instead of `id`. template: text in which each `{NAME}` is replaced by that field of the row;
    `{{` is a brace. samples: how often each prompt is asked. skip_bad: whether rows that cannot be
    asked are left out.
    """

    column: str | None = None
    id_field: str | None = None
    template: str | None = None
    samples: int = 1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.template is not None and not any(
            match.group(1) for match in _FIELD.finditer(self.template)
        ):
            raise UsageError(
                "--prompt: names no field, so that all prompts would be the same",
                hint='for example --prompt "Summarize: {text}"',
            )
        if self.template is not None and self.column is not None:
            raise UsageError("--prompt and --column cannot be used together")

    @property
    def settings(self) -> Mapping[str, Any] | None:
        """The values on which answers depend; None if all are the defaults."""
        values = asdict(replace(self, skip_bad=False))
        del values["skip_bad"]
        return values if self._says else None

    @property
    def _says(self) -> bool:
        return replace(self, skip_bad=False) != InputFormat()

    def check_columns(self, name: str, columns: Sequence[str]) -> None:
        """Raise UsageError, which names the table, if it lacks a needed column."""
        fields = [] if self.template is None else _FIELD.findall(self.template)
        wanted = [field for field in fields if field] or [self.column or "prompt"]
        for column in [*wanted, *([self.id_field] if self.id_field else [])]:
            if column not in columns:
                there = ", ".join(f"`{column}`" for column in columns if column) or "none"
                raise UsageError(
                    f"{name}: is a table without a column `{column}`; there are {there}",
                    hint="--column names the prompt's; --lines takes each line as a prompt",
                )

    def item(self, row: DataRow, read_messages: ReadMessages) -> Item:
        """The prompt of a row. Raises BenchError, naming the line and the field."""
        if is_openai(row.fields):
            return _openai_item(row, read_messages)
        own = self.template is None and self.column is None
        if own and row.fields.keys().isdisjoint(("prompt", "messages")):
            raise BenchError(
                f"{row.place}: `prompt` is missing or is not text",
                hint=f"it has {_names(row)}; --column names the prompt's",
            )
        if own and self.id_field is None:
            return read_own(row, read_messages)
        changed, fields = dict(row.fields), row.fields
        if self.template is not None:
            changed["prompt"] = self._filled(self.template, row)
            fields = {"prompt": changed["prompt"], **fields}
        elif self.column is not None:
            changed["prompt"] = row.text(self.column)
        if self.id_field is not None:
            if row.optional(self.id_field) is None:
                raise BenchError(f"{row.place}: `{self.id_field}` is missing or is no id")
            changed["id"] = row.fields[self.id_field]
            fields = {**fields, "id": changed["id"]}
        item = read_own(DataRow(row.place, row.number, changed), read_messages)
        return replace(item, fields=fields)

    def _filled(self, template: str, row: DataRow) -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name is None:
                return match.group()[0]
            if name not in row.fields:
                raise BenchError(
                    f"{row.place}: --prompt: there is no field `{name}`",
                    hint=f"it has {_names(row)}",
                )
            found = row.fields[name]
            return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

        return _FIELD.sub(value, template)

    def sampled(self, item: Item) -> Iterator[Item]:
        """The item as often as it is asked; each copy has its own id."""
        yield item
        for sample in range(2, self.samples + 1):
            yield replace(item, id=sample_id(item.id, sample))


def _names(row: DataRow) -> str:
    """The fields of a row, for messages."""
    return ", ".join(f"`{name}`" for name in row.fields) or "no fields"


def sample_id(identity: str, sample: int) -> str:
    """The id of a sample of a prompt. Samples count from 1."""
    return identity if sample == 1 else f"{identity}#{sample}"


def is_openai(fields: Mapping[str, Any]) -> bool:
    """Whether a row has the format of OpenAI's batch files."""
    return "custom_id" in fields and isinstance(fields.get("body"), dict)


def unused_fields(fields: Mapping[str, Any]) -> list[str]:
    """The fields in the body of one of OpenAI's rows that have no effect, because the profile
    decides."""
    return [name for name in fields["body"] if name not in _BODY]


def _openai_item(row: DataRow, read_messages: ReadMessages) -> Item:
    url = row.fields.get("url", _COMPLETIONS)
    if url != _COMPLETIONS:
        raise BenchError(f"{row.place}: `url` is not {_COMPLETIONS}")
    if row.optional("custom_id") is None:
        raise BenchError(f"{row.place}: `custom_id` is not text")
    messages = row.fields["body"].get("messages")
    fields = {"id": row.fields["custom_id"], "messages": messages}
    item = read_own(DataRow(row.place, row.number, fields), read_messages)
    return replace(item, fields=row.fields)


PLAIN = InputFormat()

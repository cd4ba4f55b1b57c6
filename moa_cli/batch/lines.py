"""Lines of the output: the result of a prompt, in our own format or in that of OpenAI's batches."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.reading import is_openai, sample_id
from moa_cli.bench.run.journal import CallAnswer, Result, path_seconds
from moa_cli.bench.run.plan import Work
from moa_cli.core.jsonl import usage_to_dict
from moa_cli.core.text import dumps

# The fields that a line of output adds. An input field with the same name is moved under `input`.
OURS = (
    "sample",
    "reply",
    "profile",
    "model",
    "usage",
    "cost",
    "seconds",
    "finish_reason",
    "citations",
    "lost",
    "proposals",
    "error",
    "input",
)
# Of these, OpenAI's lines hold the following under other names.
_OPENAI = ("reply", "model", "usage", "finish_reason", "error")


@dataclass(frozen=True)
class LineWriter:
    """Writes the lines of one batch.

    profile: the name of the profile. proposals: whether lines include the proposals. samples: how
    often each prompt is asked.
    """

    profile: str
    proposals: bool
    samples: int

    def line(self, work: Work, result: Result, journal: IndexedJournal) -> str:
        """The result of a prompt as a line of JSON, without a line end."""
        item, sample = work.item, work.order % self.samples + 1
        outcome = self._outcome(result, journal)
        if self.samples > 1:
            outcome = {"sample": sample, **outcome}
        if is_openai(item.fields):
            return _json_of(_openai_line(item.id, item.fields["custom_id"], outcome))
        fields = {name: value for name, value in item.fields.items() if name != "id"}
        ours = OURS if self.samples > 1 else OURS[1:]
        clashing = {name: fields.pop(name) for name in ours if name in fields}
        identity = item.fields.get("id")
        own = item.id if sample == 1 else item.id.removesuffix(sample_id("", sample))
        if str(identity) != own:
            clashing |= {"id": identity} if "id" in item.fields else {}
            identity = int(own)
        if isinstance(identity, float) and not math.isfinite(identity):
            identity = own
        values: dict[str, Any] = {"id": identity, **fields}
        if clashing:
            values["input"] = clashing
        return _json_of(values | outcome)

    def _outcome(self, result: Result, journal: IndexedJournal) -> dict[str, Any]:
        turn = result.turns[-1] if result.turns else None
        reply = turn.reply if turn else None
        usage = usage_to_dict(journal.usage_of(result.item))
        values: dict[str, Any] = {
            "reply": result.replies[-1] if result.replies else None,
            "profile": self.profile,
            "model": (reply.answered_by or reply.model) if reply else None,
            "usage": usage,
            "cost": usage["cost"],
            "seconds": round(path_seconds(result, journal), 3),
            "finish_reason": reply.finish_reason if reply else None,
        }
        if reply and reply.citations:
            values["citations"] = [asdict(cited) for cited in reply.citations]
        if turn and turn.lost:
            values["lost"] = list(turn.lost)
        if self.proposals and turn:
            values["proposals"] = [list(map(_proposal, layer)) for layer in turn.proposals]
        if result.error is not None:
            values["error"] = asdict(result.error)
        return values


def _json_of(values: Mapping[str, Any]) -> str:
    """The values as a line of JSON without NaN and infinite numbers, which JSON does not have.
    Python's reader takes them, but most others refuse the line."""
    try:
        return dumps(values, allow_nan=False)
    except ValueError:
        return dumps(_finite(values))


def _finite(value: Any) -> Any:
    """The value with None in place of each NaN, and with infinite numbers as texts."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def identity_of(values: Mapping[str, Any], *, sampled: bool = True) -> tuple[str, int, bool]:
    """Three facts on a line of output: the id of its item, the number of its sample, from 1, and
    whether it is an answer.

    sampled: whether prompts are asked several times. If they are not, a field `sample` comes from
    the input and means nothing here.
    Raises ValueError if the line is not one of a batch.
    """
    openai = is_openai_answer(values)
    if not openai and "reply" not in values:
        raise ValueError("no line of this batch")
    ours = values.get("moa", {}) if openai else values
    given = values["custom_id"] if openai else values.get("id")
    answered = values["response"] if openai else values["reply"]
    sample = ours.get("sample", 1) if sampled else 1
    if not isinstance(sample, int):
        sample = 1
    good = answered is not None and values.get("error") is None
    return sample_id(str(given), sample), sample, good


def is_openai_answer(values: Mapping[str, Any]) -> bool:
    """Whether a line of output is in OpenAI's format. Lines of other formats may have the fields
    `custom_id` and `response`, too, because they keep the fields of the user's rows."""
    return "custom_id" in values and "response" in values and "reply" not in values


def _openai_line(name: str, custom_id: object, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """A line in the format of OpenAI's batch output. Values for which that format has no field are
    put under `moa`."""
    number = hashlib.sha256(name.encode()).hexdigest()[:24]
    usage, error = outcome["usage"], outcome.get("error")
    response = None
    if error is None:
        message = {"role": "assistant", "content": outcome["reply"], "refusal": None}
        reason = outcome["finish_reason"]
        tokens = ("prompt_tokens", "completion_tokens", "total_tokens")
        body = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": outcome["model"],
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            ],
            "usage": {field: usage[field] for field in tokens},
        }
        response = {"status_code": 200, "request_id": f"req_{number}", "body": body}
    ours = {field: value for field, value in outcome.items() if field not in _OPENAI}
    told = None if error is None else {"code": error["kind"], "message": error["message"]}
    return {
        "id": f"batch_req_{number}",
        "custom_id": custom_id,
        "response": response,
        "error": told,
        "moa": {**ours, "calls": usage["calls"]},
    }


def _proposal(answer: CallAnswer) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": answer.model,
        "answered_by": answer.answered_by,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": usage_to_dict(answer.usage),
    }
    if answer.citations:
        values["citations"] = [asdict(cited) for cited in answer.citations]
    if answer.unfinished:
        values["unfinished"] = True
    return values if answer.error is None else values | {"error": asdict(answer.error)}

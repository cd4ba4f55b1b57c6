"""Finds the part of a request that an endpoint refuses, for a second try without it.

Programs send fields that only some endpoints know, such as `top_k` or `verbosity`. If the refusal
names one as unknown or unsupported, the request is sent again without it. A field that the meaning
of the request depends on is never left out. A format of the reply is asked for in words then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from moa_cli.clients.error_mapper import takes_no_images, takes_no_system_role, takes_no_tools
from moa_cli.clients.error_reading import read_refusal
from moa_cli.clients.transport import Refused
from moa_cli.core.conversation import Message

# Names for things that are not fields of the body: any system message; a system message that is not
# the first message; images; names of speakers; ids of tool calls that other models have made; a
# last message that is not the user's; a message without text. The last two are the names of fields
# that an endpoint misses at tool calls (see `missed_thoughts`).
SYSTEM, LATER_SYSTEM, IMAGES = "system message", "later system message", "images"
NAMES, CALL_IDS = "names of speakers", "ids of calls"
OTHER_LAST, EMPTY = "last message of another role", "empty message"
THOUGHTS, SIGNATURE = "reasoning_content", "thought_signature"
NO_FIELDS = frozenset(
    (SYSTEM, LATER_SYSTEM, IMAGES, EMPTY, NAMES, CALL_IDS, OTHER_LAST, THOUGHTS, SIGNATURE)
)
# Fields that we send ourselves.
_OWN = ("stream_options", "max_completion_tokens", "max_tokens", "temperature", "top_p", "seed")
_ESSENTIAL = """
    function_call functions grammar guided_choice guided_grammar guided_json guided_regex
    json_schema logprobs messages modalities model n plugins response_format search_parameters
    stream structured_outputs tools top_logprobs web_search_options
"""
# Fields that are never left out, because the answer would lack what they ask for.
ESSENTIAL = frozenset(_ESSENTIAL.split())
# Says that a message must have no name, or not this name: Groq, xAI, and endpoints that give the
# path of the field.
_NO_NAMES = re.compile(
    r"property 'name' is unsupported|only messages? of role .?user.? can have a name"
    r"|messages\W{1,5}\d+\W{1,6}(?:\w+\W{1,6})?name\b"
)
# Says that the id of a call is too long or has forbidden characters: Mistral, OpenAI, Anthropic.
_NO_SUCH_IDS = re.compile(
    r"tool.?call.?id.{0,80}must be|tool_calls\W{1,3}\d+\W{1,4}id\b|tool_use[._]id\b.{0,60}pattern"
    r"|tool_call_id\b.{0,60}(too long|pattern)"
)
# Says that a system message must be the first message: templates of Qwen and others.
_SYSTEM_FIRST = re.compile(
    r"system (message|role|prompt)s? (must|should|can|may)( only)? (be|come|appear|stand)\b.{0,20}"
    r"(beginning|start|first)"
)
# Says that a message, or a part of a message, must have text: Anthropic, Moonshot, Bedrock.
_NO_EMPTY = re.compile(
    r"text content blocks must (be|contain) non-?(empty|whitespace)|must have non-?empty content"
    r"|\brole .{0,15} must not be empty|contentblock.{0,80}is blank"
    r"|\bcontent (cannot|can't|can not|must not|should not) be empty"
)
# Says that the last message must be the user's: Anthropic, Mistral, vLLM, Perplexity.
_USER_LAST = re.compile(
    r"not support assistant message prefill|must end with a user|expected last role user"
    r"|add_generation_prompt|last message (must|should) (be|have|come)\b.{0,30}\buser"
)
# Says that an endpoint does not accept a field, or (Moonshot) accepts only one value of it.
_COMPLAINT = re.compile(
    r"unsupported|not support|n't support|unknown|unrecognized|unexpected|not permitted"
    r"|not allowed|extra|only .{1,20} (is|are) (allowed|supported)"
)
_FORMAT = "response_format"
# How endpoints name the field for the format of the reply, or its content.
_FORMAT_NAMES = re.compile(r"response[ _]?format|json[ _](schema|object|mode)")
# Complaints about one schema or one prompt, not about the model.
_PASSING = re.compile(r"(invalid|bad|malformed) (json )?schema|must contain the word")


def is_missed(field: str, refused: Collection[str]) -> bool:
    """Whether a request without the field lacks something that the user asked for.

    refused: everything that the model does not accept, including this field. The limit of tokens
    has two names, so it is lost only if both are refused. Of the things in NO_FIELDS, only images
    are lost; the others are expressed in another way.
    """
    limits = {"max_tokens", "max_completion_tokens"}
    if field in limits:
        return limits <= set(refused)
    return field == IMAGES or field not in (*NO_FIELDS, "stream_options")


def refused_field(refusal: Refused, body: Mapping[str, Any], extra: Collection[str]) -> str | None:
    """The part to leave out of a request that was refused.

    body: the request's body. extra: the fields that the user or a client has set.

    Returns the name of a field of the body, or one of NO_FIELDS; None if nothing would help.
    """
    text = str(refusal.body).lower()
    messages = body.get("messages", ())
    has_system = any(message["role"] == "system" for message in messages)
    # Some servers answer with 500 if a model's template raises an error.
    by_template = refusal.status in (400, 422, 500)
    if has_system and by_template and takes_no_system_role(text):
        return SYSTEM
    has_later = any(message["role"] == "system" for message in messages[1:])
    if has_later and by_template and _SYSTEM_FIRST.search(text):
        return LATER_SYSTEM
    words = read_refusal(refusal.status, refusal.body).words
    has_images = any(_holds_image(message.get("content")) for message in messages)
    if has_images and takes_no_images(refusal.status, words):
        return IMAGES
    has_names = any("name" in message for message in messages)
    if has_names and refusal.status in (400, 422) and _NO_NAMES.search(text):
        return NAMES
    has_calls = any("tool_calls" in message for message in messages)
    if has_calls and by_template and _NO_SUCH_IDS.search(text):
        return CALL_IDS
    has_empty = any(_is_empty(message) for message in messages)
    if has_empty and by_template and _NO_EMPTY.search(text):
        return EMPTY
    if by_template and _USER_LAST.search(text):
        return OTHER_LAST
    if refusal.status not in (400, 422) or not _COMPLAINT.search(text) or takes_no_tools(words):
        return None
    own = next((name for name in _OWN if name in body and name in text), None)
    if own is not None:
        return own
    optional = [name for name in extra if name in body and _is_optional(name, body[name])]
    told = list(_told_names(refusal.body))
    if told:
        return next((name for name in optional if name.lower() in told), None)
    return next((name for name in optional if _names(text, name.lower())), None)


def _is_empty(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return any(part.get("type") == "text" and not part["text"].strip() for part in content)
    return isinstance(content, str) and not content.strip()


def _holds_image(content: object) -> bool:
    parts = content if isinstance(content, list) else []
    return any(part.get("type") == "image_url" for part in parts)


def _is_optional(name: str, value: object) -> bool:
    # The value "auto" is the default of endpoints, so it can be left out.
    return value == "auto" if name == "tool_choice" else name not in ESSENTIAL


def _told_names(body: object) -> Iterator[str]:
    """The names of fields, in lower case, in the structured parts of a refusal: OpenAI's `param`,
    pydantic's `loc`."""
    if not isinstance(body, Mapping):
        return
    error = body.get("error")
    for holder in (body, error if isinstance(error, Mapping) else {}):
        param = holder.get("param")
        if isinstance(param, str) and param:
            yield re.split(r"[.\[]", param)[0].lower()
        details = holder.get("detail")
        for detail in details if isinstance(details, list) else ():
            loc = detail.get("loc") if isinstance(detail, Mapping) else None
            places = loc if isinstance(loc, list | tuple) else ()
            names = [name for name in places if isinstance(name, str)]
            if names[:1] == ["body"]:
                del names[0]
            if names:
                yield names[0].lower()


def _names(text: str, name: str) -> bool:
    """Whether a text contains the name of a field; both in lower case."""
    # Some endpoints write it without underscores: presencePenalty.
    spelt = f"(?:{re.escape(name)}|{re.escape(name.replace('_', ''))})"
    if "_" in name:
        return re.search(rf"(?<![\w.-]){spelt}(?![\w-])", text) is not None
    # A name that is an everyday word must stand where only a field's name can stand.
    where = (
        rf"['\"`]{spelt}['\"`]|\b{spelt}: (?:extra|unknown|unexpected|unsupported|not)"
        rf"|(?:param(?:eter)?|argument|field|property|name|supplied|input|model)s?:? {spelt}\b"
    )
    return re.search(where, text) is not None


def format_asked(body: Mapping[str, Any]) -> str | None:
    """The requested format of the reply, as a name for the set of things that a model refuses; None
    if the body requests none. The name includes the kind of JSON, because some models accept only
    one kind."""
    found = body.get(_FORMAT)
    return f"{_FORMAT} {found.get('type')}" if isinstance(found, dict) else None


def refused_format(refusal: Refused, body: Mapping[str, Any]) -> str | None:
    """The format that `body` requests, if the refusal is about it, else None."""
    if refusal.status not in (400, 422) or not _FORMAT_NAMES.search(str(refusal.body).lower()):
        return None
    return format_asked(body)


def is_lasting(refusal: Refused) -> bool:
    """Whether the refusal of a format applies to all requests to the model."""
    return not _PASSING.search(str(refusal.body).lower())


def in_words(
    messages: Sequence[Message], body: Mapping[str, Any]
) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The messages with a further one that asks for the format, and the body without the field."""
    wanted = body[_FORMAT]
    told = "Answer with JSON alone: no words and no Markdown around it."
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if schema is None:
        told += " It has to be one object."
    else:
        told += f" It has to be valid by this JSON Schema:\n{json.dumps(schema)}"
    rest = {name: value for name, value in body.items() if name != _FORMAT}
    return (*messages, Message("system", told)), rest

"""What an endpoint does not take is left out where that is safe, learned, and else told.

The sentences are those of providers and servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Message, Part
from moa_cli.core.endpoints import ModelInfo, Request
from moa_cli.core.errors import ClientError, RequestRefused, ToolsUnsupported
from tests.support.tool_calls import TOOLS
from tests.support.upstream import Reply, Upstream

HELLO = (Message("user", "hello"),)
OPTIONAL: dict[str, Any] = {
    "top_k": 40,
    "min_p": 0.1,
    "logit_bias": {"1": 5},
    "verbosity": "low",
    "parallel_tool_calls": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "thinking": {"type": "enabled"},
    "reasoning_effort": "low",
    "presence_penalty": 0.5,
    "stop": ["x"],
    "user": "bob",
    "tool_choice": "auto",
}


def asked(
    up: Upstream, *requests: Request, model: str = "m"
) -> tuple[list[ClientError | None], ModelInfo]:
    """What becomes of these requests, one after the other, and what is known of the model then."""
    settings = ProviderSettings(base_url=up.url, api_key_env="LAB_API_KEY")

    async def run() -> tuple[list[ClientError | None], ModelInfo]:
        clients = ClientPool(Config(providers={"lab": settings}), {"LAB_API_KEY": "k"})
        found: list[ClientError | None] = []
        try:
            for request in requests:
                try:
                    async for _ in clients.endpoint(f"lab:{model}").client.stream(request):
                        pass
                    found.append(None)
                except ClientError as error:
                    found.append(error)
            return found, clients.known(f"lab:{model}")
        finally:
            await clients.aclose()

    return asyncio.run(run())


def request(extra: dict[str, Any] | None = None, messages: Sequence[Message] = HELLO) -> Request:
    return Request(model="m", messages=tuple(messages), extra=extra or {})


def refusing(message: str, status: int = 400, **more: object) -> Reply:
    return Reply(status=status, error={"error": {"message": message, **more}})


SENTENCES = [
    ("top_k", "Unrecognized request argument supplied: top_k"),
    ("top_k", "Unknown parameter: 'top_k'."),
    ("top_k", "top_k: Extra inputs are not permitted"),
    ("min_p", 'Invalid JSON payload received. Unknown name "min_p": Cannot find field.'),
    ("min_p", "property 'min_p' is unsupported"),
    ("logit_bias", "Unsupported parameter: 'logit_bias' is not supported with this model."),
    ("verbosity", "Unsupported value: 'verbosity' does not support 'low' with this model."),
    ("verbosity", "unknown field `verbosity`"),
    ("parallel_tool_calls", "Unsupported parameter: 'parallel_tool_calls' is not supported."),
    ("chat_template_kwargs", "Extra inputs are not permitted, field: 'chat_template_kwargs'"),
    ("thinking", "thinking: Extra inputs are not permitted"),
    ("presence_penalty", "Argument not supported on this model: presencePenalty"),
    ("stop", "Model grok-9 does not support parameter stop."),
    ("stop", "Argument not supported on this model: stop"),
    ("user", "property 'user' is unsupported"),
    ("reasoning_effort", "Function tools with reasoning_effort are not supported for gpt-9."),
    ("tool_choice", "deepseek-reasoner does not support this tool_choice"),
]


@pytest.mark.parametrize(("field", "sentence"), SENTENCES)
def test_an_optional_field_is_left_out_at_once_and_from_then_on(
    upstream: Upstream, field: str, sentence: str
) -> None:
    upstream.enqueue("m", refusing(sentence))
    full = request(OPTIONAL)
    assert asked(upstream, full, full)[0] == [None, None]
    first, *others = (chat.body for chat in upstream.chats())
    assert first.keys() >= OPTIONAL.keys()
    for body in others:
        assert body == {name: value for name, value in first.items() if name != field}
    assert len(others) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs"}]},
        {"error": {"message": "Unsupported parameter.", "param": "top_k"}},
        {"object": "error", "message": "[{'loc': ('body', 'top_k'), 'msg': 'Extra inputs'}]"},
    ],
)
def test_a_field_may_be_named_in_a_place_of_its_own(upstream: Upstream, body: object) -> None:
    upstream.enqueue("m", Reply(status=422, error=body))
    assert asked(upstream, request(OPTIONAL))[0] == [None]
    assert upstream.chats()[1].body.keys() == upstream.chats()[0].body.keys() - {"top_k"}


def test_several_fields_are_left_out_one_after_the_other(upstream: Upstream) -> None:
    for name in OPTIONAL:
        upstream.enqueue("m", refusing(f"Unknown parameter: '{name}'."))
    assert asked(upstream, request(OPTIONAL))[0] == [None]
    assert not OPTIONAL.keys() & upstream.chats()[-1].body.keys()
    assert len(upstream.chats()) == 1 + len(OPTIONAL)


FORMAT = {"type": "json_object"}


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"guided_json": FORMAT}, "Unknown parameter: 'guided_json'."),
        ({"tools": TOOLS}, "tools.0.function.strict: Extra inputs are not permitted"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice 'required' is not supported"),
        ({"logprobs": True, "top_logprobs": 3}, "Unsupported parameter: 'top_logprobs'."),
        # It names no field of its own, but speaks of users and of stops.
        ({"user": "bob"}, "the user is unknown, and not allowed"),
        ({"stop": ["x"]}, "not supported: the stream did stop"),
        ({"top_k": 1}, "messages.0.top_k_list is unknown"),
        ({"top_k": 1}, "top_k must be at least 2"),
    ],
)
def test_what_changes_the_meaning_is_never_left_out(
    upstream: Upstream, extra: dict[str, Any], sentence: str
) -> None:
    upstream.always("m", refusing(sentence))
    [error], _ = asked(upstream, request(extra))
    assert type(error) is RequestRefused
    assert sentence in error.message
    assert len(upstream.chats()) == 1


def test_a_place_of_its_own_decides_and_not_a_word_beside_it(upstream: Upstream) -> None:
    upstream.always("m", refusing("Unsupported with 'top_k'.", param="messages[0].content"))
    [error], _ = asked(upstream, request({"top_k": 1}))
    assert type(error) is RequestRefused
    assert len(upstream.chats()) == 1


def test_calls_at_the_same_time_all_learn(upstream: Upstream) -> None:
    def taken(chat: Any) -> bool:
        return not {"top_k", "min_p"} & chat.body.keys()

    settings = ProviderSettings(base_url=upstream.url, api_key_env="LAB_API_KEY")
    for name in ("top_k", "top_k", "top_k", "min_p", "min_p", "min_p"):
        upstream.enqueue("m", refusing(f"Unknown parameter: '{name}'."))

    async def run() -> None:
        clients = ClientPool(Config(providers={"lab": settings}), {"LAB_API_KEY": "k"})

        async def one_call() -> None:
            async for _ in clients.endpoint("lab:m").client.stream(
                request({"top_k": 1, "min_p": 0.1})
            ):
                pass

        try:
            await asyncio.gather(*(one_call() for _ in range(3)))
        finally:
            await clients.aclose()

    asyncio.run(run())
    assert len(list(filter(taken, upstream.chats()))) == 3


# --- models that call no tools

CANNOT = [
    (400, "registry.ollama.ai/library/gemma:2b does not support tools"),
    (404, "No endpoints found that support tool use. To learn more, visit https://x"),
    (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (400, "Function calling is not enabled for models/gemma-3-27b-it"),
    (400, "Unsupported parameter: 'tools' is not supported with this model."),
    (400, "`tool calling` is not supported with this model"),
    (400, "This model doesn't support tool use."),
    (400, "This model doesn't support tool use in streaming mode."),
    (400, "deepseek-reasoner does not support Function Calling"),
    (500, "tools param requires --jinja flag"),
    (400, "Tool calling is not supported for model sonar"),
    (400, "tools is not supported in this model. For a list, see https://x/function-calling#m"),
    (422, "tools: Extra inputs are not permitted"),
    (400, "Unrecognized request argument supplied: tools"),
    (400, "property 'tools' is unsupported"),
    (400, "No connected provider supports tool calling for this model."),
    (400, "tools are not supported by the provided model"),
    (400, 'unknown field "tools"'),
    (400, "Unexpected role 'tool' in messages"),
]


@pytest.mark.parametrize(("status", "sentence"), CANNOT)
def test_a_model_that_calls_no_tools_is_said_to_and_remembered(
    upstream: Upstream, status: int, sentence: str
) -> None:
    upstream.always("m", refusing(sentence, status))
    [error], info = asked(upstream, request({"tools": TOOLS, "tool_choice": "auto", "top_k": 1}))
    assert type(error) is ToolsUnsupported
    assert sentence in error.message
    assert "m cannot call tools" in error.message
    assert error.hint == ToolsUnsupported.advice
    assert not error.retryable
    assert info.tools is False
    # Nothing was left out to have it taken.
    assert len(upstream.chats()) == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "tool_choice 'required' is not supported",
        "tools.0.custom.input_schema: Extra inputs are not permitted",
        "tools[0].type: 'web_search' is not supported",
        "This model does not support parallel tool calls",
        "Invalid schema for function 'read': 'format' is not supported",
        "An assistant message with 'tool_calls' must be followed by tool messages",
    ],
)
def test_a_model_that_takes_other_tools_is_not_said_to_take_none(
    upstream: Upstream, sentence: str
) -> None:
    upstream.always("m", refusing(sentence))
    [error], info = asked(upstream, request({"tools": TOOLS, "tool_choice": "required"}))
    assert type(error) is RequestRefused
    assert info.tools is None


# --- models that see no images

IMAGE = Message.of_parts(
    "user", [Part("text", "What is it?"), Part("image", url="https://x/a.png")]
)
BLIND = [
    (400, "This model does not support image inputs"),
    (404, "No endpoints found that support image input"),
    (422, "messages[0]: unknown variant `image_url`, expected `text`"),
    (400, "/models/x is not a multimodal model"),
    (400, "At most 0 image(s) may be provided in one request."),
    (500, "image input is not supported - hint: you may need to provide the mmproj"),
    (400, "Image input is not enabled for this model"),
    (400, "messages[0].content must be a string"),
    (400, "Invalid content type. image_url is only supported by certain models."),
]


@pytest.mark.parametrize(("status", "sentence"), BLIND)
def test_a_model_that_sees_no_images_is_asked_again_without(
    upstream: Upstream, status: int, sentence: str
) -> None:
    upstream.enqueue("m", refusing(sentence, status))
    found, info = asked(upstream, request(messages=[IMAGE]), request(messages=[IMAGE]))
    assert found == [None, None]
    first, *others = (chat.messages for chat in upstream.chats())
    assert [part["type"] for part in first[0]["content"]] == ["text", "image_url"]
    assert others == [[{"role": "user", "content": "What is it?\n[image]"}]] * 2
    assert info.sees is False


@pytest.mark.parametrize("sentence", ["the image format webp is not supported", "image too large"])
def test_an_image_that_is_refused_for_itself_is_an_error(upstream: Upstream, sentence: str) -> None:
    upstream.always("m", refusing(sentence))
    [error], info = asked(upstream, request(messages=[IMAGE]))
    assert type(error) is RequestRefused
    assert info.sees is None

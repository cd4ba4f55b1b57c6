"""How requests reach each provider: address, key, headers, query, and what its quirks change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, to_config
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.core.errors import AuthenticationFailed, ModelNotFound, ProfileError, RequestRefused
from moa_cli.core.quirks import MEANINGS, Quirk
from moa_cli.models.providers import Providers
from moa_cli.models.table import BUILT_IN
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream
from tests.support.upstream import Request as Sent

KEY = "sk-a-secret-key-0123456789"
either_use = pytest.mark.parametrize("many_calls", [False, True], ids=["one user", "many calls"])


def settings(**provider: Any) -> Config:
    """The settings with these for the provider `lab`."""
    return to_config({"providers": {"lab": provider}}, "config.toml")


def call(
    name: str,
    config: Config,
    environment: Mapping[str, str],
    many_calls: bool = False,
) -> None:
    """One call of that model, and one look at its provider's list."""

    async def run() -> None:
        pool = ClientPool(config, environment, many_calls=many_calls)
        try:
            endpoint = pool.endpoint(name)
            request = Request(
                model=endpoint.model,
                messages=(Message("system", "be brief"), Message("user", "hi")),
                temperature=0.5,
                max_tokens=5,
                seed=3,
            )
            # The server knows no path of another interface; what was sent is seen all the same.
            with suppress(ModelNotFound, RequestRefused):
                async for _ in endpoint.client.stream(request):
                    pass
            with suppress(RequestRefused):
                await endpoint.client.models()
        finally:
            await pool.aclose()

    asyncio.run(run())


def sent(
    name: str, config: Config, environment: Mapping[str, str], many_calls: bool = False
) -> tuple[Sent, Sent]:
    """The call and the request for the list, as a server on this machine got them.

    `URL` in the environment's values stands for its address.
    """
    with Upstream(models=["m"]) as up:
        up.always("*", Reply(text="hello"))
        host = up.url.removesuffix("/v1")
        told = {
            variable: text.replace("URL", up.url).replace("HOST", host)
            for variable, text in environment.items()
        }
        lab = config.providers.get("lab")
        if lab is not None:
            told |= {"LAB_URL": up.url}
            config = to_config(
                {"providers": {"lab": {**_table(lab), "base_url": up.url}}}, "config.toml"
            )
        call(name, config, told, many_calls)
        return up.requests[0], up.requests[-1]


def _table(lab: Any) -> dict[str, Any]:
    given = {key: value for key, value in vars(lab).items() if value is not None}
    return {key: list(value) if key == "quirks" else value for key, value in given.items()}


PAID = [provider for provider in BUILT_IN.values() if provider.needs_key]


@pytest.mark.parametrize("provider", PAID, ids=lambda provider: provider.name)
def test_every_provider_is_sent_its_own_key_in_its_own_way(provider: Any) -> None:
    for variable in provider.key_variables:
        environment = {variable: KEY, f"{provider.name.upper()}_BASE_URL": "URL"}
        chat, listed = sent(f"{provider.name}:m", Config(), environment)
        assert (chat.path, listed.path) == ("/v1/chat/completions", "/v1/models")
        ways = {
            "bearer": ({"authorization": f"Bearer {KEY}"},) * 2,
            "api-key": ({"api-key": KEY},) * 2,
            "anthropic": (
                {"authorization": f"Bearer {KEY}"},
                {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
            ),
        }
        names = ("authorization", "api-key", "x-api-key", "anthropic-version")
        for request, way in zip((chat, listed), ways[provider.auth], strict=True):
            told = {name: request.headers[name] for name in names if name in request.headers}
            assert told == way


@either_use
def test_another_way_of_sending_the_key_leaves_the_usual_one_out(many_calls: bool) -> None:
    environment = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "HOST"}
    chat, _ = sent("azure:m", Config(), environment, many_calls)
    assert chat.headers["api-key"] == KEY
    assert "authorization" not in chat.headers
    assert chat.path == "/openai/v1/chat/completions"
    _, listed = sent(
        "anthropic:m", Config(), {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "URL"}, many_calls
    )
    assert listed.headers["x-api-key"] == KEY
    assert "authorization" not in listed.headers


def test_a_dated_version_of_azure_names_the_deployment_in_the_address() -> None:
    environment = {
        "AZURE_OPENAI_API_KEY": KEY,
        "AZURE_OPENAI_ENDPOINT": "HOST/",
        "OPENAI_API_VERSION": "2024-10-21",
    }
    chat, listed = sent("azure:my gpt", Config(), environment)
    assert chat.path == "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"
    assert listed.path == "/openai/models?api-version=2024-10-21"


def test_azure_without_an_address_says_where_to_put_one() -> None:
    with pytest.raises(ProfileError, match="the address of azure is not known") as raised:
        ClientPool(Config(), {"AZURE_OPENAI_API_KEY": KEY}).endpoint("azure:gpt")
    assert "AZURE_OPENAI_ENDPOINT" in str(raised.value.hint)


@either_use
def test_headers_and_query_of_the_users_own_are_sent_with_every_request(many_calls: bool) -> None:
    lab = settings(
        base_url="http://x/v1",
        headers={"X-Team": "blue", "X-Token": "t-${SECRET_PART}"},
        query={"api-version": "2024-10-21", "a b": "c&d"},
    )
    for request in sent("lab:m", lab, {"SECRET_PART": "s3cr3tpart"}, many_calls):
        assert request.headers["x-team"] == "blue"
        assert request.headers["x-token"] == "t-s3cr3tpart"
        assert request.path.endswith("?api-version=2024-10-21&a+b=c%26d")
        assert request.route in ("/chat/completions", "/models")


@either_use
def test_a_header_of_the_users_own_takes_the_place_of_ours_whatever_its_case(
    many_calls: bool,
) -> None:
    lab = settings(
        base_url="http://x/v1",
        api_key_env="LAB_KEY",
        headers={"authorization": "Token abc-def-ghi", "user-agent": "mine"},
    )
    for request in sent("lab:m", lab, {"LAB_KEY": KEY}, many_calls):
        assert request.headers["authorization"] == "Token abc-def-ghi"
        assert request.headers["user-agent"] == "mine"


def test_the_query_of_an_address_is_sent_too() -> None:
    with Upstream(models=["m"]) as up:
        up.always("*", Reply(text="hello"))
        config = settings(base_url=f"{up.url}?api-version=1&x=y", query={"x": "z"})
        call("lab:m", config, {})
        assert {request.path.partition("?")[2] for request in up.requests} == {"api-version=1&x=z"}


def test_a_variable_of_a_header_that_is_not_set_is_named() -> None:
    lab = settings(base_url="http://x/v1", headers={"X-Token": "${NOWHERE}"})
    with pytest.raises(AuthenticationFailed) as raised:
        sent("lab:m", lab, {})
    assert "`providers.lab.headers.X-Token` needs the variable NOWHERE" in raised.value.message


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "ä", "a\x00"])
def test_the_value_of_a_variable_cannot_add_a_header(value: str) -> None:
    lab = settings(base_url="http://x/v1", headers={"X-Token": "x${PART}"})
    with pytest.raises(AuthenticationFailed, match="line ends"):
        sent("lab:m", lab, {"PART": value})


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"headers": {"X-Token": "sk-secret\r\nX-Other: b"}}, "headers.X-Token"),
        ({"headers": {"X Token": "sk-secret"}}, "headers.X Token"),
        ({"headers": {"X-Token:": "sk-secret"}}, "headers.X-Token:"),
        ({"headers": {"Host": "sk-secret"}}, "headers.Host"),
        ({"headers": {"content-length": "3"}}, "headers.content-length"),
        ({"headers": {"X-Token": ""}}, "headers.X-Token"),
        ({"headers": {"X-Token": "sk-sécret"}}, "headers.X-Token"),
        ({"headers": {"X-Token": ["sk-secret"]}}, "headers.X-Token"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"headers": "Bearer sk-secret"}, "headers"),
        ({"query": {"key": "sk-secret\n"}}, "query.key"),
        ({"query": {"": "x"}}, "query"),
        ({"query": "sk-secret"}, "query"),
        ({"quirks": ["no_sede"]}, "quirks"),
        ({"quirks": "no_seed"}, "quirks"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_place_and_not_repeated(
    table: dict[str, Any], path: str
) -> None:
    with pytest.raises(ProfileError) as raised:
        settings(base_url="http://x/v1", **table)
    assert f"`providers.lab.{path}" in raised.value.message
    assert "secret" not in raised.value.message


QUIRKY: dict[str, Any] = {
    "max_completion_tokens": lambda body: body.get("max_completion_tokens") == 5,
    "no_stream_options": lambda body: "stream_options" not in body,
    "no_temperature": lambda body: "temperature" not in body,
    "no_seed": lambda body: "seed" not in body,
    "random_seed": lambda body: "seed" not in body and body["random_seed"] == 3,
    "no_system_role": lambda body: (
        body["messages"] == [{"role": "user", "content": "be brief\n\nhi"}]
    ),
}


@pytest.mark.parametrize("quirk", QUIRKY)
def test_a_quirk_changes_what_is_sent(quirk: str) -> None:
    plain, _ = sent("lab:m", settings(base_url="http://x/v1"), {})
    assert not QUIRKY[quirk]({"messages": [], **plain.body, "random_seed": None})
    changed, _ = sent("lab:m", settings(base_url="http://x/v1", quirks=[quirk]), {})
    assert QUIRKY[quirk](changed.body)


def test_every_quirk_has_a_meaning() -> None:
    assert set(MEANINGS) == set(get_args(Quirk))


def test_quirks_of_the_users_own_take_the_place_of_the_built_in_ones() -> None:
    config = to_config({"providers": {"openai": {"quirks": []}}}, "config.toml")
    chat, _ = sent("openai:m", config, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "URL"})
    assert chat.body["max_tokens"] == 5


@pytest.mark.parametrize("name", [name for name in BUILT_IN if BUILT_IN[name].vendor])
def test_a_vendor_before_a_slash_is_no_provider(name: str) -> None:
    provider, model = Providers(Config(), {}).parse(f"{name}/some-model")
    assert (provider.name, model) == ("together", f"{name}/some-model")


def test_a_server_of_ones_own_under_a_name_that_is_now_built_in_needs_no_key() -> None:
    table = {"providers": {"mistral": {"base_url": "http://gpu-box:8000/v1"}}}
    known = Providers(to_config(table, "config.toml"), {})
    assert known.key(known.known["mistral"]) == "none"
    same = {"providers": {"mistral": {"base_url": "https://eu.mistral.ai/v1"}}}
    known = Providers(to_config(same, "config.toml"), {})
    with pytest.raises(AuthenticationFailed):
        known.key(known.known["mistral"])


def test_servers_of_this_machine_take_a_key_if_there_is_one() -> None:
    chat, _ = sent("vllm:m", Config(), {"VLLM_BASE_URL": "URL"})
    assert chat.headers["authorization"] == "Bearer none"
    chat, _ = sent("vllm:m", Config(), {"VLLM_BASE_URL": "URL", "VLLM_API_KEY": KEY})
    assert chat.headers["authorization"] == f"Bearer {KEY}"


def test_headers_are_shown_nowhere(moa: Moa, upstream: Upstream, tmp_path: Path) -> None:
    secret = "s3cr3t-header-value"
    lab = {
        "base_url": upstream.url,
        "api_key_env": "LAB_KEY",
        "headers": {"X-Gate": secret, "X-Ref": "${REFERRED}"},
        "query": {"sig": "s1gn4tur3-of-mine", "api-version": "2024-10-21"},
    }
    moa.configure(providers={"lab": lab})
    log = tmp_path / "log"
    environment = {"REFERRED": "r3f3rr3d-value", "MOA_LOG": str(log)}
    upstream.always(
        "a", Reply(status=400, error={"error": {"message": f"no {secret} and r3f3rr3d-value"}})
    )
    asked = moa.run("ask", "--usage", "hi", env=environment)
    listed = moa.run("config", "list", env=environment)
    shown = moa.run("config", "get", "providers.lab.headers", env=environment)
    doctor = moa.run("doctor", env=environment)
    assert shown.text == '{ X-Gate = "***", X-Ref = "${REFERRED}" }\n'
    assert "2024-10-21" in listed.text
    everything = [asked.text, asked.err, listed.text, doctor.text, log.read_text()]
    for text in everything:
        assert secret not in text
        assert "r3f3rr3d" not in text
        assert "s1gn4tur3" not in text
    assert upstream.chats()[0].headers["x-gate"] == secret


@pytest.mark.parametrize("user", ["me:hidden-w0rd", "hidden-w0rd"], ids=["password", "token"])
def test_what_the_address_holds_is_not_shown_where_an_endpoint_sends_it_back(
    moa: Moa, upstream: Upstream, user: str
) -> None:
    address = upstream.url.replace("://", f"://{user}@")
    address += "?token=t0ken-of%2Fmine&api-version=2024-10-21"
    moa.configure(providers={"lab": {"base_url": address, "api_key_env": "LAB_KEY"}})

    def echo(request: Sent) -> Reply:
        basic = request.headers["authorization"].removeprefix("Basic ")
        said = f"<{basic}> for <{user}>, <hidden-w0rd> at {request.path}, t0ken-of/mine"
        return Reply(status=401, error={"error": {"message": said}})

    upstream.always("a", echo)
    ran = moa.run("ask", "-m", "lab:a", "--rounds", "0", "--aggregator", "lab:a", "hi")
    basic = upstream.chats()[0].headers["authorization"].removeprefix("Basic ")
    shown = ran.err + moa.run("history", "show", "--json").text
    for secret in (basic, "hidden-w0rd", "t0ken-of"):
        assert secret not in shown
    assert "api-version=2024-10-21" in shown

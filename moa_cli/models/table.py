"""The table of the providers that `moa` knows.

An entry has everything that is special about a provider, so that no other code needs the name of a
provider. Addresses, variables and header styles are from the providers' own documentation. Quirks
are listed only if every model of the provider has them. The client learns at run time which fields
a single model refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moa_cli.core.quirks import Quirk

# The provider of a model name that names none, and what those are told who did not know that.
DEFAULT_PROVIDER = "together"
OF_ANOTHER = "; a model of another provider is written with its name, as in `openai:gpt-4.1`"

# How a key is sent. bearer: `Authorization: Bearer`. api-key: the header `api-key` (Azure).
# anthropic: `Authorization: Bearer` for chat completions, `x-api-key` for the list of models.
AuthStyle = Literal["bearer", "api-key", "anthropic"]
# The names and values of headers, or of parameters of a query.
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An OpenAI-compatible endpoint.

    name: the part of a model name before the colon. base_url: None for the embedded model, "" if
    only the user knows it. key_variable, other_key_variables: the environment variables that may
    have its key. key_command: a command that prints its key. key_optional: whether it also answers
    without a key. auth: how the key is sent. headers, query: the user's additions to every request;
    `${NAME}` means the value of a variable. quirks: how it differs from OpenAI's API. models_path:
    the path of its list of models below the base URL. address_variable: an environment variable for
    its address, besides `NAME_BASE_URL`. default_path: it is added to an address without a path.
    price_table: its name in the table of prices that comes with `moa`. start_hint: how the user can
    start it, if it is a server on this machine. concurrency, rpm: how many calls at once and how
    many requests in a minute the user allows. web: the request fields that let a model search the
    web, as JSON values; empty if its models search by themselves, None if no such fields are known.
    batch_price: the price of its batch interface as a share of the normal price; None if it has no
    such interface. vendor: whether ids of the default provider's models may begin with its name and
    a slash.
    """

    name: str
    base_url: str | None
    key_variable: str | None = None
    other_key_variables: tuple[str, ...] = ()
    key_command: str | None = None
    key_optional: bool = False
    auth: AuthStyle = "bearer"
    headers: Pairs = field(default=(), repr=False)
    query: Pairs = field(default=(), repr=False)
    quirks: frozenset[Quirk] = frozenset()
    models_path: str = "/models"
    address_variable: str | None = None
    default_path: str = "/v1"
    price_table: str | None = None
    start_hint: str | None = None
    concurrency: int | None = None
    rpm: int | None = None
    web: Mapping[str, Any] | None = field(default=None, hash=False)
    batch_price: float | None = None
    vendor: bool = False

    @property
    def takes_key(self) -> bool:
        """Whether it can be called with a key."""
        return self.key_variable is not None or self.key_command is not None

    @property
    def needs_key(self) -> bool:
        """Whether it answers only with a key."""
        return self.takes_key and not self.key_optional

    @property
    def key_variables(self) -> tuple[str, ...]:
        """The environment variables that may hold its key, in the order of their precedence."""
        return tuple(filter(None, (self.key_variable, *self.other_key_variables)))

    @property
    def file_name(self) -> str:
        """The name of the file that caches its list of models at this address.

        The name has a hash of the address, which may contain a password.
        """
        mark = hashlib.sha256((self.base_url or "").encode()).hexdigest()[:12]
        return f"{self.name}-{mark}.json"


def name_at(provider: str, model: str) -> str:
    """The model name for a model id at a provider."""
    return model if provider == DEFAULT_PROVIDER else f"{provider}:{model}"


_ALL = (
    Provider(
        name=DEFAULT_PROVIDER,
        base_url="https://api.together.xyz/v1",
        key_variable="TOGETHER_API_KEY",
        price_table="together",
        batch_price=0.5,
        vendor=True,
    ),
    Provider(
        name="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        quirks=frozenset({"max_completion_tokens"}),
        price_table="openai",
        batch_price=0.5,
        # Only models that search accept this field, such as gpt-5-search-api; the others refuse it.
        web={"web_search_options": {}},
        vendor=True,
    ),
    Provider(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        price_table="openrouter",
        web={"tools": [{"type": "openrouter:web_search"}]},
    ),
    Provider(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        price_table="groq",
        batch_price=0.5,
    ),
    Provider(
        name="anthropic",
        base_url="https://api.anthropic.com/v1",
        key_variable="ANTHROPIC_API_KEY",
        auth="anthropic",
        price_table="anthropic",
        vendor=True,
    ),
    Provider(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
        other_key_variables=("GOOGLE_API_KEY",),
        price_table="google",
        vendor=True,
    ),
    Provider(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        # Its streams always end with the usage.
        quirks=frozenset({"no_stream_options", "random_seed"}),
        price_table="mistral",
        vendor=True,
    ),
    Provider(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        price_table="deepseek",
        vendor=True,
    ),
    Provider(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        price_table="x-ai",
        vendor=True,
    ),
    Provider(
        name="perplexity",
        base_url="https://api.perplexity.ai",
        key_variable="PERPLEXITY_API_KEY",
        other_key_variables=("PPLX_API_KEY",),
        models_path="/v1/models",
        price_table="perplexity",
        web={},
        vendor=True,
    ),
    Provider(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variable="CEREBRAS_API_KEY",
        quirks=frozenset({"max_completion_tokens"}),
        price_table="cerebras",
        vendor=True,
    ),
    Provider(
        name="fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        key_variable="FIREWORKS_API_KEY",
        price_table="fireworks",
        vendor=True,
    ),
    Provider(
        name="deepinfra",
        base_url="https://api.deepinfra.com/v1/openai",
        key_variable="DEEPINFRA_API_KEY",
        other_key_variables=("DEEPINFRA_API_TOKEN", "DEEPINFRA_TOKEN"),
        vendor=True,
    ),
    Provider(
        name="moonshot",
        base_url="https://api.moonshot.ai/v1",
        key_variable="MOONSHOT_API_KEY",
        other_key_variables=("KIMI_API_KEY",),
        price_table="moonshotai",
        vendor=True,
    ),
    Provider(
        name="zai",
        base_url="https://api.z.ai/api/paas/v4",
        key_variable="ZAI_API_KEY",
        other_key_variables=("Z_AI_API_KEY",),
        price_table="zai",
        web={"tools": [{"type": "web_search", "web_search": {"enable": True}}]},
        vendor=True,
    ),
    Provider(
        name="huggingface",
        base_url="https://router.huggingface.co/v1",
        key_variable="HF_TOKEN",
        other_key_variables=("HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_API_KEY"),
        price_table="huggingface",
        vendor=True,
    ),
    Provider(
        name="azure",
        base_url="",
        key_variable="AZURE_OPENAI_API_KEY",
        other_key_variables=("AZURE_API_KEY",),
        auth="api-key",
        # The user chooses the name of a deployment, while the list has the models of the region.
        quirks=frozenset({"max_completion_tokens", "unlisted_names"}),
        address_variable="AZURE_OPENAI_ENDPOINT",
        default_path="/openai/v1",
        price_table="azure",
        vendor=True,
    ),
    Provider(
        name="ollama",
        base_url="http://127.0.0.1:11434/v1",
        start_hint="start Ollama with `ollama serve`",
    ),
    Provider(
        name="lmstudio",
        base_url="http://127.0.0.1:1234/v1",
        key_variable="LM_API_TOKEN",
        key_optional=True,
        start_hint="start LM Studio's server with `lms server start`",
        vendor=True,
    ),
    Provider(
        name="llamacpp",
        base_url="http://127.0.0.1:8080/v1",
        key_variable="LLAMA_API_KEY",
        key_optional=True,
        start_hint="start llama.cpp with `llama-server -m MODEL.gguf`",
        vendor=True,
    ),
    Provider(
        name="vllm",
        base_url="http://127.0.0.1:8000/v1",
        key_variable="VLLM_API_KEY",
        key_optional=True,
        start_hint="start vLLM with `vllm serve MODEL`",
        vendor=True,
    ),
    Provider(name="local", base_url=None),
)
BUILT_IN: dict[str, Provider] = {provider.name: provider for provider in _ALL}

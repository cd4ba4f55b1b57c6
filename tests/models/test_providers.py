"""From a model name to its endpoint: whose it is, where that is, and with which key.

The environment comes before the settings file, the settings file before what is built in;
a `.env` file can supply a key, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.clients.local.client import LocalClient
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, LocalSettings, ProviderSettings, load_config
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.core.errors import AuthenticationFailed, ProfileError
from moa_cli.models.providers import Providers
from moa_cli.models.table import BUILT_IN, DEFAULT_PROVIDER, Provider
from tests.support.upstream import Reply, Upstream

KEY = "sk-a-secret-key-0123456789"


def providers(
    environment: Mapping[str, str] | None = None, **settings: ProviderSettings
) -> Providers:
    return Providers(Config(providers=settings), environment or {})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def configured(text: str) -> Providers:
    """The providers under a settings file with this text."""
    write(paths.config_file(), text)
    return Providers(load_config(), {})


# --- names


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("ollama:llama3:8b", "ollama", "llama3:8b"),
        ("openrouter:qwen/qwen3-32b", "openrouter", "qwen/qwen3-32b"),
        ("openrouter:qwen/qwen3-32b:free", "openrouter", "qwen/qwen3-32b:free"),
        ("local:smollm2", "local", "smollm2"),
        ("local:/models/a:b.gguf", "local", "/models/a:b.gguf"),
        ("together:Qwen/Qwen3", "together", "Qwen/Qwen3"),
        ("Qwen/Qwen3", "together", "Qwen/Qwen3"),
        ("gpt-4o", "together", "gpt-4o"),
        ("openai/gpt-oss-120b", "together", "openai/gpt-oss-120b"),
        ("together:llama3:8b", "together", "llama3:8b"),
        ("together:labb:secret", "together", "labb:secret"),
        ("together:org/model:free", "together", "org/model:free"),
    ],
)
def test_a_model_name_belongs_to_the_provider_before_its_first_colon_if_there_is_one(
    name: str, provider: str, model: str
) -> None:
    found, identity = providers().parse(name)
    assert (found.name, identity) == (provider, model)


@given(st.sampled_from(sorted(BUILT_IN)), st.text(min_size=1).filter(str.strip))
def test_what_stands_after_the_provider_is_never_changed(provider: str, model: str) -> None:
    found, identity = providers().parse(f"{provider}:{model}")
    assert (found.name, identity) == (provider, model)


HOW = "if the colon is part of the model id, put the provider before it: "
ALL = f"known providers: {', '.join(BUILT_IN)}"


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        (
            "olama:llama3",
            "there is no provider `olama` (model `olama:llama3`); did you mean `ollama`?",
            f"{HOW}`together:olama:llama3`",
        ),
        (
            "openruter:qwen/qwen3:free",
            "there is no provider `openruter` (model `openruter:qwen/qwen3:free`);"
            " did you mean `openrouter`?",
            f"{HOW}`together:openruter:qwen/qwen3:free`",
        ),
        (
            "OpenAI:gpt-4o",
            "there is no provider `OpenAI` (model `OpenAI:gpt-4o`); did you mean `openai`?",
            f"{HOW}`together:OpenAI:gpt-4o`",
        ),
        (
            " local :x",
            "there is no provider ` local ` (model ` local :x`); did you mean `local`?",
            f"{HOW}`together: local :x`",
        ),
        (
            "acme:model",
            "there is no provider `acme` (model `acme:model`)",
            f"{ALL}; {HOW}`together:acme:model`",
        ),
        (
            "org/model:free",
            "there is no provider `org/model` (model `org/model:free`)",
            f"{HOW}`together:org/model:free`",
        ),
        (
            "openrouter/qwen/qwen3:free",
            "there is no provider `openrouter/qwen/qwen3` (model `openrouter/qwen/qwen3:free`);"
            " did you mean `openrouter:qwen/qwen3:free`?",
            f"{HOW}`together:openrouter/qwen/qwen3:free`",
        ),
        (":x", "`:x` has no known provider before its colon", ALL),
        ("local", "`local` names only a provider, not a model", "write `local:model-id`; "),
        ("openai:", "`openai:` names only a provider, not a model", "write `openai:model-id`; "),
        ("openai: ", "`openai: ` names only a provider, not a model", "write `openai:model-id`; "),
        ("", "`` does not name a model", "write `provider:model-id`"),
        ("openai：gpt-4o", "holds a full-width colon", "did you mean `openai:gpt-4o`?"),
    ],
)
def test_a_name_that_leads_to_no_provider_or_no_model_is_refused(
    name: str, said: str, hint: str
) -> None:
    with pytest.raises(ProfileError) as raised:
        providers().parse(name)
    assert said in raised.value.message
    assert raised.value.hint is not None
    assert raised.value.hint.startswith(hint)


@pytest.mark.parametrize(
    "name",
    [
        "https://me:hunter2@host/v1",
        "https://hunter2@host/v1:x",
        "me:hunter2@host/v1:model",
        "hunter2@host:x",
    ],
)
def test_an_address_in_the_place_of_a_model_is_refused_without_its_password(name: str) -> None:
    with pytest.raises(ProfileError) as raised:
        providers().parse(name)
    assert "hunter2" not in f"{raised.value.message} {raised.value.hint}"


# --- addresses


def test_the_built_in_addresses_hold_where_nothing_is_said() -> None:
    known = providers().known
    assert known == BUILT_IN
    assert known[DEFAULT_PROVIDER].base_url == "https://api.together.xyz/v1"
    assert known["ollama"].base_url == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize("name", ["together", "openai", "openrouter", "groq", "ollama"])
def test_an_address_in_the_environment_comes_before_the_settings_and_those_before_ours(
    name: str,
) -> None:
    settings = {name: ProviderSettings(base_url="https://config.example/v1")}
    environment = {f"{name.upper()}_BASE_URL": "https://env.example/v1"}
    assert providers(None, **settings).known[name].base_url == "https://config.example/v1"
    assert providers(environment).known[name].base_url == "https://env.example/v1"
    assert providers(environment, **settings).known[name].base_url == "https://env.example/v1"
    blank = {f"{name.upper()}_BASE_URL": " "}
    assert providers(blank, **settings).known[name].base_url == "https://config.example/v1"


def test_ollama_host_comes_before_the_settings_and_after_ollama_base_url() -> None:
    settings = {"ollama": ProviderSettings(base_url="http://config:1/v1")}
    host = {"OLLAMA_HOST": "env:2"}
    both = {**host, "OLLAMA_BASE_URL": "http://env:3/v1"}
    assert providers(host, **settings).known["ollama"].base_url == "http://env:2/v1"
    assert providers(both, **settings).known["ollama"].base_url == "http://env:3/v1"


def test_an_address_changes_no_other_provider_and_no_other_setting() -> None:
    changed = providers({"OPENAI_BASE_URL": "https://env.example/v1"}).known
    assert changed.pop("openai").key_variable == "OPENAI_API_KEY"
    assert changed == {name: provider for name, provider in BUILT_IN.items() if name != "openai"}


def test_the_embedded_model_has_no_address_to_change() -> None:
    assert providers({"LOCAL_BASE_URL": "http://x/v1"}).known["local"].base_url is None


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("https://host", "https://host/v1"),
        ("https://host/", "https://host/v1"),
        ("http://host:1234", "http://host:1234/v1"),
        ("https://host/v1/", "https://host/v1"),
        (" https://host/api/v1 ", "https://host/api/v1"),
        ("https://host/openai", "https://host/openai"),
    ],
)
def test_a_base_url_without_a_path_gets_v1(url: str, meant: str) -> None:
    assert providers({"OPENAI_BASE_URL": url}).known["openai"].base_url == meant


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("box", "http://box:11434/v1"),
        ("box:1234", "http://box:1234/v1"),
        (":1234", "http://127.0.0.1:1234/v1"),
        ("box:", "http://box:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234/v1"),
        ("http://box", "http://box:80/v1"),
        ("http://box:1234/", "http://box:1234/v1"),
        ("https://box", "https://box:443/v1"),
        ("https://box:1234", "https://box:1234/v1"),
        ("https://box/ollama", "https://box:443/ollama/v1"),
        ("box:1234/ollama/", "http://box:1234/ollama/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("[::1]:1234", "http://[::1]:1234/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("[::]:1234", "http://127.0.0.1:1234/v1"),
        ("::", "http://127.0.0.1:11434/v1"),
        ("  box  ", "http://box:11434/v1"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert providers({"OLLAMA_HOST": host}).known["ollama"].base_url == url


# --- the user's own providers


def test_a_provider_of_the_users_own_is_known_like_the_others() -> None:
    known = configured(
        '[providers.box-one]\nbase_url = "http://127.0.0.1:1234"\n'
        '[providers.work]\nbase_url = "https://llm.work/v1"\napi_key_env = "WORK_KEY"\n'
    )
    provider, model = known.parse("box-one:qwen/qwen3")
    assert provider == Provider(name="box-one", base_url="http://127.0.0.1:1234/v1")
    assert model == "qwen/qwen3"
    assert known.key(provider) == "none"
    assert known.known["work"].key_variable == "WORK_KEY"
    with pytest.raises(ProfileError, match="did you mean `box-one`"):
        known.parse("boxone:x")


def test_a_built_in_provider_keeps_what_the_settings_do_not_mention() -> None:
    openai = configured('[providers.openai]\napi_key_env = "WORK_KEY"\n').known["openai"]
    assert openai.base_url == "https://api.openai.com/v1"
    assert openai.key_variable == "WORK_KEY"
    assert openai.quirks == {"max_completion_tokens"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[providers.acme]\nbase_ulr = "x"', "providers.acme.base_ulr"),
        ("[providers.acme]\nbase_url = 1", "providers.acme.base_url"),
        ("[providers]\nacme = 1", "providers.acme"),
        ("providers = 1", "providers"),
        ('[providers.acme]\napi_key_env = "X"', "providers.acme.base_url"),
        ('[providers.acme]\napi_key_cmd = "x"\nbase_url = " "', "providers.acme.base_url"),
        ('[providers.openai]\nbase_url = ""', "providers.openai.base_url"),
        ('[providers.local]\nbase_url = "http://x/v1"', "providers.local"),
        ('[providers."a b"]\nbase_url = "http://x/v1"', "providers.a b"),
        ('[providers."a:b"]\nbase_url = "http://x/v1"', "providers.a:b"),
        ('[providers.""]\nbase_url = "http://x/v1"', "providers."),
        ('[providers.acme]\napi_key = "sk-x"', "providers.acme.api_key"),
        ("concurrency = 0", "concurrency"),
        ("concurrency = true", "concurrency"),
        ("concurrency = nan", "concurrency"),
        ("retries = 21", "retries"),
        ("retries = 1.5", "retries"),
        ("profile = 1", "profile"),
        ("profil = 'x'", "profil"),
        ("[local]\ncontext = 1", "local.context"),
        ("[local]\nparallel = 65", "local.parallel"),
        ("[local]\nmodel = 1", "local.model"),
        ("[local]\nkey = 1", "local.key"),
        (f"[local]\ncontext = {'9' * 400}", "local.context"),
    ],
)
def test_a_wrong_settings_file_is_refused_with_its_name_and_the_key(text: str, key: str) -> None:
    with pytest.raises(ProfileError) as raised:
        configured(text)
    assert str(paths.config_file()) in raised.value.message
    assert f"`{key}`" in raised.value.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("retrys = 2", ("retrys",)),
        ("budget = 5", ("budget",)),
        ("[budget]\nzone = '`retries`'", ("budget", "zone")),
        ("[prices.'a`b']\nprompt = 1", ("prices", "a`b", "completion")),
        ("[prices.'lab:x.y']\nprompt = nan\ncompletion = 1", ("prices", "lab:x.y", "prompt")),
        ("[providers.'x.y']\nbase_ulr = 'u'", ("providers", "x.y", "base_ulr")),
        ("[providers.\"a\\nb'c\"]\nbase_url = 'u'", ("providers", "a\nb'c")),
        ("[providers.'a[0]']\napi_key_env = 'A B'", ("providers", "a[0]", "api_key_env")),
        ("[providers.new]\napi_key_env = 'A'", ("providers", "new", "base_url")),
    ],
)
def test_an_error_carries_the_path_of_the_setting_to_blame(text: str, path: tuple[str]) -> None:
    with pytest.raises(ProfileError) as raised:
        configured(text)
    assert raised.value.path == path
    assert raised.value.place == str(paths.config_file())
    assert "\n" not in raised.value.message


def test_an_unknown_setting_comes_with_the_nearest_known_one() -> None:
    with pytest.raises(ProfileError) as raised:
        configured("retrys = 2")
    assert raised.value.hint == "did you mean `retries`?"


@pytest.mark.parametrize(
    "content",
    [b"profile = ", b"\xff\xff", b"[a]\n[a]", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000],
    ids=["cut", "no utf-8", "twice", "long number", "deep"],
)
def test_a_settings_file_that_is_no_toml_is_refused_with_its_name(content: bytes) -> None:
    paths.config_file().parent.mkdir(parents=True)
    paths.config_file().write_bytes(content)
    with pytest.raises(ProfileError) as raised:
        load_config()
    assert raised.value.message.startswith(f"{paths.config_file()}: is not ")


def test_a_settings_file_that_is_a_folder_is_refused_with_its_name() -> None:
    paths.config_file().mkdir(parents=True)
    with pytest.raises(ProfileError, match=r"config.toml: cannot be read"):
        load_config()


def test_without_a_settings_file_there_are_defaults() -> None:
    assert load_config() == Config(place=str(paths.config_file()))


def test_a_whole_settings_file_is_read() -> None:
    text = """
        profile = "local"
        concurrency = 3
        retries = 0
        [local]
        model = "~/models/x.gguf"
        context = 512
        parallel = 1
        [providers.acme]
        base_url = "http://acme/v1"
        api_key_cmd = "pass acme"
        """
    read = load_config(write(Path("own.toml"), text))
    assert read == Config(
        profile="local",
        concurrency=3,
        retries=0,
        local=LocalSettings(model=Path.home() / "models/x.gguf", context=512, parallel=1),
        providers={
            "acme": ProviderSettings(base_url="http://acme/v1", api_key_cmd="pass acme"),
        },
        place="own.toml",
    )


def test_a_home_that_is_nobodys_is_left_as_it_is() -> None:
    read = load_config(write(Path("own.toml"), '[local]\nmodel = "~nobody-at-all/x.gguf"'))
    assert read.local.model == Path("~nobody-at-all/x.gguf")


def test_numbers_in_the_environment_come_before_the_settings_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = write(Path("own.toml"), "concurrency = 3\nretries = 5")
    monkeypatch.setenv("MOA_CONCURRENCY", "7")
    monkeypatch.setenv("MOA_RETRIES", "")
    read = load_config(own)
    assert (read.concurrency, read.retries) == (7, 5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MOA_CONCURRENCY", "many"),
        ("MOA_CONCURRENCY", "0"),
        ("MOA_CONCURRENCY", "1.5"),
        ("MOA_RETRIES", "-1"),
        ("MOA_RETRIES", "9" * 5000),
    ],
)
def test_a_wrong_number_in_the_environment_is_refused_with_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ProfileError, match=f"^{variable}: "):
        load_config()


# --- keys


def key_of(known: Providers, name: str = "together") -> str:
    return known.key(known.known[name])


def test_a_key_comes_from_the_environment_variable_of_its_provider() -> None:
    known = providers({"TOGETHER_API_KEY": f"  {KEY}\n", "OPENAI_API_KEY": "other"})
    assert key_of(known) == KEY
    assert key_of(known, "openai") == "other"
    together = known.known["together"]
    assert known.key_source(together) == "environment variable TOGETHER_API_KEY"


def test_a_provider_without_keys_is_sent_none() -> None:
    assert key_of(providers(), "ollama") == "none"
    assert not providers().known["ollama"].needs_key


def test_a_key_in_the_config_folder_comes_before_one_in_the_working_directory() -> None:
    here = write(Path(".env"), 'export TOGETHER_API_KEY="from-here"  # mine\n').absolute()
    known = providers()
    together = known.known["together"]
    assert key_of(known) == "from-here"
    assert known.key_source(together) == f"TOGETHER_API_KEY in {here}"
    notice = f"the key of together comes from the working directory: {here}"
    assert known.key_notices(["m", "together:m", "openai:m"]) == [notice]
    assert known.key_notices() == [notice]
    config = write(
        paths.config_dir() / ".env", "TOGETHER_API_KEY=from-config\nOPENAI_API_KEY=config-too\n"
    )
    known = providers()
    assert (key_of(known), key_of(known, "openai")) == ("from-config", "config-too")
    assert known.key_source(together) == f"TOGETHER_API_KEY in {config}"
    assert known.key_notices() == [
        f"the key of together comes from {config}; the working directory's .env has another"
        " TOGETHER_API_KEY, which is ignored"
    ]
    assert providers({"TOGETHER_API_KEY": KEY}).key_notices() == []
    write(Path(".env"), "TOGETHER_API_KEY=from-config\n")
    assert providers().key_notices() == []


def test_the_config_folder_is_no_foreign_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(paths.config_dir() / ".env", "TOGETHER_API_KEY=from-config\n")
    monkeypatch.chdir(paths.config_dir())
    assert key_of(providers()) == "from-config"
    assert providers().key_notices() == []


def test_the_environment_comes_before_a_dotenv_file_unless_it_is_blank() -> None:
    write(Path(".env"), "TOGETHER_API_KEY=from-here\n")
    assert key_of(providers({"TOGETHER_API_KEY": KEY})) == KEY
    for blank in ("", " \n"):
        known = providers({"TOGETHER_API_KEY": blank})
        assert key_of(known) == "from-here"
        source = known.key_source(known.known["together"])
        assert source == f"TOGETHER_API_KEY in {Path('.env').absolute()}"


def test_a_dotenv_file_supplies_keys_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        Path(".env"),
        "TOGETHER_API_KEY=from-here\nTOGETHER_BASE_URL=http://evil/v1\nOLLAMA_HOST=evil\n"
        "OPENAI_BASE_URL=http://evil/v1\nMOA_RETRIES=1\nMOA_PROFILE=evil\n",
    )
    known = providers()
    assert key_of(known) == "from-here"
    assert known.known == BUILT_IN
    assert load_config().retries == Config.retries


def test_a_key_in_a_dotenv_file_is_taken_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_SECRET", "leaked")
    write(Path(".env"), "TOGETHER_API_KEY=sk-${HOME_SECRET}\n")
    assert key_of(providers()) == "sk-${HOME_SECRET}"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfTOGETHER_API_KEY=from-here\r\n",
        b"# caf\xe9\nTOGETHER_API_KEY=from-here\n",
        b"NO_VALUE\nTOGETHER_API_KEY='from-here'",
        "TOGETHER_API_KEY=from-here\r\n".encode("utf-16"),
        "\ufeffTOGETHER_API_KEY=from-here".encode("utf-16-be"),
        b"# mine\rTOGETHER_API_KEY=from-here\r",
    ],
    ids=["byte order mark", "latin-1", "no value", "utf-16 le", "utf-16 be", "carriage returns"],
)
def test_a_dotenv_file_of_any_making_is_read(content: bytes) -> None:
    Path(".env").write_bytes(content)
    assert key_of(providers()) == "from-here"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'A=b\nTOGETHER_API_KEY="sk-1\n', "line 2 is not NAME=VALUE"),
        (b"set TOGETHER_API_KEY=sk-1\n", "line 1 is not NAME=VALUE"),
        (b'$env:TOGETHER_API_KEY="sk-1"\n', "line 1 is not NAME=VALUE"),
        ("TOGETHER_API_KEY=sk-1\n".encode("utf-16-le"), "is not UTF-8 text: it is UTF-16"),
        (b"# set TOGETHER_API_KEY here\n", "set TOGETHER_API_KEY in the environment"),
        (b"set OTHER=1\n", "set TOGETHER_API_KEY in the environment"),
    ],
)
def test_a_key_that_is_written_in_another_way_is_told_of_by_its_place(
    content: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(providers())
    assert said in str(raised.value.hint)
    assert "sk-1" not in str(raised.value.hint)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("key", ['"sk-1"', "'sk-1'", "`sk-1`", "Bearer sk-1", "\u201csk-1\u201d"])
def test_a_key_in_quotes_is_never_sent(key: str) -> None:
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(providers({"TOGETHER_API_KEY": key}))
    assert "cannot be an API key" in raised.value.message
    assert "sk-1" not in raised.value.message


def test_a_dotenv_that_is_a_folder_is_passed_over() -> None:
    Path(".env").mkdir()
    with pytest.raises(AuthenticationFailed):
        key_of(providers())


def with_command(command: str, environment: Mapping[str, str] | None = None) -> Providers:
    return providers(environment, together=ProviderSettings(api_key_cmd=command))


def test_a_command_may_print_the_key_with_a_line_end() -> None:
    known = with_command(f"echo {KEY}")
    assert key_of(known) == KEY
    assert known.key_source(known.known["together"]) == "api_key_cmd"
    with_words = with_command(f"printf '%s\\r\\n' {KEY}")
    assert key_of(with_words) == KEY


def test_a_command_is_run_only_where_no_key_was_found_before() -> None:
    command = "touch was-run; echo from-command"
    assert key_of(with_command(command, {"TOGETHER_API_KEY": KEY})) == KEY
    write(Path(".env"), "TOGETHER_API_KEY=from-here\n")
    assert key_of(with_command(command)) == "from-here"
    assert not Path("was-run").exists()
    assert key_of(with_command(command, {"OPENAI_API_KEY": "x"}), "ollama") == "none"


def test_a_user_provider_may_have_a_command_alone() -> None:
    known = configured(
        f'[providers.acme]\nbase_url = "https://acme/v1"\napi_key_cmd = "echo {KEY}"\n'
    )
    assert known.known["acme"].needs_key
    assert key_of(known, "acme") == KEY


def test_a_command_that_fails_is_named_by_its_status_not_by_what_it_printed() -> None:
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(with_command(f"echo {KEY}; exit 3"))
    assert raised.value.message == "together: api_key_cmd ended with status 3"
    assert KEY not in str(raised.value.hint)


def test_a_command_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moa_cli.models.providers._KEY_COMMAND_SECONDS", 0.05)
    with pytest.raises(AuthenticationFailed, match="did not end"):
        key_of(with_command("exec sleep 60"))


def test_a_command_gets_no_input() -> None:
    with pytest.raises(AuthenticationFailed, match="there is no API key"):
        key_of(with_command("cat"))


@pytest.mark.parametrize("command", ["true", "printf ' \\n'"])
def test_a_command_that_prints_nothing_gives_no_key(command: str) -> None:
    with pytest.raises(AuthenticationFailed, match="there is no API key for together"):
        key_of(with_command(command))
    acme = configured(f'[providers.acme]\nbase_url = "https://a/v1"\napi_key_cmd = {command!r}\n')
    with pytest.raises(AuthenticationFailed, match="acme: api_key_cmd printed nothing") as raised:
        key_of(acme, "acme")
    assert "api_key_env" not in str(raised.value.hint)


@pytest.mark.parametrize("printed", [r"sk-secret\nsecond", r"sk-sec ret", r"sk-secret\377"])
def test_a_command_that_prints_what_cannot_be_a_key_is_refused(printed: str) -> None:
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(with_command(f"printf '{printed}'"))
    assert raised.value.message.startswith("api_key_cmd: ")
    assert "sk-" not in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize(
    "bad",
    [
        "sk-two\nlines",
        "sk-two words",
        "sk-schlüssel",
        "sk-\x00nul",
        "sk-\u200b",
        "sk-\x7f",
        "“sk-”",
    ],
)
def test_what_cannot_be_a_key_is_refused_by_its_variable_and_not_shown(bad: str) -> None:
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(providers({"TOGETHER_API_KEY": bad}))
    assert raised.value.message.startswith("TOGETHER_API_KEY: ")
    assert raised.value.hint
    assert "sk-" not in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize("blank", [{}, {"TOGETHER_API_KEY": ""}, {"TOGETHER_API_KEY": " \n\t"}])
def test_no_key_at_all_says_where_to_put_one(blank: dict[str, str]) -> None:
    known = providers(blank)
    with pytest.raises(AuthenticationFailed) as raised:
        key_of(known)
    assert raised.value.message == "there is no API key for together"
    assert "TOGETHER_API_KEY" in str(raised.value.hint)
    # A name like `gpt-4.1` is taken as one of Together's models.
    assert "written with its name, as in `openai:gpt-4.1`" in str(raised.value.hint)
    assert known.key_source(known.known["together"]) is None


# --- the pool


def test_models_of_one_provider_share_a_client_and_embedded_models_do_not() -> None:
    async def run() -> None:
        pool = ClientPool(Config(), {})
        first, second = pool.endpoint("openai:gpt-4o"), pool.endpoint("openai:gpt-4.1")
        assert first.client is second.client
        assert (first.model, first.provider) == ("gpt-4o", "openai")
        assert isinstance(first.client, OpenAICompatible)
        assert pool.client(pool.providers.known["openai"]) is first.client
        assert pool.endpoint("gpt-4o").client is not first.client
        smollm, other = pool.endpoint("local:smollm2"), pool.endpoint("local:x.gguf")
        assert isinstance(smollm.client, LocalClient)
        assert smollm.client is not other.client
        assert smollm.client is pool.endpoint("local:smollm2").client
        await pool.aclose()
        assert pool.endpoint("openai:gpt-4o").client is not first.client

    asyncio.run(run())


@pytest.mark.parametrize("name", ["openai:", "local:", ""])
def test_a_name_without_a_model_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match=r"names only a provider|does not name a model"):
        ClientPool(Config(), {}).endpoint(name)


def ask(pool: ClientPool, name: str) -> str:
    async def run() -> str:
        try:
            endpoint = pool.endpoint(name)
            request = Request(model=endpoint.model, messages=(Message("user", "hi"),), max_tokens=5)
            return "".join([delta.text async for delta in endpoint.client.stream(request)])
        finally:
            await pool.aclose()

    return asyncio.run(run())


def test_a_call_through_the_pool_carries_the_providers_key_and_fields() -> None:
    with Upstream(api_key=KEY) as up:
        up.always("*", Reply(text="hello"))
        environment = {"OPENAI_BASE_URL": up.url, "OPENAI_API_KEY": KEY}
        assert ask(ClientPool(Config(), environment), "openai:gpt-4o") == "hello"
        (sent,) = up.chats()
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert (sent.model, sent.body["max_completion_tokens"]) == ("gpt-4o", 5)


def test_a_key_of_one_provider_is_never_sent_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"{name.upper()}_API_KEY": f"sk-{name}-key" for name in BUILT_IN}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with Upstream() as up:
        environment = {**keys, "OLLAMA_BASE_URL": up.url, "GROQ_BASE_URL": up.url}
        ask(ClientPool(Config(), environment), "ollama:llama3")
        ask(ClientPool(Config(), environment), "groq:llama3")
        sent = [str(request.headers) for request in up.chats()]
    assert "Bearer none" in sent[0]
    assert "sk-" not in sent[0]
    assert sent[1].count("sk-") == sent[1].count("sk-groq-key") == 1


def test_a_missing_key_comes_out_of_the_call_itself() -> None:
    with pytest.raises(AuthenticationFailed, match="there is no API key for openai"):
        ask(ClientPool(Config(), {}), "openai:gpt-4o")


def test_ollama_that_does_not_run_says_how_to_start_it() -> None:
    with pytest.raises(Exception, match="refused") as raised:
        ask(ClientPool(Config(), {"OLLAMA_HOST": "127.0.0.1:9"}), "ollama:llama3")
    assert getattr(raised.value, "hint", None) == "start Ollama with `ollama serve`"

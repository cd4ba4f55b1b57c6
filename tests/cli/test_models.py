"""`moa models`: what each provider offers, with prices and context lengths where it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import KEY, Moa
from tests.support.upstream import Reply, Upstream

# As Together tells prices (USD a million tokens), as OpenRouter does (texts, USD a token), as
# vLLM and llama.cpp tell the context; and one of which nothing is told.
MODELS: list[dict[str, object]] = [
    {"id": "org/a", "context_length": 8192, "pricing": {"input": 0.6, "output": 1.2}},
    {"id": "org/b", "pricing": {"prompt": "0.00000015", "completion": "0.0000006"}},
    {"id": "c", "max_model_len": 4096},
    {"id": "router", "pricing": {"prompt": "-1", "completion": "-1"}},
    {"id": "evil\x1b[2J\nname"},
]
TABLE = """\
model          context      $/M in     $/M out
lab:org/a         8192        0.60        1.20
lab:org/b            ?        0.15        0.60
lab:c             4096           ?           ?
lab:router           ?           ?           ?
lab:evil name        ?           ?           ?
"""


@pytest.fixture(params=[False, True], ids=["data", "bare list"])
def offering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Moa]:
    """A machine whose provider `lab` offers MODELS, as OpenAI or as Together lists them."""
    with Upstream(api_key=KEY, models=MODELS, models_bare=request.param) as upstream:
        yield Moa(tmp_path, upstream.url)


def test_the_models_of_a_provider_are_a_table(offering: Moa) -> None:
    ran = offering.run("models", "lab")
    assert (ran.code, ran.err) == (0, "")
    words = [line.split() for line in ran.text.splitlines()]
    assert words == [line.split() for line in TABLE.splitlines()]
    assert len({len(line) for line in ran.text.splitlines()}) == 1
    assert "\x1b" not in ran.text


def test_where_the_table_is_too_wide_figures_stand_below_names(offering: Moa) -> None:
    with offering.terminal("models", "lab", columns=40) as terminal:
        assert terminal.wait() == 0
        assert terminal.written()[:4] == [
            "lab:org/a",
            "    context 8192, $/M 0.60 in, 1.20 out",
            "lab:org/b",
            "    context ?, $/M 0.15 in, 0.60 out",
        ]


def test_the_models_as_json(offering: Moa) -> None:
    ran = offering.run("models", "lab", "--json")
    told = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert "\x1b" not in ran.text
    assert told[0] == {
        "name": "lab:org/a",
        "provider": "lab",
        "context_length": 8192,
        "prompt_usd_per_million": 0.6,
        "completion_usd_per_million": 1.2,
    }
    prices = [event["prompt_usd_per_million"] for event in told]
    assert prices == [0.6, pytest.approx(0.15), None, None, None]
    assert [event["context_length"] for event in told] == [8192, None, 4096, None, None]
    assert told[4]["name"] == "lab:evil\x1b[2J\nname"


def test_models_of_the_default_provider_need_no_prefix(tmp_path: Path) -> None:
    with Upstream(models=["org/a"]) as upstream:
        env = {"TOGETHER_API_KEY": "t", "TOGETHER_BASE_URL": upstream.url}
        ran = Moa(tmp_path, upstream.url).run("models", "together", "--json", env=env)
    assert [line["name"] for line in json.loads(ran.out)] == ["org/a"]


def test_a_provider_that_offers_nothing_says_so(moa: Moa) -> None:
    ran = moa.run("models", "lab")
    assert (ran.code, ran.out, ran.err) == (0, b"", "moa: no models\n")
    assert json.loads(moa.run("models", "lab", "--json").out) == []


def test_an_unknown_provider_is_refused_with_the_nearest_name(moa: Moa) -> None:
    ran = moa.run("models", "labb")
    said = "moa: there is no provider `labb` (did you mean `lab`?)\n"
    assert (ran.code, ran.out, ran.err) == (2, b"", said)


def test_a_provider_without_its_key_is_code_76(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("models", "lab", env={"LAB_KEY": None})
    assert (ran.code, ran.out) == (76, b"")
    assert ran.err.startswith("moa: there is no API key for lab")
    assert upstream.requests == []


def test_a_refused_key_is_not_shown(tmp_path: Path) -> None:
    with Upstream(api_key="another-key") as upstream:
        ran = Moa(tmp_path, upstream.url).run("models", "lab")
    assert (ran.code, ran.out) == (76, b"")
    assert ran.err.count("\n") == 1
    assert KEY not in ran.err


def test_a_provider_that_is_not_there_is_code_1(moa: Moa) -> None:
    ran = moa.run("models", "ollama", env={"OLLAMA_HOST": "127.0.0.1:1"})
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("moa: ollama: no connection to 127.0.0.1:1 (refused)")
    assert "ollama serve" in ran.err


def test_without_a_provider_all_with_a_key_are_asked_and_those_that_fail_are_told_of(
    offering: Moa,
) -> None:
    env = {
        "TOGETHER_API_KEY": KEY,
        "TOGETHER_BASE_URL": "http://127.0.0.1:1/v1",
        # Without it the embedded model would be started.
        "XLLAMACPP": "no",
    }
    (offering.config / "config.toml").write_text(
        (offering.config / "config.toml").read_text() + '[local]\nmodel = "/nowhere.gguf"\n'
    )
    ran = offering.run("models", "--json", env=env)
    assert ran.code == 0
    assert [line["provider"] for line in json.loads(ran.out)] == ["lab"] * 5
    together, local = ran.err.splitlines()
    assert together.startswith("moa: together: no connection to 127.0.0.1:1 (refused) (check ")
    assert local.startswith("moa: local: /nowhere.gguf is not there (")


def test_without_a_provider_a_server_on_this_machine_is_asked_too(moa: Moa) -> None:
    with Upstream(models=("qwen2.5:7b",)) as ollama:
        ran = moa.run("models", "--json", env={"OLLAMA_BASE_URL": ollama.url})
    assert ran.code == 0, ran.err
    assert "ollama:qwen2.5:7b" in [row["name"] for row in json.loads(ran.out)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull"], "name the weights to pull (moa models pull smollm2)"),
        (["pull", "gpt-4"], "there are no weights named 'gpt-4' to pull"),
        (["lab", "ollama"], "unexpected extra argument(s) (ollama)"),
    ],
)
def test_wrong_usage_is_code_2(moa: Moa, arguments: list[str], said: str) -> None:
    ran = moa.run("models", *arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_pull_is_a_command_with_a_help_of_its_own(moa: Moa) -> None:
    assert moa.run("models", "pull", "--help").text.startswith("Usage: moa models pull [OPTIONS]")
    assert moa.run("models", "--help").text.splitlines()[-1].split()[:2] == ["pull", "Fetch"]


def test_the_word_list_may_be_left_out(offering: Moa) -> None:
    for arguments in (["lab"], ["list", "lab"], ["--json", "lab"], ["lab", "--json"]):
        ran = offering.run("models", *arguments)
        assert (ran.code, ran.err) == (0, "")
        assert b"lab:" in ran.out


def test_together_s_list_comes_through_its_sdk_and_no_other_does(moa: Moa) -> None:
    with Upstream(models=[{"id": "a/b", "pricing": {"input": 1, "output": 2}}]) as together:
        moa.configure(providers={"lab": {"base_url": together.url, "api_key_env": "LAB_KEY"}})
        env = {"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": together.url}
        custom = {"TOGETHER_CUSTOM_HEADERS": "X-Team: blue", "AI_AGENT": "some-agent"}
        ran = moa.run("models", "together", env={**env, **custom})
        assert (ran.code, ran.err) == (0, "")
        assert ran.text.split()[-3:] == ["?", "1.00", "2.00"]
        assert moa.run("models", "lab", env={**env, **custom}).code == 0
    first, second = (request.headers for request in together.requests)
    assert first["x-stainless-lang"] == "python"
    assert (first["authorization"], first["x-team"]) == (f"Bearer {KEY}", "blue")
    assert first["user-agent"].startswith("moa/")
    # It tells nothing of the machine.
    assert not {"x-stainless-os", "x-stainless-agent", "x-stainless-runtime-version"} & {*first}
    assert "x-stainless-lang" not in second
    assert "x-team" not in second


def test_headers_do_not_follow_together_s_list_to_another_host(moa: Moa) -> None:
    with Upstream(models=[{"id": "a/b"}]) as other, Upstream() as together:
        moved = f"{other.url}/models".replace("127.0.0.1", "localhost")
        together.models_reply = Reply(status=307, error={}, headers={"location": moved})
        headers = {"X-Team": "red"}
        moa.configure(providers={"together": {"base_url": together.url, "headers": headers}})
        env = {"TOGETHER_API_KEY": KEY, "TOGETHER_CUSTOM_HEADERS": "X-Own: blue"}
        ran = moa.run("models", "together", env=env)
        assert ran.code == 0, ran.err
    [first], [second] = together.requests, other.requests
    own = {"authorization", "x-team", "x-own"}
    assert own <= {*first.headers}
    assert not own & {*second.headers}

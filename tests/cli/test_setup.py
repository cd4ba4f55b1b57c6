"""`moa setup` and the first run: what is there is found, tried and kept."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moa_cli import ask
from moa_cli.batch import answer_rows
from tests.support.command import KEY, Moa, Ran
from tests.support.upstream import Reply, Upstream

THREE = ("llama3.2:3b", "qwen2.5:7b", "gemma2:2b", "nomic-embed-text:latest")
_CLOSED = "http://127.0.0.1:9/v1"
# Servers of whoever runs the tests are not to be found.
NOWHERE = {
    f"{name}_BASE_URL": _CLOSED for name in ("OLLAMA", "LMSTUDIO", "LLAMACPP", "VLLM", "TOGETHER")
}


@pytest.fixture
def moa(tmp_path: Path) -> Moa:
    """A machine without any settings, keys or servers."""
    moa = Moa(tmp_path, _CLOSED)
    (moa.config / "config.toml").unlink()
    (moa.config / "profiles" / "lab.toml").unlink()
    del moa.environment["LAB_KEY"]
    moa.environment |= NOWHERE
    return moa


@pytest.fixture
def ollama() -> Iterator[Upstream]:
    """A server that offers three models that chat."""
    with Upstream(models=THREE) as upstream:
        yield upstream


def at(upstream: Upstream, name: str, **variables: str) -> dict[str, str]:
    """The environment in which `name` is at this address."""
    return {f"{name.upper()}_BASE_URL": upstream.url, **variables}


def made(moa: Moa, ran: Ran) -> dict[str, Any]:
    """The profile that a run of `moa setup` made, which is the default now."""
    path = Path(ran.text.strip())
    assert moa.settings()["profile"] == path.stem
    return tomllib.loads(path.read_text("utf-8"))


def test_three_models_of_a_server_on_this_machine_become_the_default(
    moa: Moa, ollama: Upstream
) -> None:
    env = at(ollama, "ollama")
    ran = moa.run("setup", "--yes", env=env)
    assert ran.code == 0, ran.err
    profile = made(moa, ran)
    names = {f"ollama:{name}" for name in THREE[:3]}
    assert {proposer["model"] for proposer in profile["proposers"]} == names
    assert profile["aggregator"] == {"model": "ollama:qwen2.5:7b"}
    assert "max_tokens" not in profile
    assert sorted(request.model for request in ollama.chats()) == sorted(THREE[:3])
    assert "ollama: 3 models (on this machine)" in ran.err
    assert "costs nothing" in ran.err
    asked = moa.run("ask", "hello", env=env)
    assert asked.code == 0
    assert "profile mine" in asked.err


def test_a_server_with_one_model_gives_several_samples_of_it(moa: Moa) -> None:
    with Upstream(models=("qwen2.5-7b-instruct", "text-embedding-x")) as server:
        ran = moa.run("setup", "--yes", env=at(server, "ollama"))
    assert ran.code == 0, ran.err
    model = "ollama:qwen2.5-7b-instruct"
    profile = made(moa, ran)
    assert profile["proposers"] == [{"model": model, "samples": 3}]
    assert profile["aggregator"] == {"model": model}


def test_nothing_at_all_says_what_to_do_and_writes_nothing(moa: Moa) -> None:
    ran = moa.run("setup", "--yes")
    assert (ran.code, ran.text) == (0, "")
    assert "no API key and no model server" in ran.err
    assert "TOGETHER_API_KEY" in ran.err
    assert "embedded model" in ran.err
    assert not (moa.config / "config.toml").exists()
    assert list((moa.config / "profiles").iterdir()) == []


def test_a_wrong_key_is_said_so(moa: Moa) -> None:
    with Upstream(api_key=KEY, models=("gpt-5",)) as server:
        env = at(server, "openai", OPENAI_API_KEY="sk-wrong-0123456789")
        ran = moa.run("setup", "--yes", env=env)
    assert (ran.code, ran.text) == (76, "")
    assert "openai" in ran.err
    assert "environment variable OPENAI_API_KEY" in ran.err
    assert "sk-wrong" not in ran.err
    assert not (moa.config / "config.toml").exists()


def test_no_credit_is_said_so_and_the_next_source_is_taken(moa: Moa, ollama: Upstream) -> None:
    with Upstream(api_key=KEY, models=("gpt-5", "gpt-5-mini")) as server:
        told = {"error": {"message": "Insufficient credits", "code": 402}}
        server.always("*", Reply(status=402, error=told))
        env = at(server, "openai", OPENAI_API_KEY=KEY)
        alone = moa.run("setup", "--yes", env=env)
        assert alone.code != 0
        assert "Insufficient credits" in alone.err
        assert not (moa.config / "config.toml").exists()
        ran = moa.run("setup", "--yes", env=env | at(ollama, "ollama"))
    assert ran.code == 0, ran.err
    assert "Insufficient credits" in ran.err
    assert made(moa, ran)["aggregator"] == {"model": "ollama:qwen2.5:7b"}


def test_a_model_that_does_not_answer_is_left_out(moa: Moa, ollama: Upstream) -> None:
    ollama.always("qwen2.5:7b", Reply(status=500))
    ran = moa.run("setup", "--yes", env=at(ollama, "ollama"))
    assert ran.code == 0, ran.err
    profile = made(moa, ran)
    assert [proposer["model"] for proposer in profile["proposers"]] == [
        "ollama:llama3.2:3b",
        "ollama:gemma2:2b",
    ]
    assert profile["aggregator"] == {"model": "ollama:llama3.2:3b"}


def test_a_key_alone_gives_a_mixture_of_that_provider_s_families(moa: Moa) -> None:
    models: list[dict[str, object]] = [
        {"id": "llama-3.3-70b-versatile", "pricing": {"input": 0.6, "output": 0.8}},
        {"id": "llama-3.1-8b-instant", "pricing": {"input": 0.05, "output": 0.08}},
        {"id": "openai/gpt-oss-120b", "pricing": {"input": 0.15, "output": 0.6}},
        {"id": "qwen/qwen3-32b", "pricing": {"input": 0.3, "output": 0.6}},
        {"id": "whisper-large-v3"},
        {"id": "llama-guard-4-12b"},
    ]
    with Upstream(api_key=KEY, models=models) as server:
        ran = moa.run("setup", "--yes", env=at(server, "groq", GROQ_API_KEY=KEY))
        spent = moa.run("history", "stats", "--json")
    assert ran.code == 0, ran.err
    models_of = [proposer["model"] for proposer in made(moa, ran)["proposers"]]
    # Further candidates stay: should the first be retired, the next is asked.
    assert [names if isinstance(names, str) else names[0] for names in models_of] == [
        "groq:openai/gpt-oss-120b",
        "groq:qwen/qwen3-32b",
        "groq:llama-3.3-70b-versatile",
    ]
    assert "about $0.0" in ran.err
    assert spent.code == 0


def test_a_profile_of_that_name_is_kept(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    first = Path(moa.run("setup", "--yes", env=env).text.strip())
    first.write_text(first.read_text() + "# mine\n")
    second = moa.run("setup", "--yes", env=env)
    assert Path(second.text.strip()).name == "mine-2.toml"
    assert "(it was mine)" in second.err
    assert "# mine" in first.read_text()
    taken = moa.run("setup", "--yes", "--name", "mine", env=env)
    assert taken.code == 2
    assert moa.run("setup", "--yes", "--name", "mine", "--force", env=env).code == 0


def test_the_same_command_again_makes_no_second_profile(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    first = moa.run("setup", "--yes", env=env)
    again = moa.run("setup", "--yes", env=env)
    assert (again.code, again.text) == (0, first.text)
    assert "(it was" not in again.err
    assert [path.name for path in (moa.config / "profiles").iterdir()] == ["mine.toml"]


def test_force_replaces_the_usual_profile(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    path = moa.config / "profiles" / "mine.toml"
    path.write_text("# of another day\n")
    ran = moa.run("setup", "--yes", "--force", env=env)
    assert (ran.code, Path(ran.text.strip())) == (0, path)
    assert "another day" not in path.read_text()


def test_the_user_chooses_at_a_terminal(moa: Moa, ollama: Upstream) -> None:
    with Upstream(api_key=KEY, models=("gpt-5",)) as server:
        env = at(server, "openai", OPENAI_API_KEY=KEY) | at(ollama, "ollama")
        with moa.terminal("setup", env=env, columns=120) as terminal:
            terminal.wait_for("Which mixture?")
            assert any(line.startswith("  2  ollama:qwen2.5:7b") for line in terminal.shown())
            terminal.send("7\r")
            terminal.wait_for("there is no mixture 7")
            terminal.send("2\r")
            assert terminal.wait() == 0
    assert moa.settings()["profile"] == "mine"
    assert server.chats() == []


def test_without_a_terminal_and_yes_nothing_is_asked(moa: Moa, ollama: Upstream) -> None:
    ran = moa.run("setup", env=at(ollama, "ollama"))
    assert ran.code == 2
    assert "pass --yes" in ran.err
    assert ollama.requests == []


def test_without_settings_a_server_on_this_machine_comes_before_the_embedded_model(
    moa: Moa, ollama: Upstream
) -> None:
    ran = moa.run("ask", "hello", env=at(ollama, "ollama"))
    assert ran.code == 0
    assert ran.err.splitlines()[0].startswith(
        "moa: models of ollama on this machine, as no key or profile is set: ollama:qwen2.5:7b"
    )
    assert len(ollama.chats()) == 4


def test_without_settings_the_library_asks_the_models_that_the_command_asks(
    moa: Moa, ollama: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (moa.environment | at(ollama, "ollama")).items():
        monkeypatch.setenv(name, value)
    ways = (
        lambda: moa.run("ask", "why?", env=at(ollama, "ollama")),
        lambda: ask("why?"),
        lambda: answer_rows({"prompt": ["why?"]}),
    )

    def asked() -> list[list[str]]:
        """The models that each way asks."""
        sent = []
        for way in ways:
            before = len(ollama.chats())
            way()
            sent.append(sorted(request.model for request in ollama.chats()[before:]))
        return sent

    assert asked() == [["gemma2:2b", "llama3.2:3b", "qwen2.5:7b", "qwen2.5:7b"]] * 3
    # With models of one's own, the settings of the embedded model's profile do not count.
    moa.environment["MOA_REFERENCE_MODELS"] = "ollama:gemma2:2b"
    monkeypatch.setenv("MOA_REFERENCE_MODELS", "ollama:gemma2:2b")
    assert asked() == [["gemma2:2b", "gemma2:2b"]] * 3
    assert all("max_tokens" not in request.body for request in ollama.chats())


@pytest.mark.parametrize("listed", [Reply(status=500), Reply(raw=b"<html>"), Reply(raw=b"[]")])
def test_what_listens_and_is_no_model_server_is_passed_over(moa: Moa, listed: Reply) -> None:
    with Upstream() as server:
        server.models_reply = listed
        ran = moa.run("ask", "--dry-run", "hello", env=at(server, "ollama"))
    assert ran.code == 0, ran.err
    assert "local:smollm2" in ran.text


def test_typed_models_inherit_nothing_of_the_embedded_model(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    ran = moa.run("ask", "-m", "ollama:llama3.2:3b", "hello", env=env)
    assert ran.code == 0, ran.err
    assert ran.err == "moa: typed models: ollama:llama3.2:3b → ollama:llama3.2:3b\n"
    for request in ollama.chats():
        assert {"max_tokens", "seed", "top_p", "temperature"}.isdisjoint(request.body)
    for named in ({}, {"MOA_PROFILE": "local"}):
        shown = moa.run(
            "profile", "show", "-m", "ollama:x,ollama:y", "-a", "ollama:z", env=env | named
        )
        assert "aggregator.model     ollama:z" in shown.text
        assert "256" not in shown.text


def test_a_new_profile_of_typed_models_has_neutral_settings(moa: Moa) -> None:
    ran = moa.run("profile", "new", "two", "-m", "ollama:x,ollama:y")
    assert ran.code == 0, ran.err
    assert tomllib.loads(Path(ran.text.strip()).read_text()) == {
        "rounds": 1,
        "proposers": [{"model": "ollama:x"}, {"model": "ollama:y"}],
        "aggregator": {"model": "ollama:x"},
    }


def test_a_profile_that_the_user_chose_is_still_laid_under_typed_models(moa: Moa) -> None:
    moa.profile("own", "a", aggregator="agg", temperature=0.3, description="my two")
    for arguments, env in ((("-p", "own"), {}), ((), {"MOA_PROFILE": "own"})):
        shown = moa.run("profile", "show", *arguments, "-m", "ollama:x", env=env, stdin=None)
        assert "temperature          0.3" in shown.text
        assert "lab:agg" in shown.text
        assert "my two" not in shown.text


def test_a_question_needs_no_command(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    ran = moa.run("What is up?", env=env)
    assert ran.code == 0, ran.err
    assert ollama.chats()[0].messages[-1]["content"] == "What is up?"
    assert moa.run("-m", "ollama:gemma2:2b", "What is up?", env=env).code == 0
    for question in ("What\nis up?", "What\tis up?"):
        assert moa.run(question, env=env).code == 0
        assert ollama.chats()[-1].messages[-1]["content"] == question
    debugged = moa.run("--debug", "What is up?", env=env)
    assert debugged.code == 0
    assert "moa.engine" in debugged.err
    before = len(ollama.requests)
    mistyped = moa.run("aks", "What is up?", env=env)
    assert mistyped.code == 2
    assert mistyped.err.startswith("moa: No such command 'aks'")
    assert "in quotes" in moa.run("what", "is", "up?", env=env).err
    assert len(ollama.requests) == before


def test_moa_alone_is_the_chat_at_a_terminal_and_the_help_elsewhere(
    moa: Moa, ollama: Upstream
) -> None:
    with moa.terminal(env=at(ollama, "ollama"), columns=120) as terminal:
        terminal.wait_for("›")
        assert "models of ollama on this machine" in terminal.lines()[0]
        terminal.send("\x04")
        assert terminal.wait() == 0
    ran = moa.run()
    assert ran.code == 2
    assert "Usage: moa" in ran.err


@pytest.mark.parametrize("finish", ["length", "stop"])
@pytest.mark.parametrize("reasoning", [(), ("hm ", "so")], ids=["silent", "thinking"])
def test_a_model_that_spends_the_few_tokens_without_a_word_is_kept(
    moa: Moa, ollama: Upstream, finish: str, reasoning: tuple[str, ...]
) -> None:
    ollama.always("qwen2.5:7b", Reply(chunks=(), reasoning=reasoning, finish_reason=finish))
    ran = moa.run("setup", "--yes", env=at(ollama, "ollama"))
    assert ran.code == 0, ran.err
    assert "ollama:qwen2.5:7b: answers" in ran.err
    profile = made(moa, ran)
    assert len(profile["proposers"]) == 3
    assert profile["aggregator"] == {"model": "ollama:qwen2.5:7b"}


def test_a_model_that_does_not_answer_is_named_with_what_to_do(moa: Moa, ollama: Upstream) -> None:
    ollama.always("qwen2.5:7b", Reply(status=402, error={"error": {"message": "pay first"}}))
    ran = moa.run("setup", "--yes", env=at(ollama, "ollama"))
    assert ran.code == 0, ran.err
    told = "ollama: no credit left: pay first (add credit to the account)"
    assert f"moa: ollama:qwen2.5:7b does not answer: {told}\n" in ran.err


def test_ids_that_no_profile_can_hold_are_passed_over(moa: Moa) -> None:
    odd = ("gpt-5\x1b]0;owned\x07", "gpt-5\nmoa: done", "gpt 5", "", "gpt-\u202e5")
    with Upstream(api_key=KEY, models=(*odd, "gpt-4.1", "llama-3-8b")) as server:
        ran = moa.run("setup", "--yes", env=at(server, "openai", OPENAI_API_KEY=KEY))
    assert ran.code == 0, ran.err
    assert "openai: 2 models" in ran.err
    models = [proposer["model"] for proposer in made(moa, ran)["proposers"]]
    assert models == ["openai:gpt-4.1", "openai:llama-3-8b"]


def test_a_price_that_nobody_tells_is_not_nothing(moa: Moa) -> None:
    with Upstream(api_key=KEY, models=("lab-model-x",)) as server:
        ran = moa.run("setup", "--yes", env=at(server, "openai", OPENAI_API_KEY=KEY))
    assert ran.code == 0, ran.err
    assert "price unknown" in ran.err
    assert "costs nothing" not in ran.err


@pytest.mark.parametrize("name", ["../out", "x.toml", "taken"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(
    moa: Moa, ollama: Upstream, name: str
) -> None:
    moa.profile("taken", "a")
    ran = moa.run("setup", "--yes", "--name", name, env=at(ollama, "ollama"))
    assert (ran.code, ran.text, ran.err.count("\n")) == (2, "", 1)
    assert ollama.requests == []


def test_a_profile_of_the_environment_that_comes_first_is_named(moa: Moa, ollama: Upstream) -> None:
    ran = moa.run("setup", "--yes", env=at(ollama, "ollama", MOA_PROFILE="openai"))
    assert ran.code == 0, ran.err
    assert "MOA_PROFILE is set to openai, which overrides it; unset it to use mine" in ran.err


def test_settings_that_cannot_be_written_leave_the_profile_to_be_used_by_name(
    moa: Moa, ollama: Upstream
) -> None:
    # Nobody, not even an administrator, can make this folder.
    (moa.config / "config.toml").symlink_to("/proc/moa/config.toml")
    env = at(ollama, "ollama")
    ran = moa.run("setup", "--yes", env=env)
    assert ran.code == 2
    assert Path(ran.text.strip()).name == "mine.toml"
    assert ran.err.splitlines()[-1].endswith(
        "(the profile is saved, but is not the default; use it with `-p mine`)"
    )
    assert moa.run("ask", "-p", "mine", "hello", env=env).code == 0


def test_what_is_no_number_is_asked_again_in_a_narrow_terminal(moa: Moa, ollama: Upstream) -> None:
    with moa.terminal("setup", env=at(ollama, "ollama"), columns=40) as terminal:
        terminal.wait_for("Which mixture?")
        assert any(line.startswith("ollama:llama3.2:3b,") for line in terminal.shown())
        terminal.send("x\r")
        terminal.wait_for("there is no mixture x")
        terminal.wait_for(lambda: terminal.shown()[-1].startswith("Which mixture?"))
        terminal.settle()
        terminal.send("\x03")
        assert terminal.wait() == 130
    assert not (moa.config / "config.toml").exists()


def test_a_list_is_read_once(moa: Moa) -> None:
    """It may be long, and take long."""
    with Upstream(api_key=KEY, models=["mistral-large-2512", "open-mixtral-8x22b"]) as server:
        ran = moa.run("setup", "--yes", env=at(server, "mistral", MISTRAL_API_KEY=KEY))
        assert ran.code == 0, ran.err
    assert len([request for request in server.requests if not request.is_chat]) == 1


def test_a_server_that_lists_much_is_read_whole(moa: Moa) -> None:
    with Upstream(models=[f"llama3.2:{number}b-{'x' * 60}" for number in range(1, 15_000)]) as much:
        ran = moa.run("setup", "--yes", env=at(much, "ollama"))
    assert ran.code == 0, ran.err
    assert "ollama: 14,999 models" in ran.err


@pytest.mark.parametrize(
    "listed",
    [Reply(events=["-"] * 1000, pause=0.3), Reply(error="[" * 200_000)],
    ids=["each piece in time, and no end", "nested without end"],
)
def test_a_list_that_cannot_be_read_is_passed_over(moa: Moa, listed: Reply) -> None:
    with Upstream() as server:
        server.models_reply = listed
        ran = moa.run("ask", "--dry-run", "hello", env=at(server, "ollama"))
    assert ran.code == 0, ran.err
    assert "local:smollm2" in ran.text


def test_the_key_of_a_provider_alone_gives_a_mixture_of_its_models(moa: Moa) -> None:
    models = ("mistral-large-2512", "open-mixtral-8x22b", "codestral-latest", "mistral-embed")
    with Upstream(api_key=KEY, models=models) as server:
        env = at(server, "mistral", MISTRAL_API_KEY=KEY)
        for _ in range(2):
            ran = moa.run("ask", "hello", env=env)
            assert ran.code == 0, ran.err
            assert ran.err.startswith(
                "moa: models of mistral, as its key is set and no profile: mistral:mistral-large-"
            )
    lists = [request for request in server.requests if not request.is_chat]
    assert len(lists) == 1


def test_a_key_that_is_refused_leaves_the_embedded_model(moa: Moa) -> None:
    with Upstream(api_key=KEY, models=("mistral-large-2512",)) as server:
        env = at(server, "mistral", MISTRAL_API_KEY="wrong-0123456789")
        ran = moa.run("ask", "--dry-run", "hello", env=env)
    assert ran.code == 0
    assert "local:smollm2" in ran.text


def test_doctor_calls_each_model_once_if_asked_to(moa: Moa, ollama: Upstream) -> None:
    env = at(ollama, "ollama")
    assert moa.run("setup", "--yes", env=env).code == 0
    before = len(ollama.chats())
    quiet = moa.run("doctor", env=env)
    assert "ollama: reachable, 4 models" in quiet.text
    assert len(ollama.chats()) == before
    told = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    ollama.always("gemma2:2b", Reply(status=429, error=told))
    ran = moa.run("doctor", "--call", env=env)
    assert ran.code == 1
    assert "OK     ollama:qwen2.5:7b answers" in ran.text
    assert "ERROR  ollama:gemma2:2b does not answer: ollama: no credit left" in ran.text
    assert moa.run("doctor", "--call", "--offline", env=env).code == 2


def test_doctor_without_settings_tells_of_a_server_on_this_machine(
    moa: Moa, ollama: Upstream
) -> None:
    ran = moa.run("doctor", env=at(ollama, "ollama"))
    assert "models of ollama on this machine, as no key or profile is set" in ran.text
    assert "OK     ollama: has gemma2:2b" in ran.text


def test_what_is_asked_is_said_before_a_slow_model_answers(moa: Moa, ollama: Upstream) -> None:
    ollama.always("gemma2:2b", Reply(stall_after=0))
    with moa.terminal("setup", "--yes", env=at(ollama, "ollama"), columns=120) as terminal:
        terminal.wait_for("asking ollama:qwen2.5:7b, ollama:llama3.2:3b, ollama:gemma2:2b")
        ollama.wait_for(lambda: len(ollama.chats()) == 3)
        terminal.send("\x03")
        assert terminal.wait() == 130
    assert not (moa.config / "config.toml").exists()


def test_a_budget_that_is_reached_is_told_and_nothing_is_asked(moa: Moa) -> None:
    priced = {"id": "gpt-5", "pricing": {"prompt": "0.00001", "completion": "0.00001"}}
    (moa.config / "config.toml").write_text("[budget]\nday = 0.0000001  # very little\n")
    with Upstream(api_key=KEY, models=(priced,)) as server:
        ran = moa.run("setup", "--yes", env=at(server, "openai", OPENAI_API_KEY=KEY))
    assert ran.code == 3
    assert "openai:gpt-5 was not asked: budget.day" in ran.err
    assert server.chats() == []
    assert "# very little" in (moa.config / "config.toml").read_text()

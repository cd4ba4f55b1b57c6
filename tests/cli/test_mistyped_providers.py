"""A prompt never goes to a provider that was not meant: a mistyped one is an error before anything
is sent, read or saved, wherever the model's name comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.folders import answer, single, write_run
from tests.support.bench.own_runs import write_prompts
from tests.support.command import Moa, Ran
from tests.support.server import serving
from tests.support.upstream import Upstream

WORD = "krokodil"
SAID = "there is no provider `labb` (model `labb:secret`); did you mean `lab`?"
HOW = "(if the colon is part of the model id, put the provider before it: `together:labb:secret`)"


class Elsewhere(Moa):
    """A machine on which Together's address and key are another upstream's, which nothing may
    reach."""

    def __init__(self, home: Path, meant: Upstream, together: Upstream) -> None:
        super().__init__(home, meant.url)
        self.environment |= {"TOGETHER_BASE_URL": together.url, "TOGETHER_API_KEY": "t" * 9}
        self.reached = [meant, together]

    def unheard(self) -> bool:
        """Whether neither upstream was asked anything at all."""
        return all(upstream.requests == [] for upstream in self.reached)


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Iterator[Elsewhere]:
    """The command; `lab` and Together are two upstreams."""
    with Upstream() as together:
        yield Elsewhere(tmp_path, upstream, together)


def refusal(ran: Ran) -> str:
    """The one line of a refused command."""
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return ran.err


COMMANDS = [
    ["ask", WORD],
    ["ask", "--dry-run", WORD],
    ["ask", "--estimate", WORD],
    ["ask", "--save-profile", "kept", WORD],
    ["chat"],
    ["serve", "--port", "0"],
    ["batch", "-", "-"],
    ["bench", "run", "mine.jsonl", "-y"],
    ["profile", "new", "kept"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda given: "-".join(given[:2]))
def test_a_mistyped_provider_in_an_option_ends_every_command(
    moa: Elsewhere, command: list[str]
) -> None:
    write_prompts(moa, 1)
    ran = moa.run(*command, "-m", "lab:a,labb:secret", stdin=WORD.encode())
    assert refusal(ran) == f"moa: --reference-model: {SAID} {HOW}\n"
    assert moa.unheard()
    assert not (moa.config / "profiles" / "kept.toml").exists()
    assert not (moa.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--reference-model", "labb:secret"], "--reference-model"),
        (["--reference-models", "labb:secret"], "--reference-model"),
        (["--reference_models", "lab:a", "--reference_models", "labb:secret"], "--reference-model"),
        (["-a", "labb:secret"], "--aggregator"),
        (["--aggregator", "labb:secret"], "--aggregator"),
        (["--model", "labb:secret"], "--aggregator"),
        (["--judge-model", "labb:secret"], "--judge-model"),
        # What no turn would call is wrong all the same.
        (["-r", "0", "-m", "labb:secret"], "--reference-model"),
    ],
)
def test_each_spelling_of_an_option_is_refused(
    moa: Elsewhere, arguments: list[str], option: str
) -> None:
    assert refusal(moa.run("ask", *arguments, WORD)) == f"moa: {option}: {SAID} {HOW}\n"
    assert moa.unheard()


@pytest.mark.parametrize("variable", ["MOA_AGGREGATOR", "MOA_REFERENCE_MODELS", "MOA_JUDGE"])
@pytest.mark.parametrize("command", [["ask", WORD], ["chat"], ["serve", "--port", "0"]])
def test_a_variable_is_refused(moa: Elsewhere, variable: str, command: list[str]) -> None:
    ran = moa.run(*command, env={variable: "labb:secret"}, stdin=WORD.encode())
    assert refusal(ran) == f"moa: {variable}: {SAID} {HOW}\n"
    assert moa.unheard()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"proposers": [{"model": "lab:a"}, {"model": "labb:secret"}]}, "proposers[2].model"),
    ({"aggregator": {"model": "labb:secret"}}, "aggregator.model"),
    (
        {"aggregator": {"model": "lab:agg", "fallbacks": ["lab:b", "labb:secret"]}},
        "aggregator.fallbacks[2]",
    ),
    (
        {
            "layers": [
                {"proposers": [{"model": "lab:a"}]},
                {"proposers": [{"model": "labb:secret"}]},
            ]
        },
        "layers[2].proposers[1].model",
    ),
    ({"rounds": 0, "proposers": [{"model": "labb:secret"}]}, "proposers[1].model"),
    ({"judge": "labb:secret"}, "judge"),
]


@pytest.mark.parametrize(("changes", "key"), BAD, ids=lambda given: given if "." in given else "")
def test_a_profile_with_a_mistyped_provider_is_not_half_asked(
    moa: Elsewhere, changes: dict[str, Any], key: str
) -> None:
    table = {"proposers": [{"model": "lab:a"}], "aggregator": "agg", **changes}
    proposers = table.pop("proposers")
    path = moa.profile("lab", *proposers, aggregator=table.pop("aggregator"), **table)
    said = f"moa: {path}: `{key}`: {SAID} {HOW}\n"
    for command in (
        ["ask", WORD],
        ["ask", "-p", str(path), WORD],
        ["chat"],
        ["profile", "check", "lab"],
    ):
        assert refusal(moa.run(*command, stdin=WORD.encode())) == said
    # A wrong file does not hide behind an option either.
    assert refusal(moa.run("ask", "-m", "lab:a", "-a", "lab:agg", WORD)) == said
    assert moa.unheard()


def test_the_commands_on_profiles_stay_usable_and_name_the_fault(moa: Elsewhere) -> None:
    path = moa.profile("bad", "a", {"model": "labb:secret"})
    fault = f"{path}: `proposers[2].model`: {SAID}"
    ran = moa.run("profile", "list")
    assert ran.code == 0
    assert f"broken: {fault}" in ran.text
    ran = moa.run("profile", "show", "bad")
    assert (ran.code, ran.err) == (2, f"moa: {fault} {HOW}\n")
    assert "labb:secret" in ran.text
    ran = moa.run("profile", "check")
    assert ran.code == 2
    assert f"ERROR  {fault}\n" in ran.text
    ran = moa.run("profile", "copy", "bad", "copied")
    copied = moa.config / "profiles" / "copied.toml"
    assert (ran.code, ran.text) == (0, f"{copied}\n")
    assert ran.err == f"moa: {copied}: `proposers[2].model`: {SAID} {HOW}\n"
    ran = moa.run("profile", "edit", "bad", env={"EDITOR": "true", "VISUAL": None})
    assert refusal(ran) == f"moa: {fault} {HOW}\n"
    assert moa.run("profile", "delete", "bad", "-y").code == 0


def test_a_provider_of_that_name_in_the_settings_makes_it_right(
    moa: Elsewhere, upstream: Upstream
) -> None:
    lab = moa.settings()["providers"]["lab"]
    moa.configure(providers={"lab": lab, "labb": lab})
    ran = moa.run("ask", "-m", "labb:secret", WORD)
    assert (ran.code, ran.text) == (0, "ok\n")
    assert [request.model for request in upstream.chats()] == ["secret", "agg"]


def test_an_id_with_a_colon_is_written_with_its_provider(moa: Elsewhere) -> None:
    ran = moa.run("ask", "-m", "together:org/model:free,org/plain", "-a", "lab:agg", WORD)
    assert ran.code == 0
    assert sorted(request.model for request in moa.reached[1].chats()) == [
        "org/model:free",
        "org/plain",
    ]


def test_an_id_that_looks_mistyped_is_written_with_its_provider(moa: Elsewhere) -> None:
    # Together lists models of the vendor `openai` under that name.
    names = "together:lab/x,together:lab;x,openai/gpt-oss-120b"
    ran = moa.run("ask", "-m", names, "-a", "lab:agg", WORD)
    assert ran.code == 0
    asked = sorted(request.model for request in moa.reached[1].chats())
    assert asked == ["lab/x", "lab;x", "openai/gpt-oss-120b"]


def test_an_id_may_hold_spaces_behind_its_provider(moa: Moa, upstream: Upstream) -> None:
    ids = ["My Model 7B", "a  b:c"]
    ran = moa.run("ask", "-m", ", ".join(f"lab:{name}" for name in ids), WORD)
    assert (ran.code, ran.text) == (0, "ok\n")
    assert sorted(request.model for request in upstream.chats()) == [*ids, "agg"]
    there = moa.folder / "my models" / "small one.gguf"
    ran = moa.run("ask", "-r", "0", "-a", f"local:{there}", WORD)
    assert ran.code != 0
    assert f"local: {there} is not there" in ran.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab: x", "is not a model name: 'lab: x'"),
        ("lab:x lab:y", "`lab:x lab:y` names several models"),
        ("org/model:free", "put the provider before it: `together:org/model:free`"),
        ("Lab:x", "did you mean `lab`?"),
        ("lab :x", "is not a model name: 'lab :x'"),
        (":x", "`:x` has no known provider before its colon"),
        ("lab:", "`lab:` names only a provider, not a model"),
        ("lab", "`lab` names only a provider, not a model"),
        ("lab/x:y", "did you mean `lab:x:y`?"),
        ("lab：x", "`lab：x` holds a full-width colon (did you mean `lab:x`?)"),
        ("LAB", "`LAB` does not name a model (did you mean `lab:model-id`?)"),
        ("lab∶x", "it holds U+2236 (did you mean `lab:x`?"),
        ("lab;x", "it holds `;` (did you mean `lab:x`?"),
        ("Lab=x", "it holds `=` (did you mean `lab:x`?"),
        ("\u200b", "it holds U+200B"),
        (
            "../../x",
            "it holds `.` (If the model id is spelled that way, write it with its provider",
        ),
        ("lab/x", "did you mean `lab:x`? Otherwise: `together:lab/x`"),
        ("ollama/llama3.2", "did you mean `ollama:llama3.2`?"),
        ("http://me:hunter2@host/v1", "an address is not a model name"),
    ],
)
def test_names_that_lead_nowhere_are_refused(moa: Elsewhere, name: str, said: str) -> None:
    for option in ("-m", "-a"):
        line = refusal(moa.run("ask", option, name, WORD))
        assert said in line
        assert "hunter2" not in line
    assert moa.unheard()


@pytest.mark.parametrize(
    "line",
    [
        "/models lab:a labb:secret",
        "/add labb:secret",
        "/aggregator labb:secret",
        "/retry labb:secret",
        "/remerge labb:secret",
        "/set aggregator.model labb:secret",
        '/set aggregator.fallbacks ["lab:a", "labb:secret"]',
        "/profile bad",
    ],
)
def test_a_command_of_the_chat_is_refused_and_changes_nothing(
    moa: Elsewhere, upstream: Upstream, line: str
) -> None:
    moa.profile("bad", "a", {"model": "labb:secret"})
    ran = moa.run("chat", stdin=f"first\n{line}\nthird\n".encode())
    assert ran.text == "ok\nok\n"
    assert f"{SAID} {HOW}\n" in ran.err
    assert moa.reached[1].requests == []
    asked = [request.messages[-1]["content"] for request in upstream.chats("agg")]
    assert asked == ["first", "third"]
    # The turn before stays part of the conversation.
    assert [message["content"] for message in upstream.chats("agg")[1].messages[1:]] == [
        "first",
        "ok",
        "third",
    ]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"proposers": ["lab:a", "labb:secret"]}, "moa.proposers[1]"),
        ({"aggregator": "labb:secret"}, "moa.aggregator"),
        ({"aggregator": "labb:secret", "rounds": 0}, "moa.aggregator"),
    ],
)
def test_a_servers_request_is_a_400_that_names_the_field(
    moa: Elsewhere, asked: dict[str, Any], param: str
) -> None:
    moa.profile("bad", "a", {"model": "labb:secret"})
    with serving(moa) as server:
        for stream in (False, True):
            answered = server.ask(moa=asked, stream=stream)
            assert answered.status_code == 400
            error = answered.json()["error"]
            assert (error["param"], error["code"]) == (param, "invalid_value")
            assert error["message"] == f"`{param}`: {SAID} {HOW}"
        bad = server.ask(model="bad")
        assert (bad.status_code, bad.json()["error"]["code"]) == (404, "model_not_found")
        listed = [model["id"] for model in server.get("/v1/models").json()["data"]]
        assert "lab" in listed
        assert "bad" not in listed
    assert moa.reached[1].requests == []
    assert moa.reached[0].chats() == []


def test_a_judge_is_refused_before_its_folder_is_made(moa: Elsewhere) -> None:
    items = [{"id": "1", "prompt": WORD}]
    run = write_run(moa.folder / "run", items, [single("1", answer("a", WORD))])
    before = sorted(run.rglob("*"))
    ran = moa.run("bench", "judge", str(run), "--judge", "labb:secret", "-y")
    assert refusal(ran) == f"moa: --judge: {SAID} {HOW}\n"
    assert sorted(run.rglob("*")) == before
    assert moa.unheard()


def test_compare_refuses_a_profile_before_anything_is_asked(moa: Elsewhere) -> None:
    path = moa.profile("bad", "a", {"model": "labb:secret"})
    for arguments in (["--profiles", "lab,bad"], ["-p", "bad"]):
        with moa.terminal("compare", *arguments, WORD, columns=400) as terminal:
            assert terminal.wait() == 2
            assert f"moa: {path}: `proposers[2].model`: {SAID}" in "\n".join(terminal.lines())
    assert moa.unheard()


def test_a_price_for_nobody_is_told_of_and_stops_nothing(moa: Elsewhere) -> None:
    price = {"prompt": 1, "completion": 1}
    moa.configure(providers=moa.settings()["providers"], prices={"labb:secret": price})
    where = f"{moa.config / 'config.toml'}: `prices.labb:secret`"
    said = f"moa: {where}: {SAID} {HOW}\n"
    ran = moa.run("ask", WORD)
    assert (ran.code, ran.text) == (0, "ok\n")
    assert said in ran.err
    ran = moa.run("config", "set", "retries", "1")
    assert ran.code == 0
    assert said in ran.err


def test_models_of_an_unknown_provider_are_not_asked_for(moa: Elsewhere) -> None:
    for name in ("labb", "labb:secret"):
        assert "there is no provider" in refusal(moa.run("models", name))
    assert moa.unheard()

"""The library: one call, or the events, with or without clients of one's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import moa_cli
from moa_cli import (
    Aggregator,
    Conversation,
    Event,
    Profile,
    ProfileError,
    Proposer,
    ResponseFormat,
    Turn,
    UsageError,
    ask,
    ask_async,
    load_profile,
    open_clients,
    run_turn,
)
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import load_config
from moa_cli.core.errors import StoreError
from moa_cli.engine import Limits
from moa_cli.store.store import Store
from tests.support.attached import PNG, pdf
from tests.support.mixtures import mixture
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(api_key="k")
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    return upstream


def test_all_names_of_the_package_are_there() -> None:
    for name in moa_cli.__all__:
        assert getattr(moa_cli, name) is not None
    assert set(moa_cli.__all__) <= set(dir(moa_cli))
    with pytest.raises(AttributeError):
        _ = moa_cli.no_such_name


def test_one_call_returns_the_turn(together: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(text="blue"))
        turn = ask("why?", profile=load_profile("together"))
    assert isinstance(turn, Turn)
    assert (turn.reply, turn.status, turn.profile) == ("blue", "finished", "together")
    assert [proposal.text for proposal in turn.proposals[0]] == ["blue"] * 4


def test_files_go_with_the_prompt(
    together: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(PNG)
    (tmp_path / "paper.pdf").write_bytes(pdf("A claim"))
    profile = Profile(name="solo", rounds=0, aggregator=Aggregator(model="together:some-model"))
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        files: list[str | Path] = [str(tmp_path / "photo.png"), tmp_path / "paper.pdf"]
        turn = ask("Do they agree?", profile=profile, files=files)
        [request] = upstream.chats()
        assert [part["type"] for part in request.messages[0]["content"]] == [
            *("text", "image_url", "text")
        ]
        assert turn.user == "Do they agree?\n[image: photo.png]\n[file: paper.pdf]\nA claim"
        assert [part.name for part in turn.parts] == ["", "photo.png", "paper.pdf"]
        with pytest.raises(UsageError, match="cannot be read"):
            ask("Well?", profile=profile, files=["no such file"])
        assert len(upstream.chats()) == 1


def test_without_a_profile_the_default_one_answers_under_the_environment(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        monkeypatch.setenv("MOA_ROUNDS", "0")
        assert ask("why?").profile == "together"
        assert len(upstream.chats()) == 1


def test_a_failed_turn_is_returned_not_raised(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(status=400))
        turn = ask("why?", profile="together")
    assert (turn.status, turn.reply) == ("failed", None)
    assert turn.error is not None
    assert len(turn.causes) == 4


def test_a_conversation_and_clients_can_be_kept(
    together: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> list[str]:
        clients = open_clients()
        profile = load_profile("together")
        try:
            first = await ask_async("one", profile=profile, clients=clients)
            conversation = moa_cli.Conversation(turns=(first,))
            events: list[str] = [
                event.kind async for event in run_turn(profile, conversation.ask("two"), clients)
            ]
        finally:
            await clients.aclose()
        return events

    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        upstream.always("*", Reply(text="yes"))
        kinds = asyncio.run(talk())
        assert upstream.chats()[-1].messages[1:] == [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "two"},
        ]
    assert (kinds[0], kinds[-1]) == ("turn_started", "turn_finished")


def test_an_unknown_profile_is_an_error_with_a_hint() -> None:
    with pytest.raises(ProfileError) as raised:
        ask("why?", profile="tgether")
    assert raised.value.hint == "did you mean `together`?"


def test_a_mistyped_provider_is_refused_before_anything_is_sent(
    together: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        '[[proposers]]\nmodel = "org/a"\n'
        '[aggregator]\nmodel = "org/agg"\nfallbacks = ["opnai:secret"]\n'
    )
    in_code = Profile(
        name="mine",
        proposers=(Proposer(model="org/a"),),
        aggregator=Aggregator(model="opnai:secret"),
    )
    said = "there is no provider `opnai` (model `opnai:secret`); did you mean `openai`?"

    async def events() -> list[Event]:
        clients = open_clients()
        try:
            asked = moa_cli.Conversation().ask("why?")
            return [event async for event in run_turn(in_code, asked, clients)]
        finally:
            await clients.aclose()

    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        for profile in (str(path), load_profile(str(path)), in_code):
            with pytest.raises(ProfileError) as raised:
                ask("why?", profile=profile)
            assert said in raised.value.message
        with pytest.raises(ProfileError) as raised:
            ask("why?", profile=str(path))
        assert raised.value.message == f"{path}: `aggregator.fallbacks[1]`: {said}"
        with pytest.raises(ProfileError, match=r"`aggregator\.model`: there is no provider"):
            asyncio.run(events())
        monkeypatch.setenv("MOA_AGGREGATOR", "opnai:secret")
        with pytest.raises(ProfileError, match=r"^MOA_AGGREGATOR: there is no provider"):
            ask("why?")
        assert upstream.requests == []


LISTED: list[dict[str, object]] = [
    {"id": name, "pricing": {"input": 1.0, "output": 100.0}} for name in ("a", "b", "agg")
]


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """The provider `lab`, whose models have prices, and its profile as the default one."""
    monkeypatch.setenv("LAB_KEY", "k")
    with Upstream(models=LISTED) as upstream:
        upstream.always("*", Reply(text="one two three", usage=(10, 3)))
        yield upstream


def settle(upstream: Upstream, **budget: object) -> Profile:
    """Write the settings; a profile of one proposer."""
    folder = Path(os.environ["MOA_CONFIG_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    table: dict[str, object] = {
        "retries": 0,
        "providers": {"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        "budget": budget,
    }
    (folder / "config.toml").write_text(tomli_w.dumps(table))
    return mixture("a", max_tokens=50)


def written_down() -> dict[str, int]:
    """Calls by model, in the ledger."""
    store = Store.open()
    found = {row.model: row.usage.calls for row in store.spending.by_month()}
    store.close()
    return found


def test_a_budget_of_nothing_lets_nothing_be_asked(priced: Upstream) -> None:
    profile = settle(priced, day=0)
    turn = ask("why?", profile=profile)
    assert (turn.status, turn.reply) == ("failed", None)
    assert turn.error is not None
    assert turn.error.kind == "BudgetReached"
    assert "budget.day" in turn.error.message
    assert priced.chats() == []


def test_what_the_library_spends_is_written_down_and_counts_for_the_day(priced: Upstream) -> None:
    # A turn may take 0.0101, and takes 0.00062.
    profile = settle(priced, day=0.011)
    assert ask("why?", profile=profile).reply == "one two three"
    assert written_down() == {"lab:a": 1, "lab:agg": 1}
    assert ask("why?", profile=profile).status == "finished"
    assert ask("why?", profile=profile).capped
    assert len(priced.chats()) == 4


def test_the_events_over_open_clients_are_held_to_the_budgets(priced: Upstream) -> None:
    profile = settle(priced, session=0.011)

    async def talk(limits: Limits | None = None) -> list[str]:
        clients = open_clients()
        try:
            kinds: list[str] = []
            for _ in range(3):
                asked = moa_cli.Conversation().ask("hi")
                told = [
                    event.kind async for event in run_turn(profile, asked, clients, limits=limits)
                ]
                kinds.append(told[-1])
            return kinds
        finally:
            await clients.aclose()

    assert asyncio.run(talk()) == ["turn_finished", "turn_finished", "turn_failed"]
    assert written_down() == {"lab:a": 2, "lab:agg": 2}
    # Another session; and limits of the caller's own are the caller's.
    assert asyncio.run(talk())[0] == "turn_finished"
    assert asyncio.run(talk(Limits())) == ["turn_finished"] * 3
    assert written_down() == {"lab:a": 4, "lab:agg": 4}


FORKS = """
import asyncio, os
from moa_cli import Conversation, load_profile, open_clients, run_turn

profile = load_profile("mix")

async def turn():
    return [event.kind async for event in run_turn(profile, Conversation().ask("hi"), clients)][-1]

clients = open_clients()
loop = asyncio.new_event_loop()
told = [loop.run_until_complete(turn())]
child = os.fork()
if not child:
    loop = asyncio.new_event_loop()
told += [loop.run_until_complete(turn()) for _ in range(2)]
if child:
    os.waitpid(child, 0)
    told.append(loop.run_until_complete(turn()))
    loop.run_until_complete(clients.aclose())
print(*told, flush=True)
if not child:
    os._exit(0)
"""


def forked(upstream: Upstream, **budget: object) -> list[list[str]]:
    """What the turns of a copy of a process came to, and those of the process itself."""
    settle(upstream, **budget)
    folder = Path(os.environ["MOA_CONFIG_DIR"]) / "profiles"
    folder.mkdir(exist_ok=True)
    table = {
        "max_tokens": 50,
        "proposers": [{"model": "lab:a"}],
        "aggregator": {"model": "lab:agg"},
    }
    (folder / "mix.toml").write_text(tomli_w.dumps(table))
    ran = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "cannot be written down" not in ran.stderr
    return [line.split() for line in ran.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("budget", [{}, {"day": 1}])
def test_a_copy_of_a_process_keeps_books_of_its_own(
    priced: Upstream, budget: dict[str, float]
) -> None:
    child, parent = forked(priced, **budget)
    assert child == ["turn_finished"] * 3
    assert parent == ["turn_finished"] * 4
    assert len(priced.chats()) == 12
    assert written_down() == {"lab:a": 6, "lab:agg": 6}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_copy_of_a_process_has_its_parents_session_behind_it(priced: Upstream) -> None:
    # A turn may take 0.0101, and takes 0.00062: the second may be asked, the third may not.
    child, parent = forked(priced, session=0.011)
    assert child == ["turn_finished", "turn_finished", "turn_failed"]
    assert parent == ["turn_finished", "turn_finished", "turn_failed", "turn_failed"]


def test_clients_of_ones_own_are_held_to_the_budgets_by_ask(priced: Upstream) -> None:
    profile = settle(priced, day=0)

    async def talk() -> Turn:
        pool = ClientPool(load_config())
        try:
            return await ask_async("why?", profile=profile, clients=pool)
        finally:
            await pool.aclose()

    assert asyncio.run(talk()).capped
    assert priced.chats() == []


def test_without_saving_nothing_is_written_down(
    priced: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = settle(priced)
    monkeypatch.setenv("MOA_SAVE", "0")
    assert ask("why?", profile=profile).status == "finished"
    assert not (Path(os.environ["MOA_DATA_DIR"]) / "conversations.db").exists()
    # But a budget of the day needs it.
    settle(priced, day=1)
    assert ask("why?", profile=profile).status == "finished"
    assert written_down() == {"lab:a": 1, "lab:agg": 1}


def test_a_budget_of_the_day_that_cannot_be_kept_is_an_error(priced: Upstream) -> None:
    profile = settle(priced, day=1)
    folder = Path(os.environ["MOA_DATA_DIR"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    with pytest.raises(StoreError, match=r"budget\.day cannot be kept"):
        ask("why?", profile=profile)
    assert priced.chats() == []


def test_a_budget_of_the_day_names_what_is_in_the_way_of_its_journal(priced: Upstream) -> None:
    profile = settle(priced, day=1)
    Store.open().close()
    running = Path(os.environ["MOA_DATA_DIR"]) / "running"
    if running.exists():
        running.rmdir()
    running.write_text("in the way")
    turn = ask("why?", profile=profile)
    assert turn.error is not None
    assert f"budget.day cannot be kept: {running}: " in turn.error.message
    assert priced.chats() == []


def test_in_an_event_loop_ask_names_what_to_use_instead(together: Upstream) -> None:
    async def handler() -> None:
        ask("why?")

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(handler())
    said = "ask() cannot run inside a running event loop; use `await ask_async(…)`"
    assert str(raised.value) == said
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": None}, "prompt must be str, not NoneType"),
        ({"prompt": b"why?"}, "prompt must be str, not bytes"),
        ({"profile": ["lab:a"]}, "profile must be Profile or str or Path or None, not list"),
        ({"profile": 3}, "profile must be Profile or str or Path or None, not int"),
        ({"conversation": []}, "conversation must be Conversation or None, not list"),
        ({"response_format": {}}, "response_format must be ResponseFormat or None, not dict"),
        ({"files": "notes.txt"}, "files must be a list of files, not str"),
        (
            {"files": Path("notes.txt")},
            f"files must be a list of files, not {type(Path()).__name__}",
        ),
        ({"sinks": None}, "sinks must be a list of sinks, not NoneType"),
        ({"sinks": [len]}, f"a sink needs a method `handle` that is not async; {len!r} has none"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as raised:
        ask(**{"prompt": "why?", **arguments})
    assert str(raised.value) == said


def test_a_sink_that_must_be_awaited_is_refused() -> None:
    class Awaited:
        async def handle(self, event: Event) -> None: ...

        async def close(self) -> None: ...

    sinks: Any = [Awaited()]
    with pytest.raises(TypeError, match="a method `handle` that is not async"):
        ask("why?", sinks=sinks)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("text",), "`type` must be json_object or json_schema"),
        (("json_schema", "town", "{}"), "`json_schema.schema` is not a JSON object"),
        (("json_schema", "a town", {}), "`json_schema.name` must have 1 to 64 of the letters "),
        (
            ("json_schema", "town", {"type": "objekt"}),
            '`json_schema.schema.type` is not a type: "objekt"; ',
        ),
    ],
)
def test_a_format_in_code_is_checked_before_anything_is_sent(
    priced: Upstream, wrong: tuple[Any, ...], said: str
) -> None:
    profile = settle(priced)

    async def events() -> None:
        asked, reply = Conversation().ask("why?"), ResponseFormat(*wrong)
        async with aclosing(open_clients()) as clients:
            run_turn(profile, asked, clients, response_format=reply)

    for attempt in (
        lambda: ask("why?", profile=profile, response_format=ResponseFormat(*wrong)),
        lambda: asyncio.run(events()),
    ):
        with pytest.raises(UsageError) as raised:
            attempt()
        assert raised.value.message.startswith(f"response_format: {said}")
    assert priced.chats() == []


def test_a_schema_without_a_name_has_one_for_endpoints(priced: Upstream) -> None:
    priced.always("agg", Reply(text="{}"))
    ask("why?", profile=settle(priced), response_format=ResponseFormat("json_schema"))
    assert priced.chats("agg")[0].body["response_format"]["json_schema"]["name"] == "reply"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": "x"}, "`rounds` must be a whole number, not 'x'"),
        ({"rounds": -1}, "`rounds` must be between 0 and 10, not -1"),
        ({"rounds": 99}, "`rounds` must be between 0 and 10, not 99"),
        ({"proposers": ()}, "lab: `rounds` is 1, but there are no proposers"),
        ({"proposers": (Proposer(model=""),)}, "`proposers[1].model` is missing"),
        (
            {"proposers": Proposer(model="a")},
            "proposers must be a tuple of Proposer, not Proposer(",
        ),
        ({"proposers": (Proposer(model=()),)}, "`proposers[1].model` must be a text "),  # type: ignore[arg-type]
        ({"proposers": ("lab:a",)}, "a proposer must be a Proposer, not 'lab:a'"),
        ({"aggregator": "lab:a"}, "the aggregator must be an Aggregator, not 'lab:a'"),
        ({"strategy": "best"}, "`strategy` must be one of synthesize, fusion, "),
        ({"temperature": "hot"}, "`temperature` must be a number, not 'hot'"),
    ],
)
def test_a_profile_in_code_is_checked_like_one_in_a_file(
    priced: Upstream, changes: dict[str, Any], said: str
) -> None:
    profile = replace(settle(priced), name="lab", **changes)

    async def events() -> None:
        clients = open_clients()
        try:
            run_turn(profile, Conversation().ask("why?"), clients)
        finally:
            await clients.aclose()

    for attempt in (lambda: ask("why?", profile=profile), lambda: asyncio.run(events())):
        with pytest.raises(ProfileError) as raised:
            attempt()
        assert raised.value.message.startswith(said)
    assert priced.chats() == []


def test_several_names_of_a_model_may_be_a_list_as_in_a_file() -> None:
    names: Any = ["lab:a", "lab:b"]
    assert Proposer(model=names) == Proposer(model="lab:a", alternatives=("lab:b",))


def test_a_blank_prompt_asks_nobody(priced: Upstream) -> None:
    profile = settle(priced)
    for prompt in ("", " \n"):
        with pytest.raises(UsageError, match="nothing to ask"):
            ask(prompt, profile=profile)
    assert priced.chats() == []


def test_a_profile_may_be_a_path(together: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("mine.toml").absolute()
    path.write_text('rounds = 0\n[aggregator]\nmodel = "together:a"\n')
    with together as upstream:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        assert ask("why?", profile=path).reply == "ok"
    assert load_profile(path).name == "mine"


def test_calls_from_many_threads_share_one_limit(
    together: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOA_CONFIG_DIR", str(tmp_path))
    (tmp_path / "config.toml").write_text("concurrency = 3\nsave = false")
    profile = load_profile("together")
    with together as upstream, ThreadPoolExecutor(6) as threads:
        monkeypatch.setenv("TOGETHER_BASE_URL", upstream.url)
        # None is answered before three are in flight.
        upstream.always("*", Reply(text="an answer", pause=0.05, after=lambda: upstream.peak >= 3))
        turns = list(threads.map(lambda _: ask("hi", profile=profile), range(6)))
        assert {turn.status for turn in turns} == {"finished"}
        assert upstream.peak == 3

"""A profile file is read whole or refused with file and key; what is written reads back equal;
nothing outside the profiles folder is touched, and nothing is lost or left over on the way."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.config.schema import Config
from moa_cli.core import paths
from moa_cli.core.conversation import Message
from moa_cli.core.errors import ProfileError
from moa_cli.core.strategy import STRATEGIES
from moa_cli.engine.prompts import with_references
from moa_cli.models.providers import Providers
from moa_cli.profile import (
    Aggregator,
    Layer,
    Profile,
    Proposer,
    build,
    check_profile_name,
    delete,
    dump,
    find,
    list_profiles,
    load,
    save,
    short_name,
)

SHIPPED = sorted(path.stem for path in paths.shipped_profiles_dir().glob("*.toml"))
AGGREGATOR = '[aggregator]\nmodel = "a"\n'
SMALL = Profile(name="small", aggregator=Aggregator(model="a"), rounds=0)


def write(text: str | bytes, path: str = "own.toml") -> str:
    data = text if isinstance(text, bytes) else text.encode()
    Path(path).write_bytes(data)
    return f"./{path}"


def read(text: str) -> Profile:
    return load(write(text))


def refusal(text: str | bytes) -> ProfileError:
    """Why a file with this text is refused."""
    path = write(text)
    with pytest.raises(ProfileError) as raised:
        load(path)
    return raised.value


def user_file(name: str, text: str = AGGREGATOR) -> Path:
    folder = paths.make_private(paths.user_profiles_dir())
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


# --- the shipped ones


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_loads_and_makes_sense(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert profile.description
    assert profile.rounds >= 1
    known = Providers(Config(), {})
    known.check(profile)
    for number in range(1, profile.rounds + 1):
        layer = profile.layer(number)
        assert layer
        assert all(proposer.max_tokens and proposer.temperature is not None for proposer in layer)
        assert len({proposer.name for proposer in layer}) == len(layer)
    assert build(name, tomllib.loads(dump(profile))) == profile


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_mixture_of_four_or_more_does_not_wait_for_the_slowest(name: str) -> None:
    profile = load(name)
    for number in range(1, profile.rounds + 1):
        count = len(profile.layer(number))
        assert profile.quorum_of(number) == (count - 1 if count >= 4 else None)
        assert profile.patience_of(number) <= 10


def test_the_profiles_that_stand_in_when_none_is_named_are_shipped() -> None:
    assert {"together", "openrouter", "openai", "local"} <= set(SHIPPED)
    assert {path.source for path in list_profiles()} == {"shipped"}


def test_the_papers_mixtures_are_as_in_the_paper() -> None:
    lite, full, gpt4o = map(load, ("paper-moa-lite", "paper-moa", "paper-moa-gpt4o"))
    assert [profile.rounds for profile in (lite, full, gpt4o)] == [1, 2, 2]
    assert lite.proposers == full.proposers == gpt4o.proposers
    assert len(full.proposers) == 6
    assert (lite.aggregator.model, full.aggregator.model, gpt4o.aggregator.model) == (
        "Qwen/Qwen1.5-72B-Chat",
        "Qwen/Qwen1.5-110B-Chat",
        "openai:gpt-4o-2024-05-13",
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_has_a_shipped_profile(strategy: str) -> None:
    assert any(load(name).strategy == strategy for name in SHIPPED)


def test_recursive_self_aggregation_reads_four_of_eight_in_its_own_words() -> None:
    profile = load("recursive")
    assert (profile.rounds, len(profile.layer(1)), profile.references) == (3, 8, 4)
    references = ["It is 41.", "It is 42."]
    [message] = with_references(profile, [Message("user", "How many?")], references)
    assert message.role == "user"
    assert message.content.startswith(
        "You are given a problem and several candidate solutions. Some candidates may be incorrect"
        " or contain errors. Aggregate the useful ideas and produce a single, high-quality"
        " solution. Reason carefully; if candidates disagree, choose the correct path. If all are"
        " incorrect, then attempt a different strategy.\n\nProblem:\n\nHow many?\n\n"
    )
    assert "\n\n---- Solution 1 ----\nIt is 41.\n\n---- Solution 2 ----\nIt is 42.\n\n" in (
        message.content
    )


def test_the_route_asks_the_cheapest_alone_first() -> None:
    profile = load("route")
    assert [stage.proposers for stage in profile.route] == [1, 2]
    assert profile.route[0].verify


def test_the_embedded_profile_needs_nothing_but_the_embedded_model() -> None:
    assert load("local").models() == ("local:smollm2",)


# --- reading


def test_a_whole_profile_is_read() -> None:
    text = """
        description = "all of it"
        rounds = 2
        multi_turn = false
        system = "be brief"
        temperature = 1
        max_tokens = 100
        timeout = 9
        reference_placement = "user"
        on_all_failed = "solo"

        [[proposers]]
        model = "ollama:llama3:8b"
        name = "first"
        temperature = 0
        max_tokens = 5
        system = ""
        timeout = 1.5
        top_p = 1
        seed = 0
        samples = 2
        extra = { repeat_penalty = 1.1, stop = ["x"] }

        [[layers]]
        quorum = 2
        patience = 0.5
        [[layers.proposers]]
        model = "b"
        [[layers]]

        [aggregator]
        model = "c"
        fallbacks = ["d", "e"]
        seed = -1
        """
    first = Proposer(
        model="ollama:llama3:8b",
        name="first",
        temperature=0.0,
        max_tokens=5,
        system="",
        timeout=1.5,
        top_p=1.0,
        seed=0,
        samples=2,
        extra={"repeat_penalty": 1.1, "stop": ["x"]},
    )
    assert read(text) == Profile(
        name="own",
        description="all of it",
        rounds=2,
        multi_turn=False,
        system="be brief",
        temperature=1.0,
        max_tokens=100,
        timeout=9.0,
        reference_placement="user",
        on_all_failed="solo",
        proposers=(first,),
        layers=(
            Layer(proposers=(Proposer(model="b"),), quorum=2, patience=0.5),
            Layer(proposers=(first,)),
        ),
        aggregator=Aggregator(model="c", fallbacks=("d", "e"), seed=-1),
    )


@pytest.mark.parametrize(
    ("text", "rounds"),
    [
        (AGGREGATOR, 0),
        (f"proposers = []\n{AGGREGATOR}", 0),
        (f"[[proposers]]\nmodel = 'b'\n{AGGREGATOR}", 1),
        (f"[[layers]]\nproposers = [{{ model = 'b' }}]\n{AGGREGATOR}", 1),
        (f"[[proposers]]\nmodel = 'b'\n[[layers]]\n[[layers]]\n[[layers]]\n{AGGREGATOR}", 3),
        (f"rounds = 0\n[[proposers]]\nmodel = 'b'\n{AGGREGATOR}", 0),
        (f"rounds = 1\n[[proposers]]\nmodel = 'b'\n[[layers]]\n[[layers]]\n{AGGREGATOR}", 1),
    ],
)
def test_without_rounds_every_layer_counts_once(text: str, rounds: int) -> None:
    assert read(text).rounds == rounds


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tempratur = 1", "tempratur"),
        ("temperature = 'warm'", "temperature"),
        ("temperature = true", "temperature"),
        ("temperature = 2.1", "temperature"),
        ("temperature = -0.1", "temperature"),
        ("temperature = nan", "temperature"),
        ("temperature = inf", "temperature"),
        ("max_tokens = 0", "max_tokens"),
        ("max_tokens = 1.0", "max_tokens"),
        (f"max_tokens = {'9' * 400}", "max_tokens"),
        ("timeout = 0", "timeout"),
        ("timeout = inf", "timeout"),
        (f"timeout = {'9' * 400}", "timeout"),
        ("rounds = -1", "rounds"),
        ("rounds = 11", "rounds"),
        ("rounds = '1'", "rounds"),
        ("multi_turn = 1", "multi_turn"),
        ("system = 1", "system"),
        ("description = ['x']", "description"),
        ("reference_placement = 'assistant'", "reference_placement"),
        ("on_all_failed = ''", "on_all_failed"),
        ("proposers = {}", "proposers"),
        ("proposers = ['b']", "proposers"),
        ("proposers = 3", "proposers"),
        ("layers = true", "layers"),
        ("layers = [1]", "layers"),
        ("[[proposers]]\nmodle = 'b'", "proposers[1].modle"),
        ("[[proposers]]\nname = 'b'", "proposers[1].model"),
        ("[[proposers]]", "proposers[1].model"),
        ("[[proposers]]\nmodel = 'b'\n[[proposers]]\nmodel = 1", "proposers[2].model"),
        ("[[proposers]]\nmodel = ''", "proposers[1].model"),
        ("[[proposers]]\nmodel = 'a b'", "proposers[1].model"),
        ('[[proposers]]\nmodel = "a\\u0007"', "proposers[1].model"),
        ("[[proposers]]\nmodel = 'b'\nsamples = 0", "proposers[1].samples"),
        ("[[proposers]]\nmodel = 'b'\nsamples = 65", "proposers[1].samples"),
        ("[[proposers]]\nmodel = 'b'\ntop_p = 1.5", "proposers[1].top_p"),
        ("[[proposers]]\nmodel = 'b'\nseed = 1.5", "proposers[1].seed"),
        ("[[proposers]]\nmodel = 'b'\nfallbacks = []", "proposers[1].fallbacks"),
        ("[[proposers]]\nmodel = 'b'\nextra = 1", "proposers[1].extra"),
        ("[[proposers]]\nmodel = 'b'\nextra = { x = nan }", "proposers[1].extra"),
        ("[[proposers]]\nmodel = 'b'\nextra = { x = [{ y = -inf }] }", "proposers[1].extra"),
        ("[[proposers]]\nmodel = 'b'\nextra = { x = 2026-01-01 }", "proposers[1].extra"),
        ("[[layers]]\nmodel = 'b'", "layers[1].model"),
        ("quorum = 0", "quorum"),
        ("quorum = true", "quorum"),
        ("patience = -1", "patience"),
        ("patience = inf", "patience"),
        ("[[proposers]]\nmodel = 'b'\n[[layers]]\nquorum = 0", "layers[1].quorum"),
        ("[[proposers]]\nmodel = 'b'\n[[layers]]\npatience = 'long'", "layers[1].patience"),
        ("[[proposers]]\nmodel = 'b'\n[[layers]]\nquorom = 1", "layers[1].quorom"),
        ("[[layers]]", "layers[1].proposers"),
        ("[[layers]]\nproposers = []", "layers[1].proposers"),
        ("[[layers]]\nproposers = [{ model = 1 }]", "layers[1].proposers[1].model"),
        ("[[layers]]\nproposers = [{ seed = 1 }]", "layers[1].proposers[1].model"),
        ("rounds = 1", "rounds"),
        ("rounds = 2\n[[layers]]\nproposers = [{ model = 'b' }]", "rounds"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_key(text: str, key: str) -> None:
    error = refusal(f"{text}\n{AGGREGATOR}")
    assert error.message.startswith("own.toml: ")
    assert f"`{key}`" in error.message


@pytest.mark.parametrize(
    ("aggregator", "key"),
    [
        ("aggregator = 1", "aggregator"),
        ("[aggregator]", "aggregator.model"),
        ("[aggregator]\ntemperature = 1", "aggregator.model"),
        ("[aggregator]\nmodel = 'a'\nfallback = ['b']", "aggregator.fallback"),
        ("[aggregator]\nmodel = 'a'\nfallbacks = 'b'", "aggregator.fallbacks"),
        ("[aggregator]\nmodel = 'a'\nfallbacks = [1]", "aggregator.fallbacks"),
        ("[aggregator]\nmodel = 'a'\nfallbacks = ['b', '']", "aggregator.fallbacks"),
        ("[aggregator]\nmodel = 'a'\nsamples = 2", "aggregator.samples"),
        ("[aggregator]\nmodel = 'a'\nname = 'x'", "aggregator.name"),
        ("[aggregator]\nmodel = 'a'\nextra = { x = nan }", "aggregator.extra"),
    ],
)
def test_a_wrong_aggregator_is_refused_with_file_and_key(aggregator: str, key: str) -> None:
    error = refusal(aggregator)
    assert error.message.startswith("own.toml: ")
    assert f"`{key}`" in error.message


@pytest.mark.parametrize("text", ["", "[[proposers]]\nmodel = 'b'\n"])
def test_a_profile_without_an_aggregator_is_refused_with_its_file(text: str) -> None:
    error = refusal(text)
    assert error.message == "own.toml: there is no [aggregator]"
    assert error.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tempratur = 1", "did you mean `temperature`?"),
        ("[[proposers]]\nmodle = 'b'", "did you mean `model`?"),
        ("[[layers]]\nproposer = []", "did you mean `proposers`?"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(text: str, hint: str) -> None:
    assert refusal(f"{text}\n{AGGREGATOR}").hint == hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("temprature = 1", ("temprature",)),
        ("[[proposers]]\nmodel = 'b'\n[[proposers]]\nmodel = 'a b'", ("proposers", 1, "model")),
        ("[[proposers]]\nmodel = '`aggregator.model`'\nseed = 'x'", ("proposers", 0, "seed")),
        ("[[proposers]]", ("proposers", 0, "model")),
        ("proposers = ['b']", ("proposers",)),
        ("[[layers]]\nproposers = [{ model = 'b' }]\n[[layers]]", ("layers", 1, "proposers")),
        ("[[layers]]\nproposers = [{ modle = 'b' }]", ("layers", 0, "proposers", 0, "modle")),
        ("rounds = 1", ("rounds",)),
        ("'a.b' = 1", ("a.b",)),
        ("'`rounds`' = 1", ("`rounds`",)),
        ('"a\\nrounds[1]" = 1', ("a\nrounds[1]",)),
        ("[[proposers]]\nmodel = 'b'\n'model.x' = 1", ("proposers", 0, "model.x")),
    ],
)
def test_an_error_carries_the_path_of_the_key_to_blame(text: str, path: tuple[str | int]) -> None:
    assert refusal(f"{text}\n{AGGREGATOR}").path == path


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("'aggregator.model'", '"aggregator.model"'),
        ("'proposers[1]'", '"proposers[1]"'),
        ('"a\\nb"', '"a\\nb"'),
        ("'say \"so\"'", '"say \\"so\\""'),
    ],
)
def test_a_key_of_odd_signs_is_told_as_toml_has_it(key: str, shown: str) -> None:
    assert refusal(f"{key} = 1\n{AGGREGATOR}").message == f"own.toml: unknown key `{shown}`"


def test_proposers_that_are_names_are_shown() -> None:
    said = "own.toml: `proposers` must be a list of tables, not a list with 'org/a'"
    assert refusal(f'proposers = ["org/a"]\n{AGGREGATOR}').message == said


def test_an_unknown_key_like_no_other_comes_with_all_there_are() -> None:
    assert "temperature, max_tokens" in str(refusal(f"zzz = 1\n{AGGREGATOR}").hint)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("rounds = 1", "add [[proposers]], name models with -m, or use 0 rounds"),
        (
            "rounds = 2\n[[layers]]\nproposers = [{ model = 'b' }]",
            "use at most 1 round, or add [[layers]]",
        ),
    ],
)
def test_rounds_that_the_layers_do_not_make_up_come_with_the_mend(text: str, hint: str) -> None:
    assert refusal(f"{text}\n{AGGREGATOR}").hint == hint


@pytest.mark.parametrize(
    "content",
    [b"rounds =", b"\xff\xfe\x00", b"[aggregator]\n[aggregator]", b"x = " + b"9" * 5000],
    ids=["cut", "no utf-8", "twice", "long number"],
)
def test_a_file_that_is_no_toml_is_refused_with_its_name(content: bytes) -> None:
    assert refusal(content).message.startswith("own.toml: is not ")


def test_a_file_that_cannot_be_read_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(AGGREGATOR)

    def refuse(*_: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ProfileError, match=r"^own.toml: cannot be read: Permission denied$"):
        load(path)


# --- names and places


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "a\0b",
        "x.",
        "x.toml",
        ".hidden",
        "-x",
        "_x",
        "a b",
        "a\n",
        "naïve",
        "x\u202e",
        "\u0430",  # Cyrillic a
        "a" * 65,
        "C:x",
        "~",
        "%2e%2e",
    ],
)
def test_a_name_that_could_leave_the_folder_or_confuse_is_refused_everywhere(name: str) -> None:
    actions: list[Callable[[str], object]] = [
        check_profile_name,
        delete,
        lambda bad: save(SMALL, bad),
        lambda bad: save(SMALL, bad, overwrite=True),
    ]
    for action in actions:
        with pytest.raises(ProfileError) as raised:
            action(name)
        assert raised.value.message == f"{name!r} cannot be the name of a profile"
        assert raised.value.hint
    assert not paths.config_dir().exists()


@pytest.mark.parametrize("name", ["a", "A-1", "my.mix_2", "0", "a" * 64, "x..y", "console"])
def test_a_plain_name_is_fine_and_stays_in_the_folder(name: str) -> None:
    assert save(SMALL, name).parent == paths.user_profiles_dir()
    assert load(name) == replace(SMALL, name=name)


@pytest.mark.parametrize(
    "wanted",
    ["", ".", "..", "naïve", "a\0b", "../gone", "/gone", "gone.toml", "a/\0", "~nobody/x.toml"],
)
def test_what_is_no_profile_is_not_found_whatever_it_looks_like(wanted: str) -> None:
    with pytest.raises(ProfileError):
        find(wanted)


def test_a_path_far_too_long_is_not_found() -> None:
    with pytest.raises(ProfileError, match="no such profile file"):
        find("x/" * 3000 + "y.toml")


def test_an_explicit_path_comes_before_the_users_and_that_before_a_shipped_one() -> None:
    assert find("together").source == "shipped"
    mine = user_file("together", '[aggregator]\nmodel = "mine"\n')
    assert find("together").path == mine
    assert find("together").source == "user"
    assert load("together").aggregator.model == "mine"
    write('[aggregator]\nmodel = "here"\n', "together.toml")
    assert load("together").aggregator.model == "mine"
    for path in ("together.toml", "./together.toml", str(Path("together.toml").absolute())):
        assert find(path).source == "path"
        assert load(path).aggregator.model == "here"
        assert load(path).name == "together"


def test_a_path_may_begin_in_the_home_folder() -> None:
    (Path.home() / "mine.toml").write_text(AGGREGATOR)
    assert load("~/mine.toml").name == "mine"


def test_a_file_in_the_working_directory_is_no_profile_by_name() -> None:
    write(AGGREGATOR, "own.toml")
    with pytest.raises(ProfileError, match="there is no profile `own`"):
        load("own")


def test_an_unknown_name_comes_with_the_nearest_or_with_all() -> None:
    with pytest.raises(ProfileError) as near:
        load("togehter")
    assert near.value.hint == "did you mean `together`?"
    user_file("zebra")
    with pytest.raises(ProfileError) as far:
        load("qqqq")
    assert "zebra" in str(far.value.hint)
    assert "local" in str(far.value.hint)


def test_the_list_holds_each_name_once_and_nothing_that_is_no_profile() -> None:
    user_file("together")
    user_file("mine")
    folder = paths.user_profiles_dir()
    (folder / "notes.txt").write_text("x")
    (folder / ".mine-abc").write_text("left over")
    (folder / "bad name.toml").write_text(AGGREGATOR)
    listed = list_profiles()
    names = [profile.name for profile in listed]
    assert sorted(names) == sorted({*SHIPPED, "mine"})
    assert {profile.name for profile in listed if profile.source == "user"} == {"together", "mine"}


# --- saving and deleting


def test_a_saved_profile_is_private_and_reads_back() -> None:
    path = save(SMALL, "mine")
    assert load("mine") == replace(SMALL, name="mine")
    assert path.stat().st_mode & 0o077 == 0
    for folder in (path.parent, paths.config_dir()):
        assert folder.stat().st_mode & 0o077 == 0


def test_saving_replaces_nothing_unless_it_is_told_to() -> None:
    path = user_file("mine", "# precious\n")
    with pytest.raises(ProfileError) as raised:
        save(SMALL, "mine")
    assert str(path) in raised.value.message
    assert raised.value.hint
    assert path.read_text() == "# precious\n"
    save(SMALL, "mine", overwrite=True)
    assert load("mine").aggregator.model == "a"
    assert [entry.name for entry in path.parent.iterdir()] == ["mine.toml"]


def test_a_profile_of_ones_own_may_be_called_like_a_shipped_one() -> None:
    save(SMALL, "together")
    assert load("together").aggregator.model == "a"


def files_left() -> list[str]:
    return sorted(entry.name for entry in paths.user_profiles_dir().iterdir())


def test_a_save_that_fails_at_the_last_moment_leaves_the_old_file_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = user_file("mine", "# precious\n")

    def refuse(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ProfileError) as raised:
        save(SMALL, "mine", overwrite=True)
    assert raised.value.message == f"{path}: cannot be written: No space left on device"
    assert path.read_text() == "# precious\n"
    assert files_left() == ["mine.toml"]


def test_a_save_that_is_interrupted_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    paths.make_private(paths.user_profiles_dir())

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(SMALL, "mine")
    assert files_left() == []


def test_a_folder_of_that_name_is_not_replaced() -> None:
    (paths.make_private(paths.user_profiles_dir()) / "mine.toml").mkdir()
    for overwrite in (False, True):
        with pytest.raises(ProfileError):
            save(SMALL, "mine", overwrite=overwrite)
    assert files_left() == ["mine.toml"]


def test_half_a_surrogate_pair_cannot_be_saved_and_leaves_no_file() -> None:
    path = user_file("mine", "# precious\n")
    with pytest.raises(ProfileError, match="not Unicode"):
        save(replace(SMALL, system="a\ud83d"), "mine", overwrite=True)
    assert path.read_text() == "# precious\n"
    assert files_left() == ["mine.toml"]


def test_a_folder_that_cannot_be_made_is_said_so() -> None:
    paths.make_private(paths.config_dir())
    paths.user_profiles_dir().write_text("a file in the way")
    with pytest.raises(ProfileError, match="cannot be written"):
        save(SMALL, "mine")


def test_deleting_takes_the_users_file_and_uncovers_a_shipped_one() -> None:
    mine = user_file("together")
    assert delete("together") == mine
    assert not mine.exists()
    assert find("together").source == "shipped"


def test_a_shipped_profile_cannot_be_deleted() -> None:
    with pytest.raises(ProfileError, match="shipped"):
        delete("together")
    assert find("together").path.is_file()


def test_what_is_not_there_cannot_be_deleted() -> None:
    with pytest.raises(ProfileError, match="there is no profile `gone`"):
        delete("gone")


def test_a_profile_that_cannot_be_deleted_is_said_so() -> None:
    folder = paths.make_private(paths.user_profiles_dir())
    (folder / "mine.toml").mkdir()
    with pytest.raises(ProfileError, match="cannot be deleted"):
        delete("mine")


# --- writing what can be read


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LINES = st.lists(TEXT, max_size=4).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r", '"""\n', "'''", "\\\n"]).map(
        lambda end: end.join(lines)
    )
)
MODEL = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=20)
UNIT = st.floats(0, 1)
JSON = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False).filter(math.isfinite)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "model": MODEL,
    "temperature": optional(st.floats(0, 2)),
    "max_tokens": optional(st.integers(1, 10**9)),
    "system": optional(LINES),
    "timeout": optional(st.floats(0.001, 1e6)),
    "top_p": optional(UNIT),
    "seed": optional(st.integers(-(2**63), 2**63 - 1)),
    "extra": st.dictionaries(TEXT, JSON, max_size=3),
}
PROPOSER = st.builds(Proposer, **SETTINGS, name=optional(TEXT), samples=st.integers(1, 64))
LAYER = st.builds(
    Layer,
    proposers=st.lists(PROPOSER, min_size=1, max_size=2).map(tuple),
    quorum=optional(st.integers(1, 9)),
    patience=optional(st.floats(0, 1e6)),
)
AGGREGATORS = st.builds(Aggregator, **SETTINGS, fallbacks=st.lists(MODEL, max_size=3).map(tuple))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    proposers = tuple(draw(st.lists(PROPOSER, max_size=3)))
    layers = tuple(draw(st.lists(LAYER, max_size=3)))
    most = len(layers) if layers else 10 if proposers else 0
    return Profile(
        name="own",
        aggregator=draw(AGGREGATORS),
        proposers=proposers,
        layers=layers,
        rounds=draw(st.integers(0, most)),
        description=draw(TEXT),
        multi_turn=draw(st.booleans()),
        system=draw(optional(LINES)),
        temperature=draw(optional(st.floats(0, 2))),
        max_tokens=draw(optional(st.integers(1, 10**9))),
        timeout=draw(optional(st.floats(0.001, 1e6))),
        reference_placement=draw(st.sampled_from(["system", "user"])),
        reference_format=draw(st.sampled_from(["paper", "fenced"])),
        reference_names=draw(st.booleans()),
        merge_prompt=draw(st.sampled_from([None, "{references}", "Of {count}:\n{references}\r\n"])),
        on_all_failed=draw(st.sampled_from(["fail", "solo"])),
    )


@given(profiles())
def test_what_is_dumped_reads_back_equal(profile: Profile) -> None:
    assert build("own", tomllib.loads(dump(profile))) == profile


@pytest.mark.parametrize(
    "system",
    [
        "two\nlines",
        "carriage\rreturn",
        "dos\r\nlines\r\n",
        "quotes ''' and \"\"\" and \\ and \\r",
        '"""',
        '"',
        'ends in quote\n"',
        "ends in backslash\n\\",
        "tab\t, nul \0, bell \a, delete \x7f, next line \x85",
        "\u2028\u2029\ufeff\u200b\U0001f642 ü",
        "  \n  indented\n\n",
        "\n",
        "",
    ],
)
def test_a_system_prompt_survives_saving(system: str) -> None:
    kept = Profile(
        name="mine",
        aggregator=Aggregator(model="a", system=system),
        proposers=(Proposer(model="b", system=system),),
        system=system,
    )
    save(kept, "mine")
    assert load("mine") == kept


def test_a_prompt_of_several_lines_is_written_as_several_lines() -> None:
    assert '"""\none\ntwo' in dump(replace(SMALL, system="one\ntwo"))


def test_unset_zero_and_default_are_kept_apart() -> None:
    unset, zero = SMALL, replace(SMALL, temperature=0.0, system="")
    assert "temperature" not in dump(unset)
    assert "temperature = 0.0" in dump(zero)
    assert 'system = ""' in dump(zero)
    assert "rounds = 0" in dump(unset)


# --- what a profile comes to


def profile_of(*proposers: Proposer, **settings: Any) -> Profile:
    aggregator = settings.pop("aggregator", Aggregator(model="a"))
    return Profile(name="x", aggregator=aggregator, proposers=proposers, **settings)


def test_samples_become_calls_with_names_and_seeds_of_their_own() -> None:
    layer = profile_of(
        Proposer(model="p/b", samples=3, seed=7, name="bee"), Proposer(model="p/c", samples=2)
    ).layer(1)
    assert [
        (proposer.name, proposer.model, proposer.seed, proposer.samples) for proposer in layer
    ] == [
        ("bee #1", "p/b", 7, 1),
        ("bee #2", "p/b", 8, 1),
        ("bee #3", "p/b", 9, 1),
        ("c #1", "p/c", None, 1),
        ("c #2", "p/c", None, 1),
    ]


@pytest.mark.parametrize(
    ("given_names", "shown"),
    [
        (["b"], ["b"]),
        (["b", "c"], ["b", "c"]),
        (["b", "c", "b"], ["b #1", "c", "b #2"]),
        (["b", "b", "b #1"], ["b #2", "b #3", "b #1"]),
        (["b #2", "b", "b", "b #2"], ["b #2 #1", "b #1", "b #2", "b #2 #2"]),
    ],
)
def test_names_are_numbered_until_none_is_like_another(
    given_names: list[str], shown: list[str]
) -> None:
    layer = profile_of(*(Proposer(model="m", name=name) for name in given_names)).layer(1)
    assert [proposer.name for proposer in layer] == shown


@given(
    st.lists(st.tuples(st.sampled_from(["b", "b #1", "b #2", "c", "b #1 #1"]), st.integers(1, 3)))
)
def test_no_two_calls_of_a_layer_share_a_name(entries: list[tuple[str, int]]) -> None:
    proposers = (Proposer(model="m", name=name, samples=n) for name, n in entries)
    names = [proposer.name for proposer in profile_of(*proposers).layer(1)]
    assert len(set(names)) == len(names) == sum(n for _, n in entries)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("openrouter:qwen/qwen3-32b", "qwen3-32b"),
        ("Qwen/Qwen3", "Qwen3"),
        ("local:smollm2", "local:smollm2"),
        ("ollama:llama3:8b", "ollama:llama3:8b"),
        ("local:/path/to/model.gguf", "model.gguf"),
        ("a/b/", "b"),
        ("/", "/"),
    ],
)
def test_the_name_on_screen_is_the_last_part_of_the_models(model: str, shown: str) -> None:
    assert short_name(model) == shown


def test_models_inherit_what_they_do_not_set_and_only_that() -> None:
    profile = profile_of(
        Proposer(model="b"),
        Proposer(model="c", temperature=0.0, max_tokens=1, system="", timeout=0.5),
        temperature=0.7,
        max_tokens=100,
        system="be brief",
        timeout=9.0,
        aggregator=Aggregator(model="a", max_tokens=50, fallbacks=("f",), seed=3),
    )
    plain, own = profile.layer(1)
    inherited = (plain.temperature, plain.max_tokens, plain.system, plain.timeout)
    assert inherited == (0.7, 100, "be brief", 9.0)
    assert (own.temperature, own.max_tokens, own.system, own.timeout) == (0.0, 1, "", 0.5)
    first = profile.aggregators()[0]
    assert (first.temperature, first.max_tokens, first.system) == (0.7, 50, "be brief")


def test_unset_everywhere_stays_unset() -> None:
    profile = profile_of(Proposer(model="b"))
    for proposer in (*profile.layer(1), *profile.aggregators()):
        assert (proposer.temperature, proposer.max_tokens, proposer.top_p, proposer.seed) == (
            None,
        ) * 4
        assert (proposer.system, proposer.timeout) == (None, None)


def test_fallbacks_are_the_aggregator_under_another_name_in_order() -> None:
    profile = profile_of(
        temperature=0.7,
        rounds=0,
        aggregator=Aggregator(model="a", max_tokens=50, seed=3, fallbacks=("f", "g")),
    )
    expected = Aggregator(model="a", temperature=0.7, max_tokens=50, seed=3)
    assert profile.aggregators() == (
        expected,
        replace(expected, model="f"),
        replace(expected, model="g"),
    )


def test_a_layer_has_a_quorum_and_a_patience_of_its_own_or_the_profiles() -> None:
    same = profile_of(Proposer(model="b"), rounds=2, quorum=3)
    assert [same.quorum_of(n) for n in (1, 2)] == [3, 3]
    assert [same.patience_of(n) for n in (1, 2)] == [5.0, 5.0]
    layers = (
        Layer(proposers=same.proposers, quorum=1, patience=0.0),
        Layer(proposers=same.proposers),
    )
    own = replace(same, layers=layers, patience=2.0)
    assert [own.quorum_of(n) for n in (1, 2)] == [1, 3]
    assert [own.patience_of(n) for n in (1, 2)] == [0.0, 2.0]


def test_a_layer_may_be_given_as_its_proposers() -> None:
    proposers = (Proposer(model="b"), Proposer(model="c"))
    given: Any = (proposers,)
    profile = Profile(name="x", aggregator=Aggregator(model="a"), layers=given)
    assert profile.layers == (Layer(proposers=proposers),)


def test_every_round_has_its_own_layer_or_the_same() -> None:
    same = profile_of(Proposer(model="b"), rounds=3)
    assert [[proposer.model for proposer in same.layer(n)] for n in (1, 2, 3)] == [["b"]] * 3
    own = replace(
        same,
        rounds=2,
        layers=(
            Layer(proposers=(Proposer(model="c"),)),
            Layer(proposers=(Proposer(model="d"), Proposer(model="c"))),
        ),
    )
    assert [[proposer.model for proposer in own.layer(n)] for n in (1, 2)] == [["c"], ["d", "c"]]
    assert own.models() == ("c", "d", "a")
    assert replace(own, rounds=1).models() == ("c", "a")
    assert replace(own, rounds=0).models() == ("a",)

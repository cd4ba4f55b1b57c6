"""The slash commands: each one's effect on the conversation and its mixture, and how a name
that is short, ambiguous or unknown is taken. What cannot be done changes nothing."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from moa_cli.chat.commands.registry import COMMANDS, ChatOptions, Section, complete, perform
from moa_cli.chat.keeping import SavedConversation
from moa_cli.chat.outcomes import Leave, Outcome, Send
from moa_cli.chat.session import Session
from moa_cli.clients.pool import ClientPool
from moa_cli.core import paths
from moa_cli.core.conversation import Failure, Proposal, Turn
from moa_cli.core.errors import MoAError, ProfileError, UsageError
from moa_cli.engine import Limits
from moa_cli.profile import load, save
from moa_cli.terminal.transcript import Passage
from tests.support.mixtures import InProcess, mixture


class Desk:
    """A host that keeps what it is told to show."""

    def __init__(self) -> None:
        self.session = Session(mixture("a", "b"), InProcess({}), Limits())
        self.kept = SavedConversation()
        self.models: ClientPool | None = None
        self.options = ChatOptions()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, text: str) -> None:
        self.said.append(text)

    def page(self, passages: Sequence[Passage]) -> None:
        self.said += [text for _, text in passages]

    def draw(self, drawing: RenderableType) -> None:
        console = Console(file=io.StringIO(), width=80)
        with console.capture() as captured:
            console.print(drawing)
        self.said.append(captured.get())

    def clear_screen(self) -> None:
        self.said.append("(an empty screen)")

    def do(self, line: str) -> str:
        """Perform a command; what it said."""
        assert self.outcome(line) is None
        return "\n".join(self.said)

    def outcome(self, line: str) -> Outcome:
        """Perform a command; what it asks the loop for."""
        self.said.clear()
        return perform(self, line)


@pytest.fixture
def desk() -> Desk:
    """A new conversation."""
    return Desk()


def held(desk: Desk) -> Turn:
    """A turn of two layers, one proposer lost, kept in the desk's session."""
    lost = Failure("RequestRefused", "lab refused [red]it[/red]")
    layers = (
        (proposal(1, 0, "first [/INST]"), proposal(1, 1, "", error=lost)),
        (proposal(2, 0, "third\x1b[2J"), proposal(2, 1, "fourth")),
    )
    turn = Turn(user="why\x1b[2J?", reply="because", status="finished", proposals=layers)
    desk.session.keep(turn)
    return turn


def proposal(layer: int, index: int, text: str, **more: Any) -> Proposal:
    """A proposal of the proposer a or b."""
    name = "ab"[index]
    return Proposal(layer, index, f"lab:{name}", f"lab:{name}", text, **more)


def test_every_command_has_one_line_of_help() -> None:
    for name, command in COMMANDS.items():
        assert command.name == name
        assert command.help.endswith(".")
        assert "\n" not in command.help


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_help_names_every_command_and_fits_the_screen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = desk.do("/help")
    commands, _, notes = text.partition("\n\n")
    assert {word for word in commands.split() if word.startswith("/")} == {
        f"/{name}" for name in COMMANDS
    }
    assert max(map(len, commands.splitlines())) <= columns
    assert "Ctrl-D leaves" in notes
    folded = [row for line in text.split("\n") for row in textwrap.wrap(line, columns) or [""]]
    # Below it stand an empty line, the prompt and the bar.
    assert len(folded) <= 21 or columns < 80


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_help_all_tells_what_each_command_does(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = desk.do("/help all")
    told = " ".join(text.split())
    for name, command in COMMANDS.items():
        assert f"/{name} {command.usage}".rstrip() in text
        assert command.help in told
    assert max(map(len, text.splitlines())) <= max(columns, 45)


@pytest.mark.parametrize("section", list(Section))
def test_help_explains_a_section(desk: Desk, section: Section) -> None:
    text = " ".join(desk.do(f"/help {section.lower()}").split())
    for command in COMMANDS.values():
        assert (command.help in text) == (command.section == section)


def test_help_explains_one_command(desk: Desk) -> None:
    for line in ("/help rounds", "/help /rounds", "/help rou"):
        text = " ".join(desk.do(line).split())
        assert text == f"/rounds [N] {COMMANDS['rounds'].help}"
    assert "Also: /quit" in desk.do("/help exit")


def test_exit_asks_to_leave(desk: Desk) -> None:
    for line in ("/exit", "/quit", "/q"):
        assert desk.outcome(line) == Leave()


def test_a_command_may_be_shortened_while_it_is_the_only_one(desk: Desk) -> None:
    assert desk.do("/rou 2") == "rounds 2"
    assert desk.outcome("/ex") == Leave()


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("/ro", "", ""),
        ("/m", "/m could be /", ""),
        ("/ruonds 2", "there is no command /ruonds", "did you mean /rounds?"),
        ("/zzz", "there is no command /zzz", "/help lists all commands"),
        ("/", "there is no command /", "/help lists all commands"),
        ("/ 1", "there is no command /", "/help lists all commands"),
        ("/usr/bin/env", "there is no command /usr/bin/env", ""),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(
    desk: Desk, line: str, said: str, hint: str
) -> None:
    if not said:
        assert desk.do(line).startswith("rounds ")
        return
    with pytest.raises(UsageError) as refused:
        desk.outcome(line)
    assert refused.value.message.startswith(said)
    assert (refused.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("line", "said", "key", "value"),
    [
        ("/rounds 3", "rounds 3", "rounds", 3),
        ("/rounds 0", "rounds 0", "rounds", 0),
        ("/temperature 0", "temperature 0.0", "temperature", 0.0),
        ("/temperature 0.7", "temperature 0.7", "temperature", 0.7),
        ("/max-tokens 99", "max-tokens 99", "max_tokens", 99),
        ("/multi-turn off", "multi-turn off", "multi_turn", False),
        ("/multi-turn on", "multi-turn on", "multi_turn", True),
        ("/system be [b]brief", "system be [b]brief", "system", "be [b]brief"),
    ],
)
def test_a_setting_is_set_and_told(
    desk: Desk, line: str, said: str, key: str, value: object
) -> None:
    assert desk.do(line) == said
    assert getattr(desk.session.profile, key) == value
    assert str(desk.session.profile.origins[(key,)]) == line.split()[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/rounds", "rounds 1"),
        ("/temperature", "temperature not set"),
        ("/max-tokens", "max-tokens not set"),
        ("/multi-turn", "multi-turn on"),
        ("/system", "system not set"),
        ("/aggregator", "aggregator lab:agg"),
    ],
)
def test_a_setting_is_told_where_none_is_given(desk: Desk, line: str, said: str) -> None:
    before = desk.session.profile
    assert desk.do(line) == said
    assert desk.session.profile is before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/rounds two", "'two' is not a whole number"),
        ("/rounds 1.5", "'1.5' is not a whole number"),
        ("/rounds -1", "/rounds: must be"),
        ("/temperature warm", "'warm' is not a number"),
        ("/temperature nan", "/temperature: must be"),
        ("/temperature 9", "/temperature: must be"),
        ("/max-tokens 0", "/max-tokens: must be"),
        ("/multi-turn maybe", "multi-turn must be on or off, not 'maybe'"),
        ("/aggregator a b", "is not a model name"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_the_old_one_stays(
    desk: Desk, line: str, said: str
) -> None:
    before = desk.session.profile
    with pytest.raises(MoAError) as refused:
        desk.outcome(line)
    assert said in refused.value.message
    assert desk.session.profile is before


def test_none_takes_the_system_prompt_away(desk: Desk) -> None:
    desk.do("/system be brief")
    assert desk.do("/system none") == "system not set"
    assert not desk.session.profile.system


def test_models_sets_the_proposers_by_commas_or_spaces(desk: Desk) -> None:
    assert "lab:My Model, lab:y" in desk.do("/models lab:My Model, lab:y")
    for line in ("/models lab:x,lab:y", "/models lab:x lab:y", "/models lab:x, lab:y"):
        text = desk.do(line)
        assert [proposer.model for proposer in desk.session.profile.layer(1)] == ["lab:x", "lab:y"]
        assert "lab:x, lab:y" in text
        assert "lab:agg" in text


def test_aggregator_sets_the_model_that_replies(desk: Desk) -> None:
    assert desk.do("/aggregator lab:z") == "aggregator lab:z"
    assert desk.session.profile.aggregator.model == "lab:z"


def test_profile_switches_to_another_and_the_conversation_stays(desk: Desk) -> None:
    held(desk)
    text = desk.do("/profile self")
    assert desk.session.profile.name == "self"
    assert text.startswith("profile self: ")
    assert len(desk.session.conversation.turns) == 1


def test_a_profile_that_is_chosen_is_under_the_environment_as_at_the_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOA_ROUNDS", "3")
    desk.do("/profile self")
    assert desk.session.profile.rounds == 3


def test_an_unknown_profile_is_refused_with_the_nearest_name(desk: Desk) -> None:
    before = desk.session.profile
    with pytest.raises(ProfileError) as refused:
        desk.outcome("/profile togeter")
    assert refused.value.hint == "did you mean `together`?"
    assert desk.session.profile is before


def test_profile_list_names_all(desk: Desk) -> None:
    save(mixture("a"), "mine")
    text = desk.do("/profile list")
    assert "mine" in text
    assert "paper-moa-lite" in text


@pytest.mark.parametrize("line", ["/profile", "/profile show"])
def test_profile_show_tells_each_value_and_its_origin(desk: Desk, line: str) -> None:
    desk.do("/rounds 2")
    rows = [row.split() for row in desk.do(line).splitlines()]
    assert ["rounds", "2", "(/rounds)"] in rows
    assert ["aggregator.model", "lab:agg", "(default)"] in rows


def test_profile_save_keeps_what_is_in_force(desk: Desk) -> None:
    desk.do("/rounds 2")
    text = desk.do("/profile save kept")
    path = paths.user_profiles_dir() / "kept.toml"
    assert str(path) in text
    assert load("kept").rounds == 2


@pytest.mark.parametrize("name", ["", " ", "../evil", "a/b", "kept", "Kept", "con", "nul.x"])
def test_profile_save_refuses_names_that_leave_the_folder_or_are_taken(
    desk: Desk, name: str
) -> None:
    save(mixture("a"), "kept")
    with pytest.raises(MoAError):
        desk.outcome(f"/profile save {name}")
    assert [path.name for path in paths.user_profiles_dir().iterdir()] == ["kept.toml"]


def test_show_lists_the_proposals_and_prints_one_in_full(desk: Desk) -> None:
    held(desk)
    rows = desk.do("/show").splitlines()
    assert len(rows) == 4
    assert "lab refused [red]it[/red]" in rows[1]
    assert desk.do("/show 2") == "lab:b (round 2)\nfourth"
    assert desk.do("/show 1 1") == "lab:a (round 1)\nfirst [/INST]"
    assert desk.do("/show 2 1") == "lab:b (round 1)\nlab refused [red]it[/red]"


@pytest.mark.parametrize("line", ["/show 0", "/show 3", "/show -1", "/show x", "/show 1 3"])
def test_show_refuses_a_number_that_is_none(desk: Desk, line: str) -> None:
    held(desk)
    with pytest.raises(UsageError):
        desk.outcome(line)


@pytest.mark.parametrize("line", ["/show", "/show 1", "/retry", "/undo"])
def test_before_the_first_turn_there_is_nothing_to_show_or_take_back(desk: Desk, line: str) -> None:
    with pytest.raises(UsageError):
        desk.outcome(line)


def test_retry_asks_the_last_prompt_again_in_the_turn_s_place(desk: Desk) -> None:
    turn = held(desk)
    assert desk.outcome("/retry") == Send(turn.user, again=True)
    assert desk.session.conversation.turns == ()


def test_undo_forgets_the_last_turn_and_tells_which(desk: Desk) -> None:
    held(desk)
    assert desk.do("/undo").startswith("forgot: why")
    assert desk.session.conversation.turns == ()


@pytest.mark.parametrize(
    "line", ["/undo 3", "/new What is rain?", "/clear x", "/fork mine", "/exit x"]
)
def test_a_command_that_takes_no_argument_does_nothing_with_one(desk: Desk, line: str) -> None:
    turn = held(desk)
    name, _, argument = line.partition(" ")
    said = f"^{re.escape(name)} takes no argument, and nothing was done: {re.escape(argument)}$"
    with pytest.raises(UsageError, match=said):
        desk.outcome(line)
    assert desk.session.conversation.turns == (turn,)


@pytest.mark.parametrize("name", ["plain", "multiline"])
def test_what_is_switched_takes_on_and_off(desk: Desk, name: str) -> None:
    for typed, expected in (("off", False), ("on", True), ("on", True), ("", False)):
        desk.do(f"/{name} {typed}")
        assert getattr(desk.options, name) is expected
    with pytest.raises(UsageError, match=f"^{name} must be on or off, not 'maybe'$"):
        desk.outcome(f"/{name} maybe")


def test_clear_and_new_forget_the_conversation_and_keep_the_settings(desk: Desk) -> None:
    desk.do("/rounds 2")
    for line in ("/clear", "/new"):
        held(desk)
        assert "a new conversation" in desk.do(line)
        assert desk.session.conversation.turns == ()
        assert desk.session.last is None
        assert desk.session.profile.rounds == 2


def completions(desk: Desk, line: str) -> list[str]:
    """What may stand for the last word of the line."""
    return [found.text for found in complete(line, desk)]


def test_names_are_completed(desk: Desk) -> None:
    assert completions(desk, "/") == sorted(f"/{name}" for name in COMMANDS)
    assert completions(desk, "/rou") == ["/rounds"]
    assert completions(desk, "/qui") == ["/quit"]
    assert completions(desk, "/zzz") == []


def test_each_name_comes_with_its_help(desk: Desk) -> None:
    assert [(found.text, found.about) for found in complete("/rou", desk)] == [
        ("/rounds", COMMANDS["rounds"].help)
    ]


def test_values_are_completed(desk: Desk) -> None:
    save(mixture("a"), "mine")
    assert completions(desk, "/multi-turn o") == ["on", "off"]
    assert completions(desk, "/multi-turn of") == ["off"]
    assert completions(desk, "/profile mi") == ["mine"]
    assert completions(desk, "/profile sa") == ["save "]
    assert completions(desk, "/aggregator lab:") == ["lab:a", "lab:b", "lab:agg"]
    assert completions(desk, "/help roun") == ["rounds"]
    assert completions(desk, "/zzz a") == []
    held(desk)
    assert {"1", "2"} <= set(completions(desk, "/show "))


def test_what_a_command_reads_from_disk_may_be_missing(desk: Desk, tmp_path: Path) -> None:
    assert not paths.user_profiles_dir().exists()
    assert completions(desk, "/profile self") == ["self", "self-sequence"]

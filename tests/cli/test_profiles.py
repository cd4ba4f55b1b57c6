"""`moa profile`: every subcommand, what it prints, what it changes, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa, Ran
from tests.support.upstream import Upstream

SHIPPED = (
    *("local", "ollama", "together", "together-3-layer", "self", "openrouter", "openai", "groq"),
    *(
        "reference-moa",
        "vote",
        "select",
        "fusion",
        "council",
        "self-sequence",
        "recursive",
        "route",
    ),
)
PAPER = ("paper-moa", "paper-moa-lite", "paper-moa-gpt4o")


def profiles(moa: Moa) -> list[str]:
    """The user's own profiles, by file name."""
    return sorted(path.name for path in (moa.config / "profiles").iterdir())


def kept(moa: Moa, name: str) -> dict[str, Any]:
    """What a profile of the user's says."""
    return tomllib.loads((moa.config / "profiles" / f"{name}.toml").read_text("utf-8"))


def refusal(ran: Ran) -> str:
    """The one line of a refused command."""
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith("moa: ")
    assert ran.err.count("\n") == 1
    return ran.err


def shown(ran: Ran) -> dict[str, tuple[str, str]]:
    """Value and origin of each setting."""
    assert ran.code == 0
    rows = [line.split("  ", 1) for line in ran.text.splitlines()[1:]]
    pairs = {key: rest.strip().rsplit("  ", 1) for key, rest in rows}
    return {key: (value.strip(), origin) for key, (value, origin) in pairs.items()}


def test_the_list_holds_the_user_s_then_the_shipped_and_marks_the_default(moa: Moa) -> None:
    moa.profile("alpha", "a", description="mine\x1b[2J")
    ran = moa.run("profile", "list")
    rows = [line[2:].split(maxsplit=2) for line in ran.text.splitlines()]
    assert (ran.code, ran.err) == (0, "")
    assert [row[:2] for row in rows[:2]] == [["alpha", "user"], ["lab", "user"]]
    assert rows[0][2] == "mine"
    assert [row[0] for row in rows[2:]] == sorted([*SHIPPED, *PAPER])
    assert {row[1] for row in rows[2:]} == {"shipped"}
    assert [line[:5] for line in ran.text.splitlines() if line.startswith("*")] == ["* lab"]
    assert "\x1b" not in ran.text


def test_the_list_is_folded_beside_the_names_on_a_terminal(moa: Moa) -> None:
    with moa.terminal("profile", "list", columns=60, rows=40) as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    indent = lines[0].index("user") + len("shipped  ")
    assert [line[indent:] for line in lines if "paper-moa-lite" in line] == [
        "The paper's MoA-Lite: six"
    ]
    assert {line[:indent].strip() for line in lines} >= {""}


def test_the_list_as_json(moa: Moa) -> None:
    (moa.config / "profiles" / "bad.toml").write_text("rounds = 'two'")
    told = {entry["name"]: entry for entry in json.loads(moa.run("profile", "list", "--json").out)}
    assert told["together"]["source"] == "shipped"
    assert told["together"]["description"].startswith("Four open models on Together")
    assert told["bad"]["description"].startswith("broken: ")


def test_a_user_s_profile_hides_the_shipped_one_of_its_name(moa: Moa) -> None:
    moa.profile("together", "a", description="mine")
    rows = [line.split() for line in moa.run("profile", "list").text.splitlines()]
    assert [row for row in rows if "together" in row] == [["together", "user", "mine"]]


def test_show_prints_each_value_with_its_origin(moa: Moa) -> None:
    path = moa.profile("mine", "a", temperature=0.5, rounds=2, description="what it is")
    env = {"MOA_ROUNDS": "3", "MOA_SYSTEM": "be\nbrief"}
    ran = moa.run("profile", "show", "mine", "-t", "0", "-a", "lab:z", env=env)
    rows = shown(ran)
    assert ran.text.startswith("profile mine: what it is\n")
    assert rows["rounds"] == ("3", "MOA_ROUNDS")
    assert rows["system"] == ("be brief", "MOA_SYSTEM")
    assert rows["temperature"] == ("0.0", "--temperature")
    assert rows["aggregator.model"] == ("lab:z", "--aggregator")
    assert rows["proposers[1].model"] == ("lab:a", str(path))
    assert rows["max_tokens"] == ("not set", "default")
    assert rows["multi_turn"] == ("true", "default")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses such a name")
def test_the_name_of_a_file_cannot_control_the_terminal(moa: Moa) -> None:
    path = moa.profile("odd", "a")
    named = path.rename(moa.folder / "od\x1b]0;x\x07d.toml")
    told = moa.run("profile", "show", named.name).text
    assert told.startswith("profile odd\n")
    assert "\x1b" not in told


def test_show_without_a_name_shows_the_default(moa: Moa) -> None:
    assert moa.run("profile", "show").text.startswith("profile lab")
    assert moa.run("profile", "show", "-p", "self").text.startswith("profile self")
    assert moa.run("profile", "show", env={"MOA_PROFILE": "self"}).text.startswith("profile self")


def test_show_refuses_two_names_for_one_profile(moa: Moa) -> None:
    assert "one setting was given two values" in refusal(
        moa.run("profile", "show", "lab", "-p", "self")
    )


def test_new_makes_a_profile_from_the_options(moa: Moa) -> None:
    ran = moa.run("profile", "new", "mine", "-m", "lab:x,lab:y", "-a", "lab:z", "-r", "2")
    assert (ran.code, ran.text) == (0, f"{moa.config / 'profiles' / 'mine.toml'}\n")
    assert ran.err == "moa: made profile mine; change it with `moa profile edit mine`\n"
    assert kept(moa, "mine") == {
        "rounds": 2,
        "proposers": [{"model": "lab:x"}, {"model": "lab:y"}],
        "aggregator": {"model": "lab:z"},
    }


def test_new_asks_at_a_terminal_for_what_a_strategy_needs(moa: Moa) -> None:
    typed = ("profile", "new", "voted", "-m", "lab:x", "-a", "lab:z", "--strategy", "vote")
    with moa.terminal(*typed, columns=160) as terminal:
        terminal.wait_for("vote needs 3 proposals, and there is 1: samples of each proposer [3]:")
        terminal.send("5\r")
        terminal.wait_for("final_answer: ")
        terminal.send("numbers\r")
        terminal.wait_for("`final_answer` ")
        terminal.wait_for(lambda: "".join(terminal.shown()).count("final_answer: ") == 2)
        terminal.send("number\r")
        terminal.wait_for("judge: ")
        terminal.send("\r")
        assert terminal.wait() == 0
    assert kept(moa, "voted") == {
        "rounds": 1,
        "strategy": "vote",
        "final_answer": "number",
        "proposers": [{"model": "lab:x", "samples": 5}],
        "aggregator": {"model": "lab:z"},
    }


def test_new_does_not_ask_for_what_was_typed_or_does_not_matter(moa: Moa) -> None:
    typed = ("profile", "new", "chosen", "--strategy", "select", "--chosen-by", "proposers")
    with moa.terminal(*typed, columns=160) as terminal:
        assert terminal.wait() == 0
    assert kept(moa, "chosen")["chosen_by"] == "proposers"


def test_new_takes_the_defaults_without_a_terminal(moa: Moa) -> None:
    ran = moa.run("profile", "new", "ranked", "-m", "lab:x,lab:y", "--strategy", "council")
    assert ran.code == 0
    told = "council needs 3 proposals, and there are 2: each proposer is sampled 2 times"
    assert told in ran.err
    assert [row["samples"] for row in kept(moa, "ranked")["proposers"]] == [2, 2]
    assert moa.run("profile", "check", "ranked").code == 0
    # Nothing is asked with --yes.
    with moa.terminal("profile", "new", "fused", "--strategy", "fusion", "-y") as terminal:
        assert terminal.wait() == 0
    assert kept(moa, "fused")["strategy"] == "fusion"


def test_new_does_not_replace_a_profile_unless_it_is_told_to(moa: Moa) -> None:
    before = kept(moa, "lab")
    assert "there is already a profile `lab`" in refusal(moa.run("profile", "new", "lab"))
    assert kept(moa, "lab") == before
    assert moa.run("profile", "new", "lab", "--force", "-r", "0").code == 0
    assert kept(moa, "lab")["rounds"] == 0


@pytest.mark.parametrize("command", [["new"], ["copy", "self"]], ids=["new", "copy"])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", ".evil", "evil.toml", "e vil"])
def test_a_name_cannot_leave_the_folder(moa: Moa, command: list[str], name: str) -> None:
    ran = moa.run("profile", *command, name)
    assert "cannot be the name of a profile" in refusal(ran)
    assert profiles(moa) == ["lab.toml"]


def test_copy_keeps_text_and_comments(moa: Moa) -> None:
    path = moa.profile("lab", "a")
    path.write_text(f"# why\n{path.read_text()}")
    assert moa.run("profile", "copy", "lab", "mine").code == 0
    assert (moa.config / "profiles" / "mine.toml").read_text() == path.read_text()
    assert "there is already a profile" in refusal(moa.run("profile", "copy", "self", "mine"))
    assert moa.run("profile", "copy", "self", "mine", "--force").code == 0
    assert "samples" in (moa.config / "profiles" / "mine.toml").read_text()


def test_copy_takes_a_file_too(moa: Moa) -> None:
    source = moa.folder / "here.toml"
    source.write_text('[[proposers]]\nmodel = "lab:a"\n[aggregator]\nmodel = "lab:b"\n')
    assert moa.run("profile", "copy", "./here.toml", "mine").code == 0
    assert kept(moa, "mine")["aggregator"] == {"model": "lab:b"}


def editor(moa: Moa, program: str) -> dict[str, str]:
    """An environment whose editor is that Python program; it is handed the file."""
    path = moa.folder / "editor.py"
    path.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{program}\n")
    return {"EDITOR": f"'{sys.executable}' '{path}'"}


def test_edit_opens_the_editor_and_checks_what_it_left(moa: Moa) -> None:
    env = editor(moa, "path.write_text('rounds = 2\\n' + path.read_text())")
    ran = moa.run("profile", "edit", "lab", env=env)
    assert (ran.code, ran.out) == (0, b"")
    assert ran.err == f"moa: {moa.config / 'profiles' / 'lab.toml'} is valid\n"
    assert kept(moa, "lab")["rounds"] == 2


def test_edit_tells_what_is_wrong_and_keeps_the_text(moa: Moa) -> None:
    ran = moa.run("profile", "edit", "lab", env=editor(moa, "path.write_text('round = 2')"))
    assert "unknown key `round` (did you mean `rounds`?)" in refusal(ran)
    assert (moa.config / "profiles" / "lab.toml").read_text() == "round = 2"


def test_edit_of_a_shipped_profile_edits_a_copy(moa: Moa) -> None:
    ran = moa.run("profile", "edit", "self", env=editor(moa, ""))
    assert ran.code == 0
    assert "self is a shipped profile; this is your copy" in ran.err
    assert profiles(moa) == ["lab.toml", "self.toml"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-editor-anywhere", "could not be started"),
        ("'unfinished", "could not be started"),
        ("false", "ended with status 1"),
    ],
)
def test_an_editor_that_fails_is_told_of(moa: Moa, command: str, said: str) -> None:
    assert said in refusal(moa.run("profile", "edit", "lab", env={"VISUAL": command}))


def test_delete_asks_nobody_where_there_is_nobody(moa: Moa) -> None:
    said = "cannot confirm: standard input is not a terminal; pass --yes"
    assert said in refusal(moa.run("profile", "delete", "lab"))
    ran = moa.run("profile", "delete", "lab", "--yes")
    assert (ran.code, ran.text) == (0, f"{moa.config / 'profiles' / 'lab.toml'}\n")
    assert profiles(moa) == []


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["lab.toml"])])
def test_delete_asks_at_a_terminal(moa: Moa, answer: str, left: list[str]) -> None:
    with moa.terminal("profile", "delete", "lab") as terminal:
        terminal.wait_for("Delete the profile lab (")
        terminal.send(answer)
        code = terminal.wait()
    assert profiles(moa) == left
    assert (code == 0) == (not left)


def test_a_default_profile_that_is_gone_is_named_with_where_it_is_chosen(moa: Moa) -> None:
    moa.profile("other", "a")
    assert "the default" not in moa.run("profile", "delete", "other", "-y").err
    ran = moa.run("profile", "delete", "lab", "-y")
    told = "it was the default: `moa config set profile NAME` chooses another one"
    assert (ran.code, ran.err) == (0, f"moa: {told}\n")
    place = f"{moa.config / 'config.toml'}: `profile`"
    assert refusal(moa.run("ask", "hi")).startswith(
        f"moa: {place}: there is no profile `lab` (`moa config unset profile` removes it; known"
    )
    said = refusal(moa.run("ask", "hi", env={"MOA_PROFILE": "togeter"}))
    assert said == "moa: MOA_PROFILE: there is no profile `togeter` (did you mean `together`?)\n"


def test_a_shipped_profile_is_not_deleted(moa: Moa) -> None:
    ran = moa.run("profile", "delete", "together", "--yes")
    assert "`together` is a shipped profile and cannot be deleted" in refusal(ran)
    assert moa.run("profile", "path", "together").code == 0


def test_check_calls_nothing_and_tells_who_would_answer(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("profile", "check", "lab")
    assert (ran.code, ran.err) == (0, "")
    assert ran.text == "OK     profile lab: lab:a, lab:b, lab:c → lab:agg\n"
    assert upstream.requests == []


def test_check_without_a_name_checks_all_and_fails_if_one_is_wrong(moa: Moa) -> None:
    ran = moa.run("profile", "check")
    assert ran.code == 0
    assert [line[:2] for line in ran.text.splitlines()] == ["OK"] * (1 + len(SHIPPED + PAPER))
    (moa.config / "profiles" / "bad.toml").write_text("rounds = 'two'")
    ran = moa.run("profile", "check")
    assert ran.code == 2
    [error] = [line for line in ran.text.splitlines() if line.startswith("ERROR")]
    assert "bad.toml: `rounds` must be a whole number, not 'two'" in error


def test_path_prints_a_file_or_the_folder(moa: Moa) -> None:
    assert moa.run("profile", "path").text == f"{moa.config / 'profiles'}\n"
    assert moa.run("profile", "path", "lab").text == f"{moa.config / 'profiles' / 'lab.toml'}\n"
    shipped = Path(moa.run("profile", "path", "self").text.rstrip("\n"))
    assert shipped.name == "self.toml"
    assert shipped.is_file()


@pytest.mark.parametrize("command", ["show", "copy", "edit", "delete", "check", "path"])
def test_an_unknown_profile_is_refused_with_the_nearest_name(moa: Moa, command: str) -> None:
    more = ["target"] if command == "copy" else []
    said = refusal(moa.run("profile", command, "togeter", *more))
    assert said == "moa: there is no profile `togeter` (did you mean `together`?)\n"


def test_a_broken_config_file_is_named_by_every_command_that_needs_it(moa: Moa) -> None:
    file = moa.config / "config.toml"
    file.write_text("profil = 'lab'")
    for arguments in (["ask", "hi"], ["profile", "list"], ["profile", "show"], ["models", "lab"]):
        said = f"moa: {file}: unknown key `profil` (did you mean `profile`?)\n"
        assert refusal(moa.run(*arguments)) == said


@pytest.mark.parametrize(
    ("encoding", "ends"), [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-16", "\r\n")]
)
def test_a_profile_as_other_systems_write_it_is_read(moa: Moa, encoding: str, ends: str) -> None:
    text = (
        'description = "Grüße"\n[[proposers]]\nmodel = "lab:a"\n[aggregator]\nmodel = "lab:agg"\n'
    )
    path = moa.config / "profiles" / "notepad.toml"
    path.write_bytes(text.replace("\n", ends).encode(encoding))
    assert moa.run("profile", "check", "notepad").code == 0
    assert moa.run("ask", "-p", "notepad", "hi").text == "ok\n"
    assert moa.run("profile", "show", "notepad").text.startswith("profile notepad: Grüße\n")


@pytest.mark.parametrize(
    "name", ["con", "NUL", "aux.x", "Prn.b.c", "com0", "LPT9", "com1.old", "lpt0.d", "conout"]
)
@pytest.mark.parametrize(
    "command",
    [
        ("profile", "new", "{}"),
        ("profile", "copy", "self", "{}"),
        ("profile", "copy", "self", "{}", "--force"),
        ("ask", "--save-profile", "{}"),
    ],
    ids=["new", "copy", "copy over", "save"],
)
def test_names_that_windows_reserves_are_refused(
    moa: Moa, command: tuple[str, ...], name: str
) -> None:
    ran = moa.run(*(part.format(name) for part in command))
    if name == "conout":
        assert ran.code == 0
        return
    assert f"Windows reserves the name `{name.split('.')[0].lower()}`" in refusal(ran)
    assert profiles(moa) == ["lab.toml"]


def test_a_profile_of_such_a_name_that_is_there_can_be_read_and_deleted(moa: Moa) -> None:
    moa.profile("aux", "a")
    assert moa.run("profile", "check", "aux").code == 0
    assert moa.run("profile", "delete", "aux", "--yes").code == 0


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_names_that_differ_in_case_only_are_one_file_elsewhere(
    moa: Moa, more: tuple[str, ...]
) -> None:
    for command in (("profile", "new", "Lab"), ("profile", "copy", "self", "LAB")):
        said = refusal(moa.run(*command, *more))
        assert "there is already a profile `lab`" in said
        assert "one file on macOS and Windows" in said
    assert profiles(moa) == ["lab.toml"]


def test_a_copy_is_readable_by_its_owner_alone(moa: Moa) -> None:
    source = moa.folder / "here.toml"
    source.write_text('[aggregator]\nmodel = "lab:agg"\n[[proposers]]\nmodel = "lab:a"\n')
    source.chmod(0o644)
    before = os.umask(0)
    try:
        assert moa.run("profile", "copy", "./here.toml", "mine").code == 0
        assert moa.run("profile", "edit", "self", env={"EDITOR": "true"}).code == 0
    finally:
        os.umask(before)
    for name in ("mine", "self"):
        file = moa.config / "profiles" / f"{name}.toml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_list_of_no_profiles_is_told_in_words(moa: Moa, tmp_path: Path) -> None:
    # As where the package was copied without the folder of its profiles.
    package = Path(__file__).parents[2] / "moa_cli"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "copy" / "moa_cli", ignore=ignored)
    (moa.config / "profiles" / "lab.toml").unlink()
    ran = moa.run("profile", "list", env={"PYTHONPATH": str(tmp_path / "copy")})
    told = "moa: there are no profiles; `moa profile new NAME` makes one\n"
    assert (ran.code, ran.out, ran.err) == (0, b"", told)
    ran = moa.run("profile", "list", "--json", env={"PYTHONPATH": str(tmp_path / "copy")})
    assert (ran.code, ran.out, ran.err) == (0, b"[]\n", "")

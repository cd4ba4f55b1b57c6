"""A merge prompt is read from its file when the setting is, and kept as its text."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from moa_cli.core.errors import ProfileError
from moa_cli.profile import Overrides, Profile, build, dump, load, resolve, rows, save, to_table
from moa_cli.profile.layering import set_value
from moa_cli.profile.merge_prompt import behind_references, filled
from tests.support.command import Moa
from tests.support.server import serving
from tests.support.upstream import Upstream

BASE = 'proposers = [{ model = "b" }]\naggregator = { model = "a" }\n'
TEXT = 'Of {count} answers to "{prompt}", take the best:\n{references}'


def written(setting: str, folder: str = ".") -> str:
    """A profile's file with that merge prompt."""
    Path(folder).mkdir(exist_ok=True)
    path = Path(folder, "own.toml")
    path.write_text(f"merge_prompt = {setting}\n{BASE}")
    return str(path)


def refusal(path: str) -> str:
    with pytest.raises(ProfileError) as raised:
        load(path)
    return raised.value.message


def test_a_file_is_found_beside_the_profile_s(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(written('"prompts/merge.txt"', "profiles")).absolute()
    (path.parent / "prompts").mkdir()
    (path.parent / "prompts" / "merge.txt").write_bytes(f"\ufeff{TEXT}\r\n\n".encode())
    monkeypatch.chdir("/")
    profile = load(str(path))
    assert profile.merge_prompt == TEXT
    [origin] = [origin for name, _, origin in rows(profile) if name == "merge_prompt"]
    assert origin.where == str(path.parent / "prompts" / "merge.txt")
    assert resolve(str(path), environment={}).merge_prompt == TEXT


def test_a_text_may_stand_in_the_profile_itself() -> None:
    assert load(written(f"'''{TEXT}'''")).merge_prompt == TEXT
    assert load(written("'See {references}.'")).merge_prompt == "See {references}."
    assert load(written("''")).merge_prompt == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Sum up.", "`merge_prompt` has no {references}"),
        ("Sum up {{references}}.", "`merge_prompt` has no {references}"),
        ("{references} {referenecs}", "`merge_prompt` holds {referenecs}, which is no placeholder"),
        ("{references} {name}", "`merge_prompt` holds {name}, which is no placeholder"),
        ("", "`merge_prompt` is empty"),
        (" \n", "`merge_prompt` is empty"),
    ],
)
def test_a_wrong_file_is_blamed_by_its_name(text: str, problem: str) -> None:
    Path("merge.txt").write_text(text)
    message = refusal(written('"merge.txt"'))
    assert message == f"merge.txt: {problem}"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("'{references} {x}'", "`merge_prompt` holds {x}, which is no placeholder"),
        ("'''\nSum up.\n'''", "`merge_prompt` has no {references}"),
        ("3", "`merge_prompt` must be a text in quotes"),
        ("'gone.txt'", "`merge_prompt`: there is no file gone.txt"),
        ("'.'", "`merge_prompt`: there is no file"),
        ("'a\\u0000b'", "`merge_prompt`: there is no file"),
    ],
)
def test_a_wrong_text_or_name_is_blamed_where_it_stands(setting: str, problem: str) -> None:
    message = refusal(written(setting.replace("'a\\u0000b'", '"a\\u0000b"')))
    assert message.startswith(f"own.toml: {problem}")


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("merge.txt").write_bytes(b"\xff{references}\x80")
    assert refusal(written('"merge.txt"')).startswith("merge.txt: ")


def test_a_variable_an_option_and_set_name_a_file_of_the_working_folder(tmp_path: Path) -> None:
    path = written("'{references}'", "elsewhere")
    Path("merge.txt").write_text(TEXT)
    by_variable = resolve(path, environment={"MOA_MERGE_PROMPT": "merge.txt"})
    by_option = resolve(path, environment={}, flags=Overrides(merge_prompt="merge.txt"))
    by_set = set_value(load(path), "merge_prompt", "merge.txt", "/set")
    for profile, origin in (
        (by_variable, "MOA_MERGE_PROMPT"),
        (by_option, "--merge-prompt"),
        (by_set, "/set"),
    ):
        assert profile.merge_prompt == TEXT
        assert ("merge_prompt", TEXT, origin) in [(name, v, str(o)) for name, v, o in rows(profile)]
    with pytest.raises(ProfileError, match=r"^--merge-prompt: there is no file"):
        resolve(path, environment={}, flags=Overrides(merge_prompt="gone.txt"))
    # What was in force is what is kept: the file may change, and the profile may move.
    Path("merge.txt").unlink()
    save(by_set, "kept")
    assert load("kept") == replace(by_set, name="kept")
    assert build("own", to_table(by_set)) == by_set


def test_a_table_that_comes_from_elsewhere_names_no_file() -> None:
    # As a run folder of somebody else may: nothing on this machine is read for it.
    Path("merge.txt").write_text(TEXT)
    table = {"aggregator": {"model": "a"}, "merge_prompt": "merge.txt"}
    with pytest.raises(ProfileError, match=r"has no \{references\}"):
        build("own", table)


def test_a_turn_is_sent_it_and_keeps_it(moa: Moa, upstream: Upstream) -> None:
    (moa.config / "profiles" / "merge.txt").write_text(TEXT)
    path = moa.profile("lab", "a", "b", merge_prompt="merge.txt", reference_names=True)
    assert moa.run("ask", "--save", "Rain?").code == 0
    [last] = upstream.chats("agg")
    sent = 'Of 2 answers to "Rain?", take the best:\n1. (lab:a) ok\n2. (lab:b) ok'
    assert last.messages[0] == {"role": "system", "content": sent}
    path.write_text("merge_prompt = 'gone.txt'\n")
    told = moa.run("history", "export", "--all", "--format", "json").text
    kept = tomllib.loads(json.loads(told)["conversations"][0]["turns"][0]["settings"])
    assert (kept["merge_prompt"], kept["reference_names"]) == (TEXT, True)


def test_the_plan_and_the_settings_show_it(moa: Moa) -> None:
    (moa.folder / "merge.txt").write_text(TEXT)
    typed = ("--merge-prompt", "merge.txt", "--reference-format", "fenced", "--reference-names")
    plan = moa.run("ask", "--dry-run", *typed, "Rain?")
    assert 'Of 3 answers to "Rain?", take the best:' in plan.text
    assert "[response 3 (lab:c) begins: " in plan.text
    shown = moa.run("profile", "show", "--merge-prompt", "merge.txt").text
    [row] = [line for line in shown.splitlines() if line.startswith("merge_prompt")]
    assert "take the best" in row
    assert row.endswith("--merge-prompt")
    refused = moa.run("ask", "--merge-prompt", "gone.txt", "Rain?")
    assert (refused.code, refused.out) == (2, b"")
    assert refused.err.startswith("moa: --merge-prompt: there is no file gone.txt")
    assert refused.err.count("\n") == 1


def test_a_request_may_ask_for_borders_but_names_no_file(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        asked = {"reference_format": "fenced", "reference_names": True}
        assert server.ask(moa=asked).status_code == 200
        assert "[response 1 (lab:a) begins: " in upstream.chats("agg")[0].messages[0]["content"]
        refused = server.ask(moa={"merge_prompt": "/etc/passwd"})
        assert refused.status_code == 400
        assert "moa.merge_prompt" in refused.text


def test_the_profile_that_is_told_holds_no_name_of_a_file() -> None:
    Path("merge.txt").write_text(TEXT)
    profile: Profile = load(written('"merge.txt"'))
    assert "merge.txt" not in dump(profile)
    assert "take the best" in dump(profile)


def test_a_text_behind_the_references_holds_no_placeholder() -> None:
    text = "Of {{references}}: {references} and {prompt}."
    for more in ("{prompt}", "{{prompt}}", "{{{x}}}", "{x}} {{y}", '{"a": {}}'):
        told = filled(behind_references(text, more), {"references": "R", "prompt": "P"})
        assert told == f"Of {{references}}: R\n\n{more} and P."

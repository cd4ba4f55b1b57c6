"""`moa doctor`: a line for each thing that a turn needs, a hint for each that is not in place,
and exit code 1 if one that the profile needs is missing. Keys are never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import KEY, Moa, Ran
from tests.support.upstream import Upstream


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Moa]:
    """A machine on which all that the profile `lab` needs is in place."""
    with Upstream(api_key=KEY, models=["a", "b", "c", "agg"]) as upstream:
        yield without_weights(Moa(tmp_path, upstream.url), upstream.url)


def without_weights(moa: Moa, url: str) -> Moa:
    """The machine, where the embedded model would not start: that takes seconds."""
    lab = {"base_url": url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, local={"model": "/nowhere.gguf"})
    return moa


def findings(ran: Ran) -> dict[str, str]:
    """Each line's level by what it says."""
    assert ran.err == ""
    # A list goes on below its head.
    text = re.sub(r"\n {7}(?!→ )", " ", ran.text)
    lines = [line for line in text.splitlines() if not line.startswith("       → ")]
    assert all(re.fullmatch(r"(OK   |WARN |ERROR|SKIP )  \S.*", line) for line in lines)
    return {line[7:]: line[:5].strip() for line in lines}


def hint(ran: Ran, what: str) -> str:
    """The hint below the line that says `what`."""
    lines = ran.text.splitlines()
    [number] = [number for number, line in enumerate(lines) if what in line]
    assert lines[number + 1].startswith("       → ")
    return lines[number + 1][9:]


def test_with_all_in_place_every_line_is_ok_and_so_is_the_code(whole: Moa) -> None:
    ran = whole.run("doctor")
    found = findings(ran)
    assert ran.code == 0
    assert "ERROR" not in found.values()
    for what in (
        "lab: key from environment variable LAB_KEY",
        "profile lab: lab:a, lab:b, lab:c → lab:agg",
        "lab: reachable, 4 models",
        *(f"lab: has {model}" for model in ("a", "b", "c", "agg")),
        f"config: {whole.config / 'config.toml'}",
    ):
        assert found[what] == "OK"
    assert found["together: no API key (TOGETHER_API_KEY is not set)"] == "SKIP"
    assert found["no model was called, so credit is not known"] == "SKIP"
    assert found["local: /nowhere.gguf is not there"] == "WARN"
    assert KEY not in ran.text


def test_lines_are_folded_between_words_at_a_terminal(whole: Moa) -> None:
    told = whole.run("doctor", "--offline").text
    with whole.terminal("doctor", "--offline", columns=160, rows=60) as terminal:
        assert terminal.wait() == 0
        assert " ".join(terminal.lines()).split() == told.split()


def test_the_providers_without_a_key_take_lines_of_80_cells_also_in_a_pipe(whole: Moa) -> None:
    ran = whole.run("doctor", "--offline")
    [told] = [what for what in findings(ran) if what.startswith("no API key for ")]
    assert told.startswith("no API key for anthropic (ANTHROPIC_API_KEY), gemini (")
    assert told.endswith(", azure (AZURE_OPENAI_API_KEY)")
    listed = [line for line in ran.text.splitlines() if re.search(r"\([A-Z_]+\),?", line)]
    assert len(listed) > 5
    assert max(map(len, listed)) <= 80
    # A name and its variable stay together.
    assert all(line.endswith((",", ")")) for line in listed)
    with whole.terminal("doctor", "--offline", columns=50, rows=60) as terminal:
        assert terminal.wait() == 0
        assert "       mistral (MISTRAL_API_KEY)," in terminal.lines()


def test_versions_and_folders_are_told(whole: Moa) -> None:
    found = findings(whole.run("doctor", "--offline"))
    assert [what.split()[0] for what in found][:4] == ["moa", "together", "rich", "prompt-toolkit"]
    for name in ("config", "data", "state", "cache"):
        assert any(what.startswith(f"{name} folder: ") for what in found)


def test_a_file_in_the_place_of_a_folder_is_told(whole: Moa, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    given = {"MOA_DATA_DIR": str(taken)}
    assert (
        findings(whole.run("doctor", "--offline", env=given))[f"data folder: {taken} is no folder"]
        == "ERROR"
    )
    assert f"moa: {taken}: Not a directory\n" in whole.run("history", "list", env=given).err


def test_a_history_that_cannot_be_used_is_told_in_words(whole: Moa, tmp_path: Path) -> None:
    (tmp_path / "data" / "conversations.db").mkdir(parents=True)
    ran = whole.run("history", "list", env={"MOA_DATA_DIR": str(tmp_path / "data")})
    assert ran.err.endswith(
        "conversations.db: the file cannot be opened, or its folder cannot be written\n"
    )


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"RECORD": "moa_cli/__init__.py,,\nmoa_cli/app.py,,\n"},
        {"entry_points.txt": "[console_scripts]\nmoa = another:main\n"},
    ],
    ids=["name alone", "same import package", "same command"],
)
@pytest.mark.parametrize("name", ["moa-cli", "another"])
def test_another_package_with_the_same_names_is_told_of(
    whole: Moa, tmp_path: Path, name: str, files: dict[str, str]
) -> None:
    metadata = tmp_path / "installed" / f"{name.replace('-', '_')}-0.5.3.dist-info"
    metadata.mkdir(parents=True)
    metadata_text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.5.3\n"
    for file, text in {"METADATA": metadata_text, **files}.items():
        (metadata / file).write_text(text, "utf-8")
    # Files that are recorded but missing do not count since Python 3.12.
    package = metadata.parent / "moa_cli"
    package.mkdir()
    for file in ("__init__.py", "app.py"):
        (package / file).touch()
    path = f"{whole.environment['PYTHONPATH']}:{metadata.parent}"
    ran = whole.run("doctor", "--offline", env={"PYTHONPATH": path})
    what = f"{name} is installed in the same environment, with files or a command of moa's names"
    told = findings(ran).get(what)
    if name == "another" and not files:
        assert told is None
        return
    assert (ran.code, told) == (0, "WARN")
    assert f"uninstall {name}" in hint(ran, what)


def test_a_missing_key_that_the_profile_needs_is_an_error(whole: Moa) -> None:
    ran = whole.run("doctor", env={"LAB_KEY": None})
    assert ran.code == 1
    assert findings(ran)["lab: no API key, which the profile needs"] == "ERROR"
    assert hint(ran, "which the profile needs") == "set LAB_KEY"


def test_a_refused_key_is_an_error_and_not_shown(tmp_path: Path) -> None:
    with Upstream(api_key="another-key", models=["a"]) as upstream:
        ran = without_weights(Moa(tmp_path, upstream.url), upstream.url).run("doctor")
    assert ran.code == 1
    [refused] = [what for what in findings(ran) if what.startswith("lab refused the API key")]
    assert findings(ran)[refused] == "ERROR"
    assert KEY not in ran.text


def test_a_provider_that_cannot_be_reached_is_an_error(whole: Moa) -> None:
    without_weights(whole, "http://127.0.0.1:1/v1")
    ran = whole.run("doctor")
    assert ran.code == 1
    assert findings(ran)["lab: no connection to 127.0.0.1:1 (refused)"] == "ERROR"
    assert hint(ran, "no connection") == "check the network and the base URL"


def test_a_model_that_is_not_listed_is_a_warning_with_the_nearest_name(whole: Moa) -> None:
    whole.profile("lab", "a", aggregator="aggg")
    ran = whole.run("doctor")
    assert ran.code == 0
    assert findings(ran)["lab: does not list aggg"] == "WARN"
    assert hint(ran, "does not list") == "did you mean `agg`?"


def test_offline_asks_nobody(moa: Moa, upstream: Upstream) -> None:
    without_weights(moa, upstream.url)
    ran = moa.run("doctor", "--offline")
    assert ran.code == 0
    assert findings(ran)["lab: not asked (--offline)"] == "SKIP"
    assert upstream.requests == []


def test_a_mistyped_provider_is_an_error_and_the_rest_is_checked(whole: Moa) -> None:
    settings = whole.settings()
    settings["prices"] = {"labb:a": {"prompt": 1, "completion": 1}}
    whole.configure(**settings)
    arguments = ["-m", "opnai:gpt-4o,lab:a", "-a", "labb:agg"]
    ran = whole.run("doctor", "--offline", *arguments, env={"TOGETHER_API_KEY": "t" * 9})
    assert (ran.code, ran.err) == (1, "")
    wrong = [what for what, level in findings(ran).items() if level == "ERROR"]
    assert wrong == [
        "--reference-model: there is no provider `opnai` (model `opnai:gpt-4o`);"
        " did you mean `openai`?",
        "--aggregator: there is no provider `labb` (model `labb:agg`); did you mean `lab`?",
    ]
    [price] = [what for what, level in findings(ran).items() if "`prices." in what]
    assert findings(ran)[price] == "WARN"
    assert price.endswith(
        "config.toml: `prices.labb:a`: there is no provider `labb` (model `labb:a`);"
        " did you mean `lab`?"
    )
    assert findings(ran)["lab: not asked (--offline)"] == "SKIP"
    assert "t" * 9 not in ran.text


@pytest.mark.parametrize("text", ["two words", "with\nline end", "ünïcode"])
def test_what_cannot_be_a_key_is_an_error_and_not_shown(whole: Moa, text: str) -> None:
    ran = whole.run("doctor", "--offline", env={"LAB_KEY": text})
    assert ran.code == 1
    [wrong] = [what for what, level in findings(ran).items() if level == "ERROR"]
    assert wrong.startswith("lab: LAB_KEY: what it holds cannot be an API key")
    assert text not in ran.text


def test_a_key_command_that_fails_is_an_error(whole: Moa) -> None:
    lab = {"base_url": "http://127.0.0.1:1/v1", "api_key_cmd": "echo secret; exit 3"}
    whole.configure(providers={"lab": lab}, local={"model": "/nowhere.gguf"})
    ran = whole.run("doctor", "--offline")
    assert ran.code == 1
    assert findings(ran)["lab: api_key_cmd ended with status 3"] == "ERROR"
    assert "secret" not in ran.text


def test_a_profile_that_needs_the_embedded_model_needs_its_weights(whole: Moa) -> None:
    ran = whole.run("doctor", "-p", "local")
    assert ran.code == 1
    assert findings(ran)["local: /nowhere.gguf is not there"] == "ERROR"


@pytest.mark.slow
def test_the_embedded_model_is_started_for_real(whole: Moa) -> None:
    pytest.importorskip("xllamacpp")
    whole.configure(providers={})
    ran = whole.run("doctor", "-p", "local")
    [runtime] = [what for what in findings(ran) if what.startswith("embedded runtime: xllamacpp")]
    assert (ran.code, findings(ran)[runtime]) == (0, "OK")
    assert "starts, weights " in runtime


def test_a_profile_that_is_wrong_is_one_line_and_code_2(whole: Moa) -> None:
    ran = whole.run("doctor", "-p", "nope")
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith("moa: there is no profile `nope`")


def test_a_key_of_the_working_directory_is_told_of(whole: Moa) -> None:
    (whole.folder / ".env").write_text("LAB_KEY=foreign-key\n")
    ran = whole.run("doctor", "--offline", env={"LAB_KEY": None})
    notice = f"the key of lab comes from the working directory: {whole.folder / '.env'}"
    assert findings(ran)[notice] == "WARN"
    assert findings(ran)[f"lab: key from LAB_KEY in {whole.folder / '.env'}"] == "OK"
    (whole.config / ".env").write_text("LAB_KEY=own-key\n")
    ran = whole.run("doctor", "--offline", env={"LAB_KEY": None})
    notice = (
        f"the key of lab comes from {whole.config / '.env'}; the working directory's .env has"
        " another LAB_KEY, which is ignored"
    )
    assert findings(ran)[notice] == "WARN"
    assert "foreign-key" not in ran.text
    assert "own-key" not in ran.text
    (whole.config / ".env").unlink()
    (whole.folder / ".env").unlink()


IGNORED = {
    "MOA_WINDOW": "set `window` in a profile",
    "MOA_REFERENCES": "set `references` in a profile",
    "MOA_BUDGET_DAY": "set `budget.day` in config.toml",
    "MOA_AGREGATOR": "did you mean `MOA_AGGREGATOR`?",
}


def test_variables_that_moa_does_not_have_are_told_of(whole: Moa) -> None:
    lab = whole.settings()["providers"]["lab"]
    headers = {"X-Team": "${MOA_TEAM}"}
    whole.configure(
        providers={"lab": {**lab, "api_key_env": "MOA_LAB", "headers": headers}},
        local={"model": "/nowhere.gguf"},
    )
    named = {
        "MOA_LAB": KEY,
        "MOA_TEAM": "us",
        "MOA_ROUNDS": "1",
        "MOA_HOME": "/elsewhere",
        "MOA_WINDOWS": "",
    }
    whole.environment |= dict.fromkeys(IGNORED, "3") | named
    ran = whole.run("doctor")
    told = {line: level for line, level in findings(ran).items() if "is ignored" in line}
    line = "{} is ignored: there is no such variable".format
    assert told == dict.fromkeys(map(line, sorted([*IGNORED, "MOA_HOME"])), "WARN")
    assert {name: hint(ran, line(name)) for name in IGNORED} == IGNORED
    # What another program may have is told of by `moa doctor` alone.
    asked = [text for text in whole.run("ask", "hi").err.splitlines() if "ignored" in text]
    assert asked == [f"moa: {line(name)} ({IGNORED[name]})" for name in sorted(IGNORED)]

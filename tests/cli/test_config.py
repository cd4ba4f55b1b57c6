"""`moa config`: what is in force and why; one value changed, all else left as the user wrote it;
and what is wrong refused before anything is written."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moa_cli.config.names import NAMED, dotted, leaves
from moa_cli.config.schema import load_config
from tests.support.command import Moa, Ran

OWN = """\
# mine
profile = "lab"    # at work

retries   =  0
[ providers . lab ]   # the lab's
base_url = "http://127.0.0.1:9/v1"
  api_key_env = 'LAB_KEY'

[budget]
day = 5 # enough
"""


@pytest.fixture
def file(moa: Moa) -> Path:
    """The settings file, as somebody wrote it."""
    path = moa.config / "config.toml"
    path.write_text(OWN)
    return path


@pytest.fixture
def bare(moa: Moa) -> Path:
    """Where the settings file would be, on a machine that has none, nor its folder."""
    folder = moa.config.parent / "not" / "yet"
    moa.environment["MOA_CONFIG_DIR"] = str(folder)
    return folder / "config.toml"


def done(ran: Ran) -> str:
    """What was said of a change that was made."""
    assert (ran.code, ran.out) == (0, b""), ran.err
    return ran.err


def refusal(ran: Ran, code: int = 2) -> str:
    """The one line of a refused command."""
    assert (ran.code, ran.out) == (code, b"")
    assert ran.err.startswith("moa: ")
    assert ran.err.count("\n") == 1
    return ran.err


def listed(moa: Moa, **env: str) -> dict[str, tuple[Any, str]]:
    """Value and origin of each setting."""
    ran = moa.run("config", "list", "--json", env=env)
    assert (ran.code, ran.err) == (0, "")
    return {search["key"]: (search["value"], search["origin"]) for search in json.loads(ran.out)}


# --- list, get


def test_the_list_tells_value_and_origin_of_every_setting(moa: Moa, file: Path) -> None:
    env = {"MOA_CONCURRENCY": "7", "MOA_SAVE": "off", "OLLAMA_HOST": "box"}
    found = listed(moa, **env)
    assert found["profile"] == ("lab", "config.toml")
    assert found["retries"] == (0, "config.toml")
    assert found["concurrency"] == (7, "MOA_CONCURRENCY")
    assert found["save"] == (False, "MOA_SAVE")
    assert found["live"] == (True, "default")
    assert found["budget.day"] == (5, "config.toml")
    assert found["budget.session"] == (None, "default")
    assert found["providers.lab.api_key_env"] == ("LAB_KEY", "config.toml")
    assert found["providers.ollama.base_url"] == ("http://box:11434/v1", "OLLAMA_HOST")
    assert found["providers.openai.base_url"][1] == "default"
    named = {dotted(path) for path in leaves() if path[0] not in NAMED}
    assert named <= found.keys()
    text = moa.run("config", "list", env=env).text
    rows = {line.split()[0]: line.split("  ", 1)[1].strip() for line in text.splitlines()}
    assert rows.keys() == found.keys()
    assert re.fullmatch("not set +default", rows["budget.session"])


def test_a_setting_that_is_too_wide_for_the_terminal_has_two_lines(moa: Moa, file: Path) -> None:
    with moa.terminal("config", "list", columns=60, rows=60) as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    place = lines.index("providers.openrouter.base_url")
    assert lines[place + 1] == "    https://openrouter.ai/api/v1  default"
    assert max(map(len, lines)) <= 60


def test_the_profile_in_force_is_listed_where_none_is_named(moa: Moa, bare: Path) -> None:
    assert listed(moa)["profile"] == ("local", "default")
    assert listed(moa, TOGETHER_API_KEY="k")["profile"] == ("together", "default")
    assert listed(moa, MOA_PROFILE="self")["profile"] == ("self", "MOA_PROFILE")
    assert not bare.parent.exists()


def test_get_prints_the_value_alone(moa: Moa, file: Path) -> None:
    def got(key: str, **env: str) -> str:
        ran = moa.run("config", "get", key, env=env)
        assert (ran.code, ran.err) == (0, "")
        return ran.text

    assert got("profile") == "lab\n"
    assert got("live") == "true\n"
    assert got("retries", MOA_RETRIES="3") == "3\n"
    assert got("providers.lab.base_url") == "http://127.0.0.1:9/v1\n"
    assert got("budget") == "budget.day = 5\nbudget.zone = UTC\n"


@pytest.mark.parametrize("key", ["budget.session", "prices", "prices.x", "providers.x.base_url"])
def test_get_of_what_is_not_set_fails(moa: Moa, file: Path, key: str) -> None:
    assert refusal(moa.run("config", "get", key), 1) == f"moa: `{key}` is not set\n"


@pytest.mark.parametrize("command", [["get"], ["unset"], ["set"]])
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("concurency", "did you mean `concurrency`?"),
        ("budget.dya", "did you mean `budget.day`?"),
        ("providers.lab.base_ulr", "did you mean `providers.lab.base_url`?"),
        ("save.it", "did you mean `save`?"),
        ("providers.", "did you mean `providers`?"),
        ("quux", "`moa config list` lists the settings"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    moa: Moa, file: Path, command: list[str], key: str, hint: str
) -> None:
    value = ["1"] if command == ["set"] else []
    said = refusal(moa.run("config", *command, key, *value))
    assert said == f"moa: there is no setting `{key}` ({hint})\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:pa:s@s@host/v1", "http://me:***@host/v1"),
        ("https://a-token@host/v1", "https://***@host/v1"),
        ("http://host/v1", "http://host/v1"),
    ],
)
def test_a_password_in_an_address_is_never_shown(moa: Moa, url: str, shown: str) -> None:
    ran = moa.run("config", "set", "providers.lab.base_url", url)
    assert "host" not in done(ran)
    assert moa.settings()["providers"]["lab"]["base_url"] == url
    assert listed(moa)["providers.lab.base_url"] == (shown, "config.toml")
    assert moa.run("config", "get", "providers.lab.base_url").text == f"{shown}\n"
    assert listed(moa, LAB_BASE_URL="x")["providers.lab.base_url"][0] == shown
    found = listed(moa, OPENAI_BASE_URL=url)["providers.openai.base_url"]
    assert found == (shown, "OPENAI_BASE_URL")


# --- set


def test_set_changes_one_value_and_nothing_else(moa: Moa, file: Path) -> None:
    said = done(moa.run("config", "set", "retries", "3"))
    assert said == f"moa: set retries in {file}\n"
    done(moa.run("config", "set", "budget.day", "7.5"))
    done(moa.run("config", "set", "providers.lab.api_key_env", "OTHER"))
    expected = OWN.replace("retries   =  0", "retries   =  3")
    expected = expected.replace("day = 5 # enough", "day = 7.5 # enough")
    assert file.read_text() == expected.replace("'LAB_KEY'", '"OTHER"')


def test_set_adds_what_was_not_there(moa: Moa, file: Path) -> None:
    done(moa.run("config", "set", "save", "no"))
    done(moa.run("config", "set", "local.context", "512"))
    done(moa.run("config", "set", "budget.session", "1"))
    done(moa.run("config", "set", "providers.acme", "{base_url = 'http://acme/v1'}"))
    lines = iter(file.read_text().splitlines())
    assert all(line in lines for line in OWN.splitlines())
    table = tomllib.loads(OWN)
    table |= {"save": False, "local": {"context": 512}}
    table["budget"]["session"] = 1
    table["providers"]["acme"] = {"base_url": "http://acme/v1"}
    assert moa.settings() == table


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_file_s_line_ends_stay(moa: Moa, file: Path, ends: str) -> None:
    file.write_bytes(OWN.replace("\n", ends).encode())
    done(moa.run("config", "set", "concurrency", "3"))
    done(moa.run("config", "set", "prices.m", "{prompt = 1, completion = 2}"))
    text = file.read_bytes().decode()
    assert text.count("\n") == text.count(ends) > OWN.count("\n")


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("save", "off", False),
        ("plain", "True", True),
        ("live", "0", False),
        ("concurrency", "8", 8),
        ("budget.day", "2.50", 2.5),
        ("local.model", "~/x y.gguf", "~/x y.gguf"),
        ("providers.lab.api_key_cmd", "pass show 'lab' \\ \"x\"", "pass show 'lab' \\ \"x\""),
    ],
)
def test_a_value_is_read_as_its_key_wants_it(
    moa: Moa, file: Path, key: str, value: str, meant: object
) -> None:
    done(moa.run("config", "set", key, value))
    found: Any = moa.settings()
    for part in key.split("."):
        found = found[part]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    "key",
    ['prices."openai:gpt-4.1"', "prices.openai:gpt-4.1", "prices.'openai:gpt-4.1'"],
)
def test_a_model_s_name_may_be_quoted_or_not(moa: Moa, file: Path, key: str) -> None:
    done(moa.run("config", "set", key, "{prompt = 2, completion = 8}"))
    done(moa.run("config", "set", f"{key}.cached", "0.5"))
    price = {"prompt": 2, "completion": 8, "cached": 0.5}
    assert moa.settings()["prices"] == {"openai:gpt-4.1": price}
    assert moa.run("config", "get", f"{key}.completion").text == "8.0\n"
    done(moa.run("config", "unset", key))
    assert moa.settings().get("prices", {}) == {}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("concurrency", "0", "`concurrency` must be between 1 and 1024, not 0"),
        ("concurrency", "many", "`concurrency` must be a whole number, not 'many'"),
        ("concurrency", "9" * 5000, "`concurrency` must be a whole number"),
        ("retries", "-1", "`retries` must be between 0 and 20, not -1"),
        ("save", "perhaps", "`save` must be true or false, not 'perhaps'"),
        ("budget.day", "nan", "`budget.day` must be a number, not 'nan'"),
        ("budget.day", "1e999", "`budget.day` must be 0 or more, not inf"),
        ("budget", "5", "`budget` must be a table, not 5"),
        ("budget", "{dya = 5}", "unknown key `budget.dya` (did you mean `day`?)"),
        ("prices.m", "{prompt = 1}", "`prices.m.completion` is missing"),
        ("prices.m.prompt", "1", "`prices.m.completion` is missing"),
        ("providers.acme.api_key_env", "KEY", "`providers.acme.base_url` is missing"),
        ("providers.a b", "{base_url = 'http://x'}", "invalid name of a provider"),
        ("profile", "togeter", "no profile `togeter` (did you mean `together`?)"),
        ("local.model", "\udcff", "the value is not Unicode"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(
    moa: Moa, file: Path, key: str, value: str, said: str
) -> None:
    assert said in refusal(moa.run("config", "set", key, value))
    assert file.read_bytes() == OWN.encode()
    assert {path.name for path in moa.config.iterdir()} == {"config.toml", "profiles"}


@pytest.mark.parametrize(
    "key", ["api_key", "OPENAI_API_KEY", "providers.lab.api_key", "providers.lab.token"]
)
def test_a_secret_is_sent_elsewhere_and_not_repeated(moa: Moa, file: Path, key: str) -> None:
    said = refusal(moa.run("config", "set", key, "sk-secret"))
    assert "the environment, a .env file, or the command in providers.NAME.api_key_cmd" in said
    assert "sk-secret" not in said
    assert file.read_text() == OWN


def test_a_key_in_place_of_its_variable_s_name_is_refused_and_not_repeated(
    moa: Moa, file: Path
) -> None:
    said = refusal(moa.run("config", "set", "providers.lab.api_key_env", "sk-secret"))
    assert "is not the name of a variable" in said
    assert "sk-secret" not in said
    assert file.read_text() == OWN


def test_a_wrong_value_in_the_file_can_be_mended(moa: Moa, file: Path) -> None:
    file.write_text(OWN.replace("=  0", "=  99"))
    assert "`retries` must be between 0 and 20" in refusal(moa.run("config", "set", "vi", "on"))
    done(moa.run("config", "set", "retries", "4"))
    assert moa.settings()["retries"] == 4


def test_a_profile_s_path_holds_from_everywhere(moa: Moa, file: Path) -> None:
    (moa.config / "profiles" / "lab.toml").rename(moa.folder / "own.toml")
    done(moa.run("config", "set", "profile", "./own.toml"))
    assert moa.settings()["profile"] == str(moa.folder / "own.toml")


def test_a_variable_that_comes_before_the_file_is_told_of(moa: Moa, file: Path) -> None:
    said = done(moa.run("config", "set", "retries", "2", env={"MOA_RETRIES": "1"}))
    assert said.splitlines()[1] == "moa: MOA_RETRIES is set too, and overrides it"


def test_the_first_setting_makes_a_private_file_from_the_template(moa: Moa, bare: Path) -> None:
    template = moa.run("config", "template").text
    done(moa.run("config", "set", "concurrency", "3"))
    assert bare.read_text() == template.replace("#concurrency = 32", "concurrency = 3")
    assert stat.S_IMODE(bare.stat().st_mode) == 0o600
    assert {stat.S_IMODE(parent.stat().st_mode) for parent in bare.parents[:2]} == {0o700}
    done(moa.run("config", "set", "budget.day", "2"))
    assert tomllib.loads(bare.read_text()) == {
        "concurrency": 3,
        "budget": {"day": 2},
        "local": {},
        "palette": {},
        "prices": {},
        "providers": {},
    }
    for key in ("concurrency", "budget.day"):
        done(moa.run("config", "unset", key))
    assert bare.read_text() == template


def test_a_linked_file_stays_a_link(moa: Moa, file: Path) -> None:
    kept = moa.folder / "kept.toml"
    file.rename(kept)
    file.symlink_to(kept)
    done(moa.run("config", "set", "retries", "1"))
    assert file.is_symlink()
    assert "retries   =  1" in kept.read_text()


def test_changes_at_the_same_time_are_all_kept(moa: Moa, file: Path) -> None:
    models = [f"m{number}" for number in range(8)]
    command = [sys.executable, "-m", "moa_cli", "config", "set"]
    running = [
        subprocess.Popen(
            [*command, f"prices.{model}", "{prompt = 1, completion = 2}"],
            env=moa.environment,
            cwd=moa.folder,
            stderr=subprocess.DEVNULL,
        )
        for model in models
    ]
    assert [process.wait(60) for process in running] == [0] * len(models)
    assert sorted(moa.settings()["prices"]) == models
    assert file.read_text().startswith(OWN)
    assert {path.name for path in moa.config.iterdir()} == {"config.toml", "profiles"}


def test_save_false_switches_saving_off(moa: Moa) -> None:
    done(moa.run("config", "set", "save", "false"))
    assert moa.run("ask", "hello").code == 0
    assert moa.run("history", "list").text == ""
    assert moa.run("ask", "by option", "--save").code == 0
    assert moa.run("ask", "by variable", env={"MOA_SAVE": "1"}).code == 0
    assert moa.run("history", "list").text.count("  by ") == 2
    wrong = moa.run("ask", "hello", env={"MOA_SAVE": "perhaps"})
    assert "MOA_SAVE: must be true or false, not 'perhaps'" in refusal(wrong)
    done(moa.run("config", "unset", "save"))
    assert moa.run("ask", "goodbye").code == 0
    assert "goodbye" in moa.run("history", "list").text


def test_how_a_reply_is_shown_can_be_set_once_and_for_all(moa: Moa) -> None:
    done(moa.run("config", "set", "live", "off"))
    done(moa.run("config", "set", "compact", "on"))
    with moa.terminal("ask", "hi") as terminal:
        assert terminal.wait() == 0
        assert any("round 1: asking" in line for line in terminal.lines())
    with moa.terminal("ask", "hi", "--live") as terminal:
        assert terminal.wait() == 0
        assert not any("round 1: asking" in line for line in terminal.lines())
        assert any(re.match("round 1: 3 of 3 answered", line) for line in terminal.lines())
    # Into files, a setting is quieter than an option.
    assert "round 1" not in moa.run("ask", "hi").err
    assert "round 1" in moa.run("ask", "hi", "--no-live").err


def test_the_usage_can_be_told_always(moa: Moa) -> None:
    assert "4 calls" not in moa.run("ask", "hi").err
    done(moa.run("config", "set", "usage", "on"))
    assert "4 calls" in moa.run("ask", "hi").err
    assert "4 calls" not in moa.run("ask", "hi", "--no-usage").err


# --- unset, path, template, edit


def test_unset_brings_the_default_back(moa: Moa, file: Path) -> None:
    said = done(moa.run("config", "unset", "retries"))
    assert said == f"moa: retries is unset in {file}\n"
    assert file.read_text() == OWN.replace("retries   =  0\n", "")
    assert listed(moa)["retries"] == (4, "default")
    assert "retries was not set" in done(moa.run("config", "unset", "retries"))


def test_a_provider_goes_with_its_last_key(moa: Moa, file: Path) -> None:
    said = refusal(moa.run("config", "unset", "providers.lab.base_url"))
    assert "`providers.lab.base_url` is missing" in said
    assert file.read_text() == OWN
    done(moa.run("config", "unset", "providers.lab.api_key_env"))
    done(moa.run("config", "unset", "providers.lab.base_url"))
    assert moa.settings().get("providers", {}) == {}


def test_unset_without_a_file_makes_none(moa: Moa, bare: Path) -> None:
    done(moa.run("config", "unset", "save"))
    assert not bare.parent.exists()


def test_path_prints_where_the_file_is_or_would_be(moa: Moa, file: Path, bare: Path) -> None:
    assert moa.run("config", "path").text == f"{bare}\n"


def test_the_template_explains_every_key_and_is_right_as_it_stands(
    moa: Moa, tmp_path: Path
) -> None:
    ran = moa.run("config", "template")
    assert (ran.code, ran.err) == (0, "")
    own = tmp_path / "own.toml"
    own.write_text(ran.text)
    nothing = tmp_path / "nothing.toml"
    assert load_config(own) == replace(load_config(nothing), place=str(own))
    own.write_text(re.sub(r'(?m)^#(?=[a-z\["])', "", ran.text))
    load_config(own)
    table: Any = tomllib.loads(own.read_text())
    told = ran.text.replace("\n# ", " ").casefold()
    for path, key in leaves().items():
        assert key.help.casefold() in told
        inner: Any = table
        for part in path:
            inner = inner[part] if part in inner else next(iter(inner.values()))
        assert not isinstance(inner, dict) or key.kind == "table"


def editor(moa: Moa, program: str) -> dict[str, str]:
    """An environment whose editor is that Python program; it is handed the file."""
    path = moa.folder / "editor.py"
    path.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{program}\n")
    return {"EDITOR": f"'{sys.executable}' '{path}'"}


def test_edit_opens_the_template_where_there_is_no_file(moa: Moa, bare: Path) -> None:
    program = "path.write_text(path.read_text().replace('#vi = false', 'vi = true'))"
    assert done(moa.run("config", "edit", env=editor(moa, program))) == f"moa: {bare} is valid\n"
    assert tomllib.loads(bare.read_text())["vi"] is True
    assert stat.S_IMODE(bare.stat().st_mode) == 0o600


def test_edit_names_file_and_key_of_what_is_wrong_and_keeps_it(moa: Moa, file: Path) -> None:
    said = refusal(moa.run("config", "edit", env=editor(moa, "path.write_text('vii = true')")))
    assert said == f"moa: {file}: unknown key `vii` (did you mean `vi`?)\n"
    assert file.read_text() == "vii = true"
    # It opens what is wrong, so that it can be mended.
    done(moa.run("config", "edit", env=editor(moa, "path.write_text('vi = true')")))
    assert "ended with status 1" in refusal(moa.run("config", "edit", env={"EDITOR": "false"}))


# --- files that cannot be used


@pytest.mark.parametrize("command", [["list"], ["get", "vi"], ["set", "vi", "on"], ["unset", "vi"]])
def test_a_file_that_is_no_toml_is_named_with_the_line(
    moa: Moa, file: Path, command: list[str]
) -> None:
    file.write_text("vi = true\nlive = \n")
    said = refusal(moa.run("config", *command))
    assert said.startswith(f"moa: {file}: is not valid TOML: ")
    assert "line 2" in said
    assert file.read_text() == "vi = true\nlive = \n"


@pytest.mark.parametrize("command", [["list"], ["get", "vi"], ["set", "vi", "on"], ["unset", "vi"]])
def test_a_file_that_cannot_be_read_is_named(moa: Moa, file: Path, command: list[str]) -> None:
    file.unlink()
    file.mkdir()
    assert refusal(moa.run("config", *command)).startswith(f"moa: {file}: cannot be read: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", [["set", "retries", "2"], ["unset", "retries"]])
def test_a_folder_that_may_not_be_written_is_told_of(
    moa: Moa, file: Path, command: list[str]
) -> None:
    moa.config.chmod(0o500)
    said = refusal(moa.run("config", *command))
    moa.config.chmod(0o700)
    assert said == f"moa: {file}: cannot be written: Permission denied\n"
    assert file.read_text() == OWN


@pytest.mark.parametrize("command", [["set", "retries", "2"], ["edit"]])
def test_a_folder_that_cannot_be_made_is_told_of(moa: Moa, command: list[str]) -> None:
    (moa.folder / "file").touch()
    said = refusal(
        moa.run("config", *command, env={"MOA_CONFIG_DIR": str(moa.folder / "file" / "x")})
    )
    assert re.fullmatch(r"moa: [^ ]+/config.toml: cannot be written: [A-Za-z ]+\n", said)


_WRITTEN = {
    "byte order mark": ("utf-8-sig", "\n"),
    "byte order mark and crlf": ("utf-8-sig", "\r\n"),
    "utf-16": ("utf-16", "\r\n"),
    "lone carriage returns": ("utf-8", "\r"),
}


@pytest.mark.parametrize(("encoding", "ends"), _WRITTEN.values(), ids=_WRITTEN)
def test_a_file_as_other_systems_write_it_is_read_and_keeps_its_style(
    moa: Moa, file: Path, encoding: str, ends: str
) -> None:
    text = OWN + "# Grüße\n"
    file.write_bytes(text.replace("\n", ends).encode(encoding))
    assert moa.run("config", "get", "budget.day").text == "5\n"
    before = file.read_bytes()
    done(moa.run("config", "set", "concurrency", "3"))
    done(moa.run("config", "unset", "concurrency"))
    done(moa.run("config", "set", "usage", "true"))
    done(moa.run("config", "edit", env={"EDITOR": "true"}))
    after = file.read_bytes()
    made = after.decode(encoding)
    assert after.startswith(before[:2])
    assert made.replace(ends, "").count("\n") == made.replace(ends, "").count("\r") == 0
    assert set(text.split("\n")) <= set(made.split(ends))
    assert "usage = true" in made.split(ends)


def test_lines_that_end_in_different_ways_stay_as_they_are(moa: Moa, file: Path) -> None:
    file.write_bytes(b"plain = true\r\n# mine\nlive = false\r\n")
    done(moa.run("config", "set", "usage", "true"))
    assert file.read_bytes().startswith(b"plain = true\r\n# mine\nlive = false\r\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# caf\xe9\n", "is not UTF-8 text: byte 6 of line 1 is 0xE9 (convert it to UTF-8"),
        ("plain = true\n".encode("utf-16-le"), "is not UTF-8 text: it is UTF-16, it seems"),
        ("\ufeffplain = true\n".encode("utf-32-le"), "is not UTF-8 text: it is UTF-32"),
    ],
)
def test_a_file_in_an_encoding_that_is_not_told_is_refused_and_not_touched(
    moa: Moa, file: Path, content: bytes, said: str
) -> None:
    file.write_bytes(content)
    for command in (("list",), ("set", "plain", "false")):
        ran = moa.run("config", *command)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert f"{file}: {said}" in ran.err
    assert file.read_bytes() == content

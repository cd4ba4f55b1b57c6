"""An empty or blank text never counts as a value: what `"$UNSET"` gives is refused by its name."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import tomli_w

from tests.support.command import Moa
from tests.support.server import serving
from tests.support.upstream import Upstream


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ask -m {} hi", "--reference-model"),
        ("ask -m lab:a -m {} hi", "--reference-model"),
        ("ask --reference-models {} hi", "--reference-models"),
        ("ask -a {} hi", "--aggregator"),
        ("ask --model {} hi", "--model"),
        ("ask -p {} hi", "--profile"),
        ("ask --cid {} hi", "--cid"),
        ("ask -f {} hi", "--file"),
        ("ask --reference-placement {} hi", "--reference-placement"),
        ("chat --cid {}", "--cid"),
        ("serve --api-key {}", "--api-key"),
        ("serve --api-key {} --api-key good-key", "--api-key"),
        ("serve --api-key {} --host 0.0.0.0 --insecure", "--api-key"),
        ("serve --api-key-file {}", "--api-key-file"),
        ("serve --host {}", "--host"),
        ("serve --cors-origin {}", "--cors-origin"),
        ("history list --since {}", "--since"),
        ("history list --profile {}", "--profile"),
        ("history show {}", "ID"),
        ("history delete {} --yes", "ID"),
        ("history delete --older-than {} --yes", "--older-than"),
        ("history export {}", "ID"),
        ("history export --all -o {}", "--output"),
        ("history import {}", "FILE"),
        ("profile show {}", "NAME|PATH"),
        ("profile delete {} --yes", "NAME"),
        ("models {}", "PROVIDER"),
        ("batch {} out.jsonl", "IN"),
        ("batch in.txt {}", "OUT"),
        ("compare --arms {} why", "--arms"),
        ("bench judge run --judge {}", "--judge"),
    ],
)
def test_a_blank_option_or_argument_is_refused_by_its_name(
    moa: Moa, upstream: Upstream, command: str, named: str
) -> None:
    # A blank text stands for an empty one, and the other way round.
    blank = " \t" if named in ("--api-key", "--host") else ""
    for text in dict.fromkeys((blank, "")):
        ran = moa.run(*(text if part == "{}" else part for part in shlex.split(command)))
        assert (ran.code, ran.out) == (2, b"")
        hint = "leave it out, or set the variable that it comes from"
        assert ran.err == f"moa: {named} is empty ({hint})\n"
    assert not upstream.requests


@pytest.mark.parametrize("value", ["", " ", ",", " , ,"])
def test_a_server_is_not_open_to_all_for_want_of_its_key(moa: Moa, value: str) -> None:
    ran = moa.run("serve", "--port", "0", env={"MOA_SERVE_API_KEY": value})
    assert ran.code == 2
    assert ran.err.startswith("moa: MOA_SERVE_API_KEY is empty (")
    (moa.config / ".env").write_text(f"MOA_SERVE_API_KEY='{value}'\n", "utf-8")
    assert moa.run("serve", "--port", "0").err == ran.err


@pytest.mark.parametrize("value", ['""', "''", '"a-key-0123456789"'])
def test_quotes_that_a_shell_would_take_away_are_no_key(moa: Moa, value: str) -> None:
    (moa.folder / "keys").write_text(f"{value}\n", "utf-8")
    for arguments, variable in (
        (["--api-key", value], None),
        (["--api-key-file", "keys"], None),
        ([], value),
    ):
        ran = moa.run("serve", "--port", "0", *arguments, env={"MOA_SERVE_API_KEY": variable})
        assert ran.code == 2
        assert "a key must not stand in quotes" in ran.err


def test_a_server_takes_its_key_from_the_env_file_of_the_config_folder(moa: Moa) -> None:
    (moa.folder / ".env").write_text("MOA_SERVE_API_KEY=a-foreign-key\n", "utf-8")
    ran = moa.run("serve", "--port", "0")
    assert ran.code == 2
    assert "MOA_SERVE_API_KEY does not count in a working directory" in ran.err
    assert "a-foreign-key" not in ran.err
    (moa.config / ".env").write_text("MOA_SERVE_API_KEY=one-key,other-key\n", "utf-8")
    with serving(moa, key="other-key") as server:
        assert server.ask().status_code == 200
        foreign = {"Authorization": "Bearer a-foreign-key"}
        assert server.ask(headers=foreign).status_code == 401


def test_a_list_of_models_without_a_model_is_refused(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "-m", " , ", "hi")
    assert (ran.code, ran.err) == (2, "moa: --reference-model names no model\n")
    ran = moa.run("ask", "hi", env={"MOA_REFERENCE_MODELS": ","})
    assert (ran.code, ran.err) == (2, "moa: MOA_REFERENCE_MODELS: names no model\n")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("profile", {"profile": " "}),
        ("providers.lab.base_url", {"providers": {"lab": {"base_url": ""}}}),
        (
            "providers.lab.api_key_env",
            {"providers": {"lab": {"base_url": "http://127.0.0.1:1/v1", "api_key_env": ""}}},
        ),
        (
            "providers.lab.api_key_cmd",
            {"providers": {"lab": {"base_url": "http://127.0.0.1:1/v1", "api_key_cmd": " "}}},
        ),
        ("local.model", {"local": {"model": ""}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_blank_setting_is_refused_by_its_key(
    moa: Moa, key: str, settings: dict[str, Any]
) -> None:
    (moa.config / "config.toml").write_text(tomli_w.dumps(settings), "utf-8")
    ran = moa.run("ask", "-p", "lab", "hi")
    assert ran.code == 2
    assert f"config.toml: `{key}` must not be empty" in ran.err


def test_a_blank_folder_variable_means_the_usual_folder(moa: Moa) -> None:
    ran = moa.run("history", "path", env={"MOA_DATA_DIR": " "})
    assert ran.code == 0
    assert not ran.text.startswith(" ")
    assert ran.text.startswith("/")


def test_an_empty_system_prompt_takes_the_profile_s_away(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", system="You are a pirate.")
    assert moa.run("ask", "--no-save", "-s", "", "hi").code == 0
    assert all("pirate" not in str(request.body) for request in upstream.requests)

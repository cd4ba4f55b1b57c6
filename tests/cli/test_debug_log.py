"""The debug log: all that a maintainer asks for, one entry a line, and no secret."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core import debug_log
from tests.support.command import KEY, Moa
from tests.support.upstream import Reply, Upstream

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z moa\.[a-z]+ .*")


@pytest.fixture
def log(moa: Moa) -> Path:
    """The file that MOA_LOG names."""
    file = moa.folder.parent / "moa.log"
    moa.environment["MOA_LOG"] = str(file)
    return file


def entries(log: Path, room: str, what: str) -> list[str]:
    """The entries of that kind, without time and name."""
    lines = log.read_text("utf-8").splitlines()
    head = f" moa.{room} {what} "
    return [line.partition(head)[2] for line in lines if head in line]


def test_requests_answers_and_events_are_in_the_log(
    moa: Moa, log: Path, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(chunks=["Hel", "lo\x1b]0;x\x07\u2028\U000e0041\n"]))
    assert moa.run("ask", "Why?\x1b[31m").text.startswith("Hel")
    text = log.read_text("utf-8")
    assert all(LINE.fullmatch(line) for line in text.split("\n")[:-1])
    assert text.endswith("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\U000e0041]", text)
    (begun,) = entries(log, "cli", "moa begins")
    assert "version=" in begun
    assert 'arguments=["ask", "Why?\\u001b[31m"]' in begun
    requests = [e for e in entries(log, "clients", "request") if "/chat/completions" in e]
    assert len(requests) == 4
    assert f"url={upstream.url}/chat/completions" in requests[-1]
    assert '"Authorization": "[key]"' in requests[-1]
    assert '"model": "agg"' in requests[-1]
    assert "Why?" in requests[-1]
    answers = entries(log, "clients", "response")
    assert all("status=200" in e and "seconds=" in e for e in answers)
    assert all('"content-type": "text/event-stream' in e for e in answers)
    events = entries(log, "clients", "event")
    assert any('"content": "Hel"' in e for e in events)
    assert sum(e.endswith("data=[DONE]") for e in events) == 4
    assert len(entries(log, "engine", "turn finished")) == 1
    # An entry says to which request and turn it belongs.
    number = re.search(r"number=\d+", requests[-1])
    assert number is not None
    assert any(number[0] in e for e in events)
    assert all(e.startswith("turn=1 ") for e in requests)


def test_the_file_is_the_users_alone_and_is_added_to(moa: Moa, log: Path) -> None:
    for _ in range(2):
        assert moa.run("ask", "hi").code == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert len(entries(log, "cli", "moa begins")) == 2


def test_why_something_was_decided_is_in_the_log(moa: Moa, log: Path, upstream: Upstream) -> None:
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        retries=1,
        save=False,
    )
    moa.profile("lab", "a", "b", "c", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.enqueue("a", Reply(status=503, headers={"Retry-After": "0"}))
    upstream.always("b", Reply(status=400, error={"error": {"message": "no such thing"}}))
    upstream.always("agg", Reply(status=500))
    assert moa.run("ask", "hi").code == 0
    (first, *_) = entries(log, "engine", "retrying")
    assert 'why="retry: ServerFailed may pass; attempt 2"' in first
    (lost,) = entries(log, "engine", "proposer failed")
    assert 'why="lost after its retries: RequestRefused"' in lost
    assert "no such thing" in lost
    refused = entries(log, "clients", "refused")
    assert any("status=400" in e and "no such thing" in e for e in refused)
    assert any("status=503" in e and '"retry-after": "0"' in e for e in refused)
    spare = entries(log, "engine", "aggregator started")[-1]
    assert 'why="fallback: lab:agg failed: ' in spare
    (key,) = entries(log, "models", "key")
    assert key.endswith('provider=lab why="it is in LAB_KEY"')


def test_a_cap_is_told_as_the_reason(moa: Moa, log: Path) -> None:
    assert moa.run("ask", "--max-total-tokens", "20", "hi").code == 3
    (failed,) = entries(log, "engine", "turn failed")
    assert failed.endswith("why=cap")


SECRETS = {
    "env": "env-key-1c1c1c1c1c",
    "file": "file-key-2d2d2d2d2d",
    "command": "cmd-key-3e3e3e3e3e",
    "password": "pass/word-4f4f4f",
    "custom": "custom-header-5a5a5a",
    "other": "other-variable-6b6b6b",
    "query": "query-key-7c7c7c",
    "named": "body-key-8d8d8d",
}


@pytest.mark.parametrize("source", ["env", "file", "command", "password"])
def test_no_secret_reaches_the_log(moa: Moa, log: Path, upstream: Upstream, source: str) -> None:
    url = upstream.url
    if source == "password":
        url = url.replace("://", "://user:pass%2Fword-4f4f4f@")
    settings = {"base_url": url, "api_key_env": "LAB_KEY"}
    moa.environment.pop("LAB_KEY")
    if source == "env":
        moa.environment["LAB_KEY"] = SECRETS["env"]
    elif source == "command":
        settings["api_key_cmd"] = f"echo {SECRETS['command']}"
    else:
        (moa.config / ".env").write_text(f"LAB_KEY={SECRETS['file']}\n")
    moa.environment["TOGETHER_CUSTOM_HEADERS"] = f"X-Extra: {SECRETS['custom']}"
    moa.environment["SOME_API_KEY"] = SECRETS["other"]
    moa.configure(providers={"lab": settings})
    everything = " ".join(SECRETS.values())
    echo = {
        "message": f"Bad key {everything}; see https://x/?api_key={SECRETS['query']}&a=1",
        "api_key": SECRETS["named"],
        "headers": {"Authorization": f"Bearer {SECRETS['named']}", "cookie": SECRETS["named"]},
    }
    upstream.always(
        "a", Reply(status=401, error={"error": echo}, headers={"Set-Cookie": "body-key-8d8d8d"})
    )
    upstream.always("b", Reply(error=f"<title>{everything}</title>"))
    # In pieces, as a model's tokens come.
    pieces = [everything[at : at + 12] for at in range(0, len(everything), 12)]
    upstream.always("c", Reply(chunks=pieces, headers={"X-Api-Key": SECRETS["named"]}))
    upstream.always("agg", Reply(events=[{"error": {"message": everything}}]))
    assert moa.run("ask", "--no-stream", "hi").code != 0
    text = log.read_text("utf-8")
    assert "[key]" in text
    assert "see https://x/?api_key=[key]&a=1" in text
    known = [source, "custom", "other"] + (["file"] if source == "password" else [])
    for name in known:
        assert SECRETS[name] not in text, name
    assert f'"api_key": "{SECRETS["named"]}"' not in text
    assert f"Bearer {SECRETS['named']}" not in text
    for name in ("cookie", "set-cookie", "x-api-key"):
        assert f'"{name}": "{SECRETS["named"]}"' not in text
    if source == "password":
        assert "pass%2Fword" not in text


@pytest.mark.parametrize("url", ["me:pass-4f4f@127.0.0.1:1/v1", "htp:/me:pass-4f4f@h/v1"])
def test_the_password_of_a_mistyped_address_is_not_in_the_log(
    moa: Moa, log: Path, url: str
) -> None:
    moa.configure(providers={"lab": {"base_url": url, "api_key_env": "LAB_KEY"}})
    assert moa.run("ask", "hi").code != 0
    text = log.read_text("utf-8")
    assert f"url={url.replace('me:pass-4f4f', '[key]')}" in text
    assert "pass-4f4f" not in text


def test_secrets_of_the_command_line_are_not_in_the_log(moa: Moa, log: Path) -> None:
    # Refused, but not before the log has begun.
    ran = moa.run("serve", "--api-key", "serve-key-99999", "--api-key=serve-key-88888", "--no-such")
    assert ran.code == 2
    text = log.read_text("utf-8")
    assert 'arguments=["serve", "--api-key", "[key]", "--api-key=[key]", "--no-such"]' in text
    assert "serve-key" not in text


def test_logins_of_the_command_line_are_not_in_the_log(moa: Moa, log: Path) -> None:
    moa.run("serve", "--otel-endpoint", "me:pass-4f4f@h", "--otel-endpoint=me:pass-5f5f@h")
    text = log.read_text("utf-8")
    assert '"--otel-endpoint", "[key]@h", "--otel-endpoint=[key]@h"' in text


@pytest.mark.parametrize("name", ["headers", "query", "headers.X-Team"])
def test_secrets_of_settings_on_the_command_line_are_not_in_the_log(
    moa: Moa, log: Path, name: str
) -> None:
    moa.run("config", "set", f"providers.lab.{name}", '{ x-team = "team-7777777" }')
    text = log.read_text("utf-8")
    assert f'arguments=["config", "set", "providers.lab.{name}", "[key]"]' in text
    assert "team-7777777" not in text


@pytest.mark.parametrize("kind", ["attachment", "profile", "settings", "database", "folder"])
def test_a_file_of_another_kind_is_never_written_to(moa: Moa, log: Path, kind: str) -> None:
    assert moa.run("ask", "first", env={"MOA_LOG": None}).code == 0
    paths = {
        "attachment": moa.folder / "notes.txt",
        "profile": moa.config / "profiles" / "lab.toml",
        "settings": moa.config / "config.toml",
        "database": moa.state.parent / "data" / "conversations.db",
        "folder": moa.config,
    }
    paths["attachment"].write_text("my notes\n")
    path = paths[kind]
    before = path.read_bytes() if path.is_file() else b""
    ran = moa.run("ask", "hi", env={"MOA_LOG": str(path)})
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith("moa: MOA_LOG: ")
    assert ran.err.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize(
    "name", ["data/conversations.db", "config/config.toml", "state/prompt-history"]
)
def test_the_names_of_moas_own_files_are_not_taken(moa: Moa, log: Path, name: str) -> None:
    path = moa.state.parent / name
    path.unlink(missing_ok=True)
    ran = moa.run("ask", "--no-save", "hi", env={"MOA_LOG": str(path)})
    assert ran.code == 2
    assert not path.exists()


def test_without_a_log_nothing_is_written(moa: Moa) -> None:
    before = set(moa.folder.parent.rglob("*"))
    ran = moa.run("ask", "--no-save", "hi", env={"MOA_LOG": " "})
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert "moa.clients" not in ran.err
    assert not [path for path in set(moa.folder.parent.rglob("*")) - before if "log" in path.name]


@given(st.text('abcdefgh0123456789+/=-_%"\\ é', min_size=8, max_size=40), st.text(), st.text())
def test_no_known_secret_survives_in_any_form(secret: str, before: str, after: str) -> None:
    import json

    debug_log.add_secret(secret)
    text = json.dumps([before, secret, after, json.dumps(secret)])
    masked = debug_log.mask(text)
    assert secret not in masked
    assert json.dumps(secret)[1:-1] not in masked


def test_a_program_gets_the_entries_by_a_handler_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = debug_log.RoomLog("moa.clients")
    silent = log.enabled
    with caplog.at_level(logging.DEBUG, logger="moa.clients"):
        assert (silent, log.enabled) == (False, True)
        debug_log.add_secret(KEY)
        log.write("request", body={"key": KEY})
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("moa.clients", "DEBUG")
    assert record.getMessage() == 'request body={"key": "[key]"}'


@pytest.mark.parametrize(
    "words",
    [
        ("--debug", "ask", "hi"),
        ("ask", "--debug", "hi"),
        ("ask", "hi", "--debug"),
        ("--debug", "ask", "--debug", "hi"),
        ("batch", "--debug", "in.txt", "out.jsonl", "--yes"),
        ("models", "lab", "--debug"),
        ("--debug", "doctor"),
    ],
    ids=" ".join,
)
def test_the_log_goes_to_standard_error_if_asked_for(moa: Moa, words: tuple[str, ...]) -> None:
    (moa.folder / "in.txt").write_text("one\n")
    ran = moa.run(*words)
    lines = [line for line in ran.err.splitlines() if LINE.fullmatch(line)]
    assert sum(" moa.cli moa begins " in line for line in lines) == 1
    assert any(" moa.clients request " in line for line in lines)
    assert KEY not in ran.err
    # The result is alone on standard output.
    assert "moa.clients" not in ran.text


@pytest.mark.parametrize(
    "command",
    [
        "ask",
        "chat",
        "serve",
        "batch",
        "compare",
        "models list",
        "doctor",
        "bench run",
        "bench judge",
    ],
)
def test_each_command_that_calls_models_offers_it(moa: Moa, command: str) -> None:
    assert "--debug" in moa.run(*command.split(), "--help").text


def test_nothing_moves_on_a_terminal_that_shows_the_log(moa: Moa) -> None:
    with moa.terminal("ask", "--debug", "hi", columns=300, rows=60) as terminal:
        assert terminal.wait() == 0
    shown = "\n".join(terminal.lines())
    assert " moa.clients request " in shown
    # The steps are told in lines, as where nothing can move.
    assert "moa: round 1: asking lab:a, lab:b, lab:c" in shown

"""Settings, profiles and keys that are edited while the server runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

FIRST, SECOND = "sk-first-0123456789", "sk-second-0123456789"


def aggregator(server: Server, model: str = "moa", **headers: str) -> str:
    return str(server.ask(model=model, headers=headers).json()["moa"]["aggregator"])


@contextmanager
def held(server: Server) -> Iterator[None]:
    """While inside, the server does not look: it finds all edits at once."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_an_edited_profile_is_live_by_itself_also_as_the_default(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("other", aggregator="x")
    with serving(moa) as server:
        assert aggregator(server) == "lab:agg"
        with held(server):
            moa.profile("lab", aggregator="y")
            moa.profile("other", aggregator="z")
        server.wait_for_log("reloaded: `moa`, `lab`, `other`")
        assert [aggregator(server, name) for name in ("moa", "lab", "other")] == [
            "lab:y",
            "lab:y",
            "lab:z",
        ]
        (moa.config / "profiles" / "other.toml").unlink()
        server.wait_for_log("reloaded: `other`")
        assert server.ask(model="other").status_code == 404
        assert "other" not in [row["id"] for row in server.get("/v1/models").json()["data"]]


def test_a_broken_edit_changes_nothing_and_is_told_once_with_its_line(
    moa: Moa, upstream: Upstream
) -> None:
    with serving(moa) as server:
        path = moa.config / "profiles" / "lab.toml"
        path.write_text('rounds = 1\n\n[aggregator]\nmodel = "lab:y"\ntemperature = 9\n')
        server.wait_for_log(rf"{path}, line 5: `aggregator.temperature` must be .*; its former")
        server.wait_for_log(r"line 5: .*; the former `moa` stays in effect")
        assert aggregator(server) == aggregator(server, "lab") == "lab:agg"
        config = moa.config / "config.toml"
        good = config.read_text()
        config.write_text(good + "\n[budget\n")
        server.wait_for_log(rf"{config}: is not valid TOML: .*line \d+.*; the former settings")
        config.write_text(good + "\n[budget]\nday = -1\n")
        line = good.count("\n") + 3
        server.wait_for_log(rf"{config}, line {line}: `budget.day` must be 0 or more")
        # Each second, what is broken is tried again.
        config.write_text(good + "\n[providers.new]\nbase_url = 'http://127.0.0.1:9/v1'\n")
        server.wait_for_log("reloaded: the settings")
        path.write_text('[aggregator]\nmodel = "lab:z"\n')
        server.wait_for_log("reloaded: `moa`, `lab`")
        assert aggregator(server) == "lab:z"
        told = [text for text in server.log if "line 5" in text]
    assert len(told) == 2


def test_settings_without_a_provider_that_the_default_needs_are_not_taken(
    moa: Moa, upstream: Upstream
) -> None:
    with serving(moa) as server:
        moa.configure(providers={"lab2": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}})
        server.wait_for_log("there is no provider `lab`.*the former settings and the former `moa`")
        assert server.ask().status_code == 200
        (moa.config / "profiles" / "lab.toml").write_text('[aggregator]\nmodel = "lab2:y"\n')
        server.wait_for_log("reloaded: the settings, `moa`, `lab`")
        assert aggregator(server) == "lab2:y"


def test_another_address_and_another_key_of_a_provider_are_live(
    moa: Moa, upstream: Upstream
) -> None:
    with Upstream(api_key="second-key-0123456789") as second, serving(moa) as server:
        assert server.ask().status_code == 200
        lab = {"base_url": second.url, "api_key_env": "OTHER_KEY"}
        moa.configure(providers={"lab": lab})
        server.wait_for_log("reloaded: the settings")
        assert server.ask().json()["error"]["code"] == "upstream_authentication"
        (moa.config / ".env").write_text("OTHER_KEY=second-key-0123456789\n")
        server.wait_for_log("reloaded: the keys of providers")
        assert server.ask().status_code == 200
        assert len(second.chats()) == 4


def test_a_turn_that_runs_keeps_what_it_began_with(moa: Moa, upstream: Upstream) -> None:
    gate = threading.Event()
    upstream.always("a", Reply(text="late", after=gate))
    answers: list[Any] = []
    with Upstream(api_key="another") as elsewhere, serving(moa) as server:
        asking = threading.Thread(target=lambda: answers.append(server.ask()))
        asking.start()
        upstream.wait_for(lambda: upstream.in_flight == 1)
        with held(server):
            moa.configure(providers={"lab": {"base_url": elsewhere.url, "api_key_env": "LAB_KEY"}})
            moa.profile("lab", "x", aggregator="y")
        server.wait_for_log("reloaded: the settings.*`moa`")
        gate.set()
        asking.join()
        told = answers[0].json()["moa"]
        assert told["aggregator"] == "lab:agg"
        assert elsewhere.requests == []
        assert server.ask().status_code == 502
        assert server.end() == 0
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_files_that_are_replaced_through_a_link_are_seen(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    """As Kubernetes mounts them: the profile is a link through a link to a folder."""
    volume = tmp_path / "volume"
    for version, model in (("1", "x"), ("2", "y")):
        (volume / version).mkdir(parents=True)
        (volume / version / "lab.toml").write_text(f'[aggregator]\nmodel = "lab:{model}"\n')
    # The same size, and the same time.
    os.utime(volume / "2" / "lab.toml", ns=(10**18, 10**18))
    os.utime(volume / "1" / "lab.toml", ns=(10**18, 10**18))
    (volume / "data").symlink_to("1")
    path = moa.config / "profiles" / "lab.toml"
    path.unlink()
    path.symlink_to(volume / "data" / "lab.toml")
    with serving(moa) as server:
        assert aggregator(server) == "lab:x"
        (volume / "new").symlink_to("2")
        (volume / "new").replace(volume / "data")
        server.wait_for_log("reloaded: `moa`, `lab`")
        assert aggregator(server) == "lab:y"


def test_a_merge_prompt_s_file_and_a_profile_by_its_path_are_read_again(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    prompt, path = tmp_path / "merge.txt", tmp_path / "own.toml"
    prompt.write_text("First: {references}")
    lab = (moa.config / "profiles" / "lab.toml").read_text()
    path.write_text(f'merge_prompt = "merge.txt"\n{lab}')

    def system() -> str:
        server.ask()
        return json.dumps(upstream.chats("agg")[-1].messages)

    with serving(moa, "-p", str(path)) as server:
        assert "First: " in system()
        prompt.write_text("Later: {references}")
        server.wait_for_log("reloaded: `moa`")
        assert "Later: " in system()
        prompt.write_text("nothing")
        server.wait_for_log("has no {references}.*the former `moa` stays")
        assert "Later: " in system()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
def test_edits_are_seen_after_the_working_directory_was_removed(
    moa: Moa, upstream: Upstream
) -> None:
    with serving(moa) as server:
        moa.folder.rmdir()
        moa.profile("lab", aggregator="y")
        server.wait_for_log("reloaded: `moa`, `lab`")
        assert aggregator(server) == "lab:y"
        assert not [line for line in server.log if "error" in line]


def test_a_hang_up_signal_has_everything_read_and_ends_nothing(
    moa: Moa, upstream: Upstream
) -> None:
    with serving(moa) as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: ")
        assert server.ask().status_code == 200
        assert server.end() == 0


def test_a_revoked_key_stops_at_once_and_the_last_one_cannot_go(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{FIRST}\n{SECOND}\n")
    with serving(moa, "--api-key-file", str(file)) as server:

        def status(key: str | None) -> int:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return server.ask(headers=headers).status_code

        assert (status(FIRST), status(SECOND)) == (200, 200)
        # Also where something else is broken.
        (moa.config / "config.toml").write_text("[")
        server.wait_for_log("is not valid TOML")
        kept = tmp_path / "kept"
        kept.write_text(f"{SECOND}\n")
        kept.replace(file)
        server.wait_for_log("reloaded: the keys of clients")
        assert (status(FIRST), status(SECOND)) == (401, 200)
        file.write_text("")
        server.wait_for_log("holds no key; the former keys stay valid")
        file.unlink()
        server.wait_for_log("keys: .*; the former keys stay valid")
        assert (status(FIRST), status(SECOND), status(None)) == (401, 200, 401)
        file.write_text(f"{FIRST}\n")
        upstream.wait_for(lambda: (status(FIRST), status(SECOND)) == (200, 401))
        log = "\n".join(server.log)
    assert FIRST not in log
    assert SECOND not in log


def test_many_edits_of_a_second_end_in_the_last_one(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        for number in range(40):
            moa.profile("lab", aggregator=f"m{number:02}")
        upstream.wait_for(lambda: aggregator(server) == "lab:m39")
        shutil.rmtree(moa.config / "profiles")
        server.wait_for_log("there is no profile `lab`.*the former `moa` stays")
        assert aggregator(server) == "lab:m39"


def test_limits_are_live_and_what_was_spent_counts_on(moa: Moa, upstream: Upstream) -> None:
    # A turn takes $0.20.
    prices = {"lab:agg": {"prompt": 0, "completion": 1e5}}
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="two words"))

    def limit(usd: float, concurrency: int) -> None:
        moa.configure(
            providers={"lab": lab},
            prices=prices,
            budget={"session": usd},
            concurrency=concurrency,
        )

    limit(1.0, 8)
    with serving(moa) as server:
        assert [server.ask(max_tokens=2).status_code for _ in range(2)] == [200, 200]
        limit(0.5, 1)
        server.wait_for_log("reloaded: the settings")
        refused = server.ask(max_tokens=2)
        assert refused.status_code == 402
        assert "budget.session $0.50 would be exceeded: $0.40 spent" in refused.text
        limit(0.7, 1)
        upstream.wait_for(lambda: server.ask(max_tokens=2).status_code == 200)

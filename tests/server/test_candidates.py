"""A server asks the candidates that their providers offer, also when that changes."""

from __future__ import annotations

import json

import pytest

from tests.support.command import Moa
from tests.support.server import serving
from tests.support.upstream import Reply, Upstream

KEY = {"LAB_KEY": "k-lab"}


def listing(*models: str) -> Reply:
    return Reply(error={"object": "list", "data": [{"id": model} for model in models]})


@pytest.fixture
def hosted(moa: Moa, upstream: Upstream) -> Moa:
    """The provider's list has the second candidate of each place."""
    upstream.models_reply = listing("new", "writer")
    gone = Reply(status=404, error={"error": {"message": "gone", "code": "model_not_found"}})
    for model in ("old", "old-writer"):
        upstream.always(model, gone)
    moa.configure(providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}})
    for name in ("lab", "other"):
        moa.profile(
            name,
            {"model": ["lab:old", "lab:new"]},
            aggregator={"model": ["lab:old-writer", "lab:writer"]},
        )
    return moa


def asked(upstream: Upstream) -> set[str]:
    return {request.model for request in upstream.chats()}


def test_the_default_mixture_is_said_at_the_start_and_asks_what_is_offered(
    hosted: Moa, upstream: Upstream
) -> None:
    with serving(hosted, env=KEY) as server:
        assert "lab:new → lab:writer" in server.wait_for_log("listening")
        server.wait_for_log("lab:old: not offered now, lab:new is asked instead")
        server.wait_for_log("lab:old-writer: not offered now, lab:writer is asked instead")
        told = server.ask().json()["moa"]
        count = len(server.log)
        assert server.ask().status_code == 200
        assert not any("not offered" in line for line in server.log[count:])
    assert asked(upstream) == {"new", "writer"}
    assert told["aggregator"] == "lab:writer"
    assert told["layers"][0]["calls"][0]["model"] == "lab:new"


def test_another_mixture_is_chosen_when_it_is_loaded_and_that_is_logged(
    hosted: Moa, upstream: Upstream
) -> None:
    with serving(hosted, env=KEY) as server:
        assert server.ask(model="other").status_code == 200
        server.wait_for_log("`other`: lab:old: not offered now, lab:new is asked instead")
        hosted.profile(
            "later", {"model": ["lab:old", "lab:new"]}, aggregator={"model": "lab:writer"}
        )
        assert server.ask(model="later").status_code == 200
        server.wait_for_log("`later`: lab:old: not offered now, lab:new is asked instead")
        upstream.always("new", Reply(status=400))
        server.ask(model="later")
        metrics = server.get("/metrics").text
    assert asked(upstream) == {"new", "writer"}
    # A model that was chosen counts under its own name.
    assert 'moa_model_failures_total{kind="RequestRefused",model="lab:new"} 1.0' in metrics


def test_a_list_that_is_read_anew_changes_the_mixture(hosted: Moa, upstream: Upstream) -> None:
    assert hosted.run("ask", "hi", env=KEY).code == 0
    [kept] = (hosted.config.parent / "cache" / "prices").glob("lab-*.json")
    values = json.loads(kept.read_bytes())
    # Two days old: it is taken, and read anew beside the first turn.
    kept.write_text(json.dumps(values | {"as_of": values["as_of"] - 2 * 86400}), "utf-8")
    upstream.models_reply = listing("old", "writer")
    upstream.always("old", Reply(text="back"))
    with serving(hosted, env=KEY) as server:
        first = server.ask().json()
        assert first["moa"]["layers"][0]["calls"][0]["model"] == "lab:new"

        def is_back() -> bool:
            told = server.ask().json()
            return bool(told["moa"]["layers"][0]["calls"][0]["model"] == "lab:old")

        upstream.wait_for(is_back)
        assert server.ask().json()["system_fingerprint"] != first["system_fingerprint"]


def test_without_a_list_the_next_candidate_is_asked(hosted: Moa, upstream: Upstream) -> None:
    upstream.models_reply = Reply(status=500)
    with serving(hosted, env=KEY) as server:
        told = server.ask().json()
    assert told["moa"]["aggregator"] == "lab:writer"
    assert asked(upstream) == {"old", "new", "old-writer", "writer"}

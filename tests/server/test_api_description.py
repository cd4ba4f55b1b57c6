"""The server against its own description: by dice, and by schemathesis as released."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.bodies import described_body
from tests.support.command import PATIENCE, Moa
from tests.support.environments import others_environment
from tests.support.server import chunks, serving
from tests.support.upstream import Upstream

KEY = "sk-fuzz-0123456789"
CASES = 2000
# In each run of schemathesis the later cases grow, as they hold copies of parts of earlier ones. Of
# one run of all cases most of the time would go into the few largest.
RUNS = 4
WIRES = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
MODELS = ["moa", "lab", "solo"]
# Not that all it describes is accepted: some fields go only with others, which it does not say.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)
# A busy machine may not keep to the limits of a second that some cases set: that is a 504.
SETTINGS = f"""\
request-timeout = {PATIENCE}

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its command, in an environment of its own: it would load itself into every test run."""
    programs = others_environment(tmp_path_factory, "schemathesis", "schemathesis>=4.32,<5")
    return programs / "schemathesis"


def narrowed(described: dict[str, Any]) -> dict[str, Any]:
    """The description with those models only that the upstream has."""
    schemas = described["components"]["schemas"]
    requests = [schema for name, schema in schemas.items() if name.endswith("Request")]
    (named,) = described["paths"]["/v1/models/{model}"]["get"]["parameters"]
    for schema in (*(request["properties"]["model"] for request in requests), named["schema"]):
        assert set(MODELS) <= set(schema["enum"])
        schema["enum"] = MODELS
    return described


def patient(described: dict[str, Any]) -> dict[str, Any]:
    """The description with limits of time that a busy machine keeps, too."""
    limits = described["components"]["schemas"]["ChatRequest"]["properties"]["moa"]
    [mixture] = [schema for schema in limits["anyOf"] if "properties" in schema]
    for name in ("timeout", "stall", "first_token"):
        [seconds] = [
            schema for schema in mixture["properties"][name]["anyOf"] if "minimum" in schema
        ]
        seconds["minimum"] = PATIENCE
    return described


def all_at(upstream: Upstream) -> dict[str, str]:
    """An environment where each model that a case may name is at the upstream, or nowhere."""
    return {
        "OLLAMA_HOST": upstream.url.removesuffix("/v1"),
        "TOGETHER_BASE_URL": upstream.url,
        "TOGETHER_API_KEY": KEY,
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", [*WIRES, "others"])
def test_2000_cases_find_no_fault(
    schemathesis: Path, moa: Moa, upstream: Upstream, tmp_path: Path, path: str
) -> None:
    moa.profile("lab", "a", "b")
    moa.profile("solo")
    described, report = tmp_path / "openapi.json", tmp_path / "report.json"
    generated = 0
    with serving(moa, "--api-key", KEY, key=KEY, env=all_at(upstream)) as server:
        whole = narrowed(server.get("/openapi.json").json())
        assert set(WIRES) <= whole["paths"].keys()
        others = {name: of for name, of in whole["paths"].items() if name not in WIRES}
        whole["paths"] = others if path == "others" else {path: whole["paths"][path]}
        described.write_text(json.dumps(whole))
        (tmp_path / "schemathesis.toml").write_text(SETTINGS)
        for seed in range(RUNS):
            ran = subprocess.run(
                [
                    *(str(schemathesis), "run", str(described), "--url", server.root),
                    *("--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)),
                    *("--phases", "fuzzing" if seed else "coverage,fuzzing"),
                    *("--max-examples", str(CASES // RUNS), "--seed", str(seed)),
                    *("--generation-database", "none", "--continue-on-failure", "--no-shrink"),
                    *("--report-json-path", str(report), "--warnings", "off"),
                ],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            generated += json.loads(report.read_text())["test_cases"]["generated"]
        assert not [line for line in server.log if "internal error" in line]
        if path in WIRES:
            assert generated >= CASES
            # Some of them were answered, too.
            assert len(upstream.chats("agg")) > CASES // 20
        assert server.ask().status_code == 200


def test_2000_bodies_of_many_fields_are_answered_or_refused(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    moa.profile("solo")
    dice = random.Random(7)
    statuses: Counter[int] = Counter()
    with serving(moa, env=all_at(upstream)) as server:
        described = patient(narrowed(server.get("/openapi.json").json()))
        known = described["paths"]["/v1/chat/completions"]["post"]["responses"]
        request = described["components"]["schemas"]["ChatRequest"]
        for _ in range(CASES):
            body = described_body(request, dice)
            response = server.http.post(
                f"{server.url}/chat/completions",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            statuses[response.status_code] += 1
            assert str(response.status_code) in known, (body, response.text)
            assert response.status_code < 500, (body, response.text)
            if response.status_code != 200:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}
            elif body.get("stream"):
                assert chunks(response.text)[-1].get("error") is None
            else:
                assert response.json()["choices"][0]["message"]["content"] == "ok"
        assert not [line for line in server.log if "internal error" in line]
    assert statuses[200] > CASES // 4
    assert statuses[400] > CASES // 10

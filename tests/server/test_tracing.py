"""Traces of turns, as a collector receives them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.support.collector import Collector, ReceivedSpan
from tests.support.command import Moa
from tests.support.network import nobody
from tests.support.server import serving
from tests.support.upstream import Reply, Upstream

_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{_TRACE}-{_PARENT}-01"
PRICES = {f"lab:{model}": {"prompt": 3.0, "completion": 7.0} for model in ("a", "b", "c", "agg")}


def priced(moa: Moa, upstream: Upstream) -> None:
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, prices=PRICES, retries=1)


def parts(spans: list[ReceivedSpan]) -> tuple[ReceivedSpan, list[ReceivedSpan]]:
    """The turn's span, and those of its calls."""
    operation = "gen_ai.operation.name"
    [turn] = [span for span in spans if span.attributes[operation] == "invoke_workflow"]
    calls = [span for span in spans if span.attributes[operation] == "chat"]
    assert len(calls) == len(spans) - 1
    assert {call.parent for call in calls} <= {turn.span}
    assert {call.trace for call in calls} <= {turn.trace}
    return turn, calls


def test_the_trace_of_a_turn_adds_up_to_its_ledger(moa: Moa, upstream: Upstream) -> None:
    priced(moa, upstream)
    upstream.always("b", Reply(status=500))
    upstream.always("a", Reply(text="a secret answer", reasoning=("hm ", "hm "), usage=(50, 20)))
    with (
        Collector() as collector,
        serving(moa, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root}) as server,
    ):
        question = [{"role": "user", "content": "a secret question"}]
        body = server.ask(messages=question, headers={"traceparent": PARENT}).json()
        assert server.end() == 0
    turn, calls = parts(collector.spans)
    assert (turn.trace, turn.parent) == (_TRACE, _PARENT)
    assert turn.name == "invoke_workflow lab"
    assert (turn.attributes["gen_ai.agent.name"], turn.service) == ("lab", "moa")
    told = body["moa"]
    paid = [call for layer in told["layers"] for call in layer["calls"] if not call.get("error")]
    spent = [call for call in calls if "gen_ai.usage.input_tokens" in call.attributes]
    assert len(calls) == 4
    for mine, name in (
        ("gen_ai.usage.input_tokens", "prompt_tokens"),
        ("gen_ai.usage.output_tokens", "completion_tokens"),
        ("moa.cost_usd", "cost"),
    ):
        assert sum(call.attributes[mine] for call in spent) == pytest.approx(
            sum(call[name] for call in paid)
        )
    assert turn.attributes["moa.input_tokens"] == body["usage"]["prompt_tokens"]
    assert turn.attributes["moa.output_tokens"] == body["usage"]["completion_tokens"]
    assert turn.attributes["moa.cost_usd"] == pytest.approx(told["cost"])
    assert turn.attributes["moa.calls"] == told["calls"]
    by_model = {call.attributes["gen_ai.request.model"]: call for call in calls}
    assert by_model.keys() == {"a", "b", "c", "agg"}
    first = by_model["a"]
    assert first.name == "chat a"
    assert first.attributes["gen_ai.provider.name"] == "lab"
    assert first.attributes["gen_ai.usage.input_tokens"] == 50
    assert first.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    failed = by_model["b"]
    assert (failed.failed, failed.attributes["error.type"]) == (True, "ServerFailed")
    assert "retry" in failed.events
    assert turn.seconds >= max(call.seconds for call in calls)
    assert not any(b"secret" in sent for sent in collector.bodies)
    # Upstreams are told of the same trace.
    for request in upstream.chats():
        found = re.fullmatch(rf"00-{_TRACE}-([0-9a-f]{{16}})-01", request.headers["traceparent"])
        assert found is not None
        assert found[1] == turn.span


def test_each_turn_is_a_trace_also_one_that_fails_or_is_left(moa: Moa, upstream: Upstream) -> None:
    with Collector() as collector, serving(moa, "--otel-endpoint", collector.url) as server:
        server.ask()
        upstream.always("agg", Reply(status=400))
        assert server.ask().status_code == 502
        upstream.always("agg", Reply(text="one two three", stall_after=1))
        with server.streaming() as response:
            next(line for line in response.iter_lines() if '"one "' in line)
        server.wait_for_log(" 499 ")
        server.end()
    traces: dict[str, list[ReceivedSpan]] = {}
    for span in collector.spans:
        traces.setdefault(span.trace, []).append(span)
    turns = [parts(spans) for spans in traces.values()]
    assert [len(calls) for _, calls in turns] == [4, 4, 4]
    errors = [turn.attributes.get("error.type") for turn, _ in turns]
    assert errors[0] is None
    assert errors[2] == "Interrupted"
    assert [turn.failed for turn, _ in turns] == [False, True, True]
    for turn, calls in turns:
        for mine in ("input", "output"):
            name = f"gen_ai.usage.{mine}_tokens"
            total = sum(call.attributes.get(name, 0) for call in calls)
            assert total == turn.attributes[f"moa.{mine}_tokens"]


def test_who_sends_no_valid_parent_begins_a_trace(moa: Moa, upstream: Upstream) -> None:
    with Collector() as collector, serving(moa, "--otel-endpoint", collector.url) as server:
        for parent in ("", "nonsense", PARENT.replace(_TRACE, "0" * 32)):
            assert server.ask(headers={"traceparent": parent}).status_code == 200
        server.end()
    turns = [span for span in collector.spans if span.name.startswith("invoke_workflow")]
    assert len({turn.trace for turn in turns} - {_TRACE}) == 3
    assert {turn.parent for turn in turns} == {""}


def test_a_collector_that_is_away_is_told_once_and_holds_nothing_up(
    moa: Moa, upstream: Upstream
) -> None:
    port = nobody()
    url = f"http://user:pass-of-url@127.0.0.1:{port}/v1/traces"
    with serving(moa, "--otel-endpoint", url) as server:
        for _ in range(3):
            assert server.ask().status_code == 200
        assert server.end() == 0
        told = [line for line in server.log if "collector" in line]
        assert len(told) <= 1
        assert not any("pass-of-url" in line for line in server.log)


def test_without_a_collector_nothing_of_it_is_loaded_or_sent(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        assert server.ask(headers={"traceparent": PARENT}).status_code == 200
    assert not any("traceparent" in request.headers for request in upstream.chats())
    code = (
        "import sys; import moa_cli.cli.serve, moa_cli.server.run;"
        " print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_where_it_is_not_installed_the_option_fails_and_the_variable_is_told_of(
    moa: Moa, upstream: Upstream
) -> None:
    hidden = moa.folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys; sys.modules['opentelemetry'] = None\nsys.modules['opentelemetry.sdk'] = None\n"
    )
    path = f"{hidden}:{moa.environment['PYTHONPATH']}"
    ran = moa.run("serve", "--otel-endpoint", "http://localhost:4318", env={"PYTHONPATH": path})
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("moa: OpenTelemetry is not installed (install it with: ")
    assert moa.run("serve", "--otel-endpoint", "localhost").code == 2
    env = {"PYTHONPATH": path, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}
    with serving(moa, env=env) as server:
        server.wait_for_log("OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not")
        assert server.ask().status_code == 200

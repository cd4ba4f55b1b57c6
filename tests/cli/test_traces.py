"""Traces of the turns of `moa ask` and `moa chat`, as a collector receives them."""

from __future__ import annotations

import json
import signal

import pytest

from tests.server.test_tracing import PARENT, parts, priced
from tests.support.collector import Collector, ReceivedSpan
from tests.support.command import Moa
from tests.support.network import nobody
from tests.support.upstream import Reply, Upstream

_TRACE, _PARENT = PARENT.split("-")[1:3]
_INTERNAL = 1


def turns(spans: list[ReceivedSpan]) -> list[tuple[ReceivedSpan, list[ReceivedSpan]]]:
    """The span of each turn with those of its calls, in the order of their traces."""
    traces: dict[str, list[ReceivedSpan]] = {}
    for span in spans:
        traces.setdefault(span.trace, []).append(span)
    return [parts(spans) for spans in traces.values()]


def test_one_ask_is_one_trace_with_a_span_for_each_call(moa: Moa, upstream: Upstream) -> None:
    priced(moa, upstream)
    upstream.always("a", Reply(text="a secret answer", usage=(50, 20)))
    with Collector() as collector:
        ran = moa.run(
            *("ask", "--json", "a secret question"),
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root},
        )
    assert ran.code == 0
    [(turn, calls)] = turns(collector.spans)
    assert (turn.name, turn.parent, turn.service) == ("invoke_workflow lab", "", "moa")
    assert turn.kind == _INTERNAL
    assert turn.attributes["moa.command"] == "ask"
    models = [call.attributes["gen_ai.request.model"] for call in calls]
    assert sorted(models) == ["a", "agg", "b", "c"]
    [first] = [call for call in calls if call.name == "chat a"]
    assert first.attributes["gen_ai.provider.name"] == "lab"
    assert first.attributes["gen_ai.usage.input_tokens"] == 50
    cost = json.loads(ran.text)["usage"]["cost"]
    assert turn.attributes["moa.cost_usd"] == pytest.approx(cost)
    assert sum(call.attributes["moa.cost_usd"] for call in calls) == pytest.approx(cost)
    assert not any(b"secret" in sent for sent in collector.bodies)
    for request in upstream.chats():
        assert request.headers["traceparent"].startswith(f"00-{turn.trace}-{turn.span}-")


def test_a_trace_goes_on_that_the_environment_tells(moa: Moa, upstream: Upstream) -> None:
    with Collector() as collector:
        given = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url, "TRACEPARENT": PARENT}
        assert moa.run("ask", "why?", env=given).code == 0
    [(turn, _)] = turns(collector.spans)
    assert (turn.trace, turn.parent) == (_TRACE, _PARENT)


def test_each_turn_of_a_chat_is_a_trace(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="one"), Reply(status=400), Reply(text="two"))
    with Collector() as collector:
        ran = moa.run(
            "chat",
            stdin=b"why?\nand then?\n/remerge\n",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root},
        )
    assert ran.out == b"one\ntwo\n"
    asked, failed, merged = turns(collector.spans)
    assert [len(calls) for _, calls in (asked, failed, merged)] == [4, 4, 1]
    assert [turn.failed for turn, _ in (asked, failed, merged)] == [False, True, False]
    assert {turn.attributes["moa.command"] for turn, _ in (asked, failed, merged)} == {"chat"}
    assert len({request.headers["traceparent"] for request in upstream.chats()}) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_turn_that_is_interrupted_is_traced(
    moa: Moa, upstream: Upstream, number: int, code: int
) -> None:
    upstream.always("agg", Reply(text="one two three", stall_after=1))
    with Collector() as collector:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root}
        with moa.start("ask", "why?", env=given) as process:
            upstream.wait_for(lambda: any(call.sent for call in upstream.chats("agg")))
            process.send_signal(number)
            process.communicate()
            assert process.returncode == code
    [(turn, calls)] = turns(collector.spans)
    assert turn.attributes["error.type"] == "Interrupted"
    assert len(calls) == 4


def test_a_collector_that_is_away_is_told_of_in_a_line(moa: Moa, upstream: Upstream) -> None:
    port = nobody()
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:pass-of-url@127.0.0.1:{port}"}
    ran = moa.run("ask", "why?", env=given)
    assert (ran.code, ran.out) == (0, b"ok\n")
    assert ran.err.count("collector") == 1
    assert "pass-of-url" not in ran.err
    assert moa.run("ask", "-q", "why?", env=given).err == ""
    assert moa.run("chat", stdin=b"why?\n", env=given).err.count("collector") == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_without_a_collector_nothing_of_it_is_loaded_or_sent(
    moa: Moa, upstream: Upstream, given: dict[str, str]
) -> None:
    for command, stdin in ((("ask", "why?"), None), (("chat",), b"why?\n")):
        ran = moa.run(*command, stdin=stdin, env={**given, "PYTHONPROFILEIMPORTTIME": "1"})
        assert ran.out == b"ok\n"
        assert "moa_cli.engine.turn" in ran.err
        assert "opentelemetry" not in ran.err
    assert not any("traceparent" in request.headers for request in upstream.chats())


def test_where_it_is_not_installed_that_is_told(moa: Moa, upstream: Upstream) -> None:
    hidden = moa.folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys; sys.modules['opentelemetry'] = None\nsys.modules['opentelemetry.sdk'] = None\n"
    )
    given = {
        "PYTHONPATH": f"{hidden}:{moa.environment['PYTHONPATH']}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
    }
    told = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed"
    asked = moa.run("ask", "why?", env=given)
    assert (asked.code, asked.out, asked.err.count(told)) == (0, b"ok\n", 1)
    assert moa.run("ask", "-q", "why?", env=given).err == ""
    assert moa.run("chat", stdin=b"why?\n", env=given).err.count(told) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "missing"),
    ],
)
def test_a_variable_that_opentelemetry_refuses_is_told_of_and_ends_no_turn(
    moa: Moa, upstream: Upstream, variable: str, value: str
) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", variable: value}
    ran = moa.run("ask", "why?", env=given, fresh=True)
    assert (ran.code, ran.out) == (0, b"ok\n"), ran.err
    told = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry refuses its settings: "
    assert (ran.err.count(told), ran.err.count("Traceback")) == (1, 0), ran.err
    ran = moa.run("serve", "--otel-endpoint", "http://127.0.0.1:9", env={variable: value})
    assert (ran.code, ran.err.count("\n")) == (1, 1), ran.err


def test_opentelemetry_prints_nothing_when_it_is_imported(moa: Moa, upstream: Upstream) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_PYTHON_CONTEXT": "missing"}
    ran = moa.run("ask", "-q", "why?", env=given, fresh=True)
    assert (ran.code, ran.out, ran.err) == (0, b"ok\n", "")

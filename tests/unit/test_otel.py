"""Traces as OpenTelemetry spans, read back from the real SDK's exporter."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tts_plugins import BestOfN, SelfConsistency, solve, solve_sync
from tts_plugins.errors import AllCandidatesFailed, RequestRefused
from tts_plugins.models import CallableModel
from tts_plugins.stopping import Unanimous
from tts_plugins.testing import ScriptedModel, TableVerifier


class Breaking(SpanProcessor):
    """A processor that fails while it is switched on."""

    on = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.on:
            raise RuntimeError("the processor broke")


EXPORTER, BREAKING = InMemorySpanExporter(), Breaking()


@functools.cache
def provider() -> TracerProvider:
    """The provider of this process, which is set once: the documentation's, where its blocks ran before."""
    if not isinstance(api.get_tracer_provider(), TracerProvider):
        api.set_tracer_provider(TracerProvider())
    found = api.get_tracer_provider()
    assert isinstance(found, TracerProvider)
    found.add_span_processor(SimpleSpanProcessor(EXPORTER))
    found.add_span_processor(BREAKING)
    return found


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    assert provider() is api.get_tracer_provider()
    EXPORTER.clear()
    yield EXPORTER
    BREAKING.on = False
    EXPORTER.clear()


def named(spans: InMemorySpanExporter, start: str) -> list[ReadableSpan]:
    return [s for s in spans.get_finished_spans() if s.name.startswith(start)]


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_solve_is_a_tree_of_spans_by_the_genai_conventions(spans: InMemorySpanExporter) -> None:
    model = ScriptedModel(["#### 1", "#### 2"], latency=0.02)
    verifier = TableVerifier({"1": 0.2, "2": 0.9})
    result = await solve("q", model=model, verifier=verifier, strategy=BestOfN(n=2), seed=3)
    (root,) = named(spans, "tts_plugins.solve")
    assert root.parent is None and root.kind is SpanKind.INTERNAL and root.status.status_code is StatusCode.UNSET
    assert of(root)["tts_plugins.seed"] == 3
    assert of(root)["tts_plugins.stopped"] == "complete"
    assert of(root)["tts_plugins.chosen"] == result.best.id
    assert json.loads(of(root)["tts_plugins.usage"])["calls"] == 2
    (wave,) = named(spans, "tts_plugins.wave")
    requests = named(spans, "chat scripted")
    assert len(requests) == 2
    for request in requests:
        assert request.kind is SpanKind.CLIENT
        assert request.parent is not None and wave.context is not None
        assert request.parent.span_id == wave.context.span_id
        attributes = of(request)
        assert attributes["gen_ai.operation.name"] == "chat"
        assert attributes["gen_ai.request.model"] == "scripted"
        assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (5, 10)
        assert attributes["gen_ai.request.choice.count"] == 1
        assert 0.02 <= ((request.end_time or 0) - (request.start_time or 0)) / 1e9 < 1
    candidates = named(spans, "tts_plugins.candidate")
    assert sorted(of(c)["tts_plugins.score"] for c in candidates) == [0.2, 0.9]
    assert {c.parent.span_id for c in candidates if c.parent} == {r.context.span_id for r in requests if r.context}
    assert len({s.context.trace_id for s in spans.get_finished_spans() if s.context}) == 1
    for child in (*requests, *candidates, wave):
        assert (root.start_time or 0) <= (child.start_time or 0) <= (child.end_time or 0) <= (root.end_time or 0)


@pytest.mark.parametrize("sync", [False, True])
async def test_it_is_a_child_of_the_span_around_it(spans: InMemorySpanExporter, sync: bool) -> None:
    with api.get_tracer("test").start_as_current_span("mine") as mine:
        if sync:
            solve_sync("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=1))
        else:
            await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=1))
    (root,) = named(spans, "tts_plugins.solve")
    assert root.parent is not None and root.parent.span_id == mine.get_span_context().span_id


async def test_inner_solves_belong_to_the_same_trace(spans: InMemorySpanExporter) -> None:
    async def function(content: str) -> str:
        return (await solve("inner", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=1))).text

    with api.get_tracer("test").start_as_current_span("mine"):
        await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=2))
    assert len(named(spans, "tts_plugins.solve")) == 3
    assert len({s.context.trace_id for s in spans.get_finished_spans() if s.context}) == 1


async def test_failures_have_the_status_and_the_type_of_their_error(spans: InMemorySpanExporter) -> None:
    with pytest.raises(AllCandidatesFailed):
        await solve("q", model=ScriptedModel([RequestRefused("400, no")]), strategy=SelfConsistency(n=1))
    (root,), (request,) = named(spans, "tts_plugins.solve"), named(spans, "chat scripted")
    assert root.status.status_code is request.status.status_code is StatusCode.ERROR
    assert (of(root)["error.type"], of(request)["error.type"]) == ("AllCandidatesFailed", "RequestRefused")
    assert request.status.description == "RequestRefused: 400, no"


async def test_a_broken_processor_costs_no_answer_and_hides_no_error(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    BREAKING.on = True
    assert (await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=1))).text == "a"
    with pytest.raises(AllCandidatesFailed):
        await solve("q", model=ScriptedModel([RequestRefused("no")]), strategy=SelfConsistency(n=1))
    assert named(spans, "tts_plugins") == []


async def test_spans_begin_and_end_while_the_solve_runs(spans: InMemorySpanExporter) -> None:
    seen: list[set[str]] = []

    async def function(content: str) -> str:
        seen.append({s.name for s in spans.get_finished_spans()})
        return f"#### {len(seen)}"

    await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=3, wave=1, stop=Unanimous(3)))
    assert seen[0] == set() and "tts_plugins.candidate" in seen[-1]
    assert "tts_plugins.solve" not in seen[-1]


async def test_the_attributes_are_those_of_the_newest_conventions(spans: InMemorySpanExporter) -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as known

    names = {getattr(known, name) for name in dir(known) if name.startswith("GEN_AI")}
    verifier = TableVerifier({"1": 0.2, "2": 0.9})
    await solve("q", model=ScriptedModel(["#### 1", "#### 2"]), verifier=verifier, strategy=BestOfN(n=2), seed=3)
    used = {key for s in spans.get_finished_spans() for key in of(s) if key.startswith("gen_ai.")}
    assert used and used <= names - {known.GEN_AI_SYSTEM, known.GEN_AI_PROMPT, known.GEN_AI_COMPLETION}
    (root,), (request, *_) = named(spans, "tts_plugins.solve"), named(spans, "chat ")
    assert of(root)["gen_ai.operation.name"] == "invoke_workflow" and of(root)["gen_ai.workflow.name"] == "BestOfN"
    assert of(request)["gen_ai.provider.name"] and isinstance(of(request)["gen_ai.request.seed"], int)
    events = [e for s in named(spans, "tts_plugins.candidate") for e in s.events]
    assert {e.name for e in events} == {"gen_ai.evaluation.result"}
    assert sorted((e.attributes or {})["gen_ai.evaluation.score.value"] for e in events) == [0.2, 0.9]


@pytest.mark.parametrize("asked", [False, True])
async def test_content_is_there_only_when_it_is_asked_for(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    if asked:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    await solve("a secret question", model=ScriptedModel(["a secret reply"]), strategy=SelfConsistency(n=1))
    text = " ".join(s.to_json() for s in spans.get_finished_spans())
    assert ("a secret question" in text) == asked and ("a secret reply" in text) == asked
    if asked:
        (root,) = named(spans, "tts_plugins.solve")
        (message,) = json.loads(of(root)["gen_ai.output.messages"])
        assert message["role"] == "assistant" and message["parts"][0]["content"] == "a secret reply"

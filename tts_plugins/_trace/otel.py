"""Traces as OpenTelemetry spans while they happen, by the GenAI semantic conventions, where OpenTelemetry is installed.

A span begins and ends with its event, so that a solve that runs long can be watched. What was asked and answered is in
no span, unless the conventions' own variable asks for it: OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true.

Conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/ (1.40: `gen_ai.provider.name`, `invoke_workflow`,
`gen_ai.evaluation.result`, messages as JSON).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tts_plugins._version import __version__
from tts_plugins.types import Usage

Event = Mapping[str, Any]
_log = logging.getLogger(__name__)
_CARRIED = ("role", "candidate", "index", "score", "verifier", "seed", "stopped", "n", "chosen", "parent_candidate",
            "confidence", "agreement", "escalated")  # fmt: skip
_SPANS = {"solve", "wave", "request", "candidate", "score_set"}
_NOTES = {"failure", "stop", "budget", "deadline", "cancelled", "overshoot", "straggler", "top_up", "escalated",
          "escalation_failed", "rung_failed"}  # fmt: skip
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


def live_spans() -> Callable[[Event], None] | None:
    """What makes spans of the events of one trace; None where nobody would see them."""
    api = _api()
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return _Spans(api).hear


class _Spans:
    def __init__(self, api: Any) -> None:
        self._api, self._tracer = api, api.get_tracer("tts_plugins", __version__)
        self._content = os.environ.get(CONTENT, "").strip().lower() in ("true", "1", "span_only", "span_and_event")
        self._spans: dict[int, Any] = {}
        self._contexts: dict[int, Any] = {}
        self._texts: dict[str, str] = {}
        self._origin: int | None = None
        self._broken = False

    def hear(self, event: Event) -> None:
        """An event begins, or has ended. A broken span processor must not cost an answer that is paid for."""
        if self._broken:
            return
        try:
            self._hear(event)
        except Exception:  # noqa: BLE001 - as above
            self._broken = True
            _log.exception("the trace of a solve could not be exported")

    def _hear(self, event: Event) -> None:
        if self._origin is None:
            self._origin = time.time_ns() - int(event["at"] * 1e9)
        kind = event["kind"]
        if kind in _NOTES and event["parent"] in self._spans:
            said = {"error": str(event["error"])} if event.get("error") else {}
            self._spans[event["parent"]].add_event(f"tts_plugins.{kind}", said, timestamp=self._time(event["at"]))
        if kind not in _SPANS:
            return
        if event["id"] not in self._contexts:
            self._begin(event)
        if event["end"] is not None and (span := self._spans.pop(event["id"], None)) is not None:
            self._end(span, event)

    def _begin(self, event: Event) -> None:
        api, kind = self._api, event["kind"]
        parent = self._contexts.get(event["parent"])
        attributes = _begun(event)
        if self._content and event.get("problem"):
            attributes["gen_ai.input.messages"] = _message("user", str(event["problem"]))
        span = self._tracer.start_span(
            f"chat {event['model']}" if kind == "request" else f"tts_plugins.{kind}",
            context=parent,
            kind=api.SpanKind.CLIENT if kind == "request" else api.SpanKind.INTERNAL,
            attributes=attributes,
            start_time=self._time(event["at"]),
        )
        self._spans[event["id"]], self._contexts[event["id"]] = span, api.set_span_in_context(span, parent)

    def _end(self, span: Any, event: Event) -> None:
        span.set_attributes(_ended(event))
        if error := event.get("error"):
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, str(error)))
            span.set_attribute("error.type", str(error).partition(":")[0])
        if event["kind"] == "candidate":
            self._evaluation(span, event)
        if self._content:
            span.set_attributes(self._said(event))
        span.end(end_time=self._time(event["end"]))

    def _evaluation(self, span: Any, event: Event) -> None:
        """What a verifier said, as the conventions' event of an evaluation."""
        if event.get("score") is None:
            return
        said: dict[str, Any] = {"gen_ai.evaluation.name": "tts_plugins.verifier"}
        said["gen_ai.evaluation.score.value"] = float(event["score"])
        if self._content and event.get("feedback"):
            said["gen_ai.evaluation.explanation"] = str(event["feedback"])
        span.add_event("gen_ai.evaluation.result", said, timestamp=self._time(event["end"]))

    def _said(self, event: Event) -> dict[str, Any]:
        """What was answered. A solve answers with what its chosen candidate said."""
        if event["kind"] == "candidate":
            text = self._texts[str(event.get("candidate"))] = str(event.get("text") or "")
            return {"gen_ai.output.messages": _message("assistant", text)}
        chosen = self._texts.get(str(event.get("chosen"))) if event["kind"] == "solve" else None
        return {} if chosen is None else {"gen_ai.output.messages": _message("assistant", chosen)}

    def _time(self, at: float) -> int:
        return (self._origin or 0) + int(at * 1e9)


def _message(role: str, text: str) -> str:
    parts = [{"type": "text", "content": text}]
    return json.dumps([{"role": role, "parts": parts, **({"finish_reason": "stop"} if role == "assistant" else {})}])


def _begun(event: Event) -> dict[str, Any]:
    if event["kind"] == "request":
        seeds = list(event.get("seeds") or ())
        out = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
            "gen_ai.request.model": str(event["model"]), "gen_ai.request.choice.count": event["n"],
            "gen_ai.request.seed": seeds[0] if seeds else None,
        }  # fmt: skip
    elif event["kind"] == "solve":
        name = str(event.get("strategy") or "").partition("(")[0]
        out = {
            "gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": name,
            "gen_ai.request.model": str(event.get("model")), "tts_plugins.strategy": str(event.get("strategy")),
        }  # fmt: skip
    else:
        out = {}
    return {key: value for key, value in out.items() if value is not None} | _carried(event)


def _ended(event: Event) -> dict[str, Any]:
    usage = event.get("usage")
    counts: Mapping[str, Any] = usage.to_dict() if isinstance(usage, Usage) else usage or {}
    out: dict[str, Any] = {}
    if event["kind"] == "request" and counts:
        out = {
            "gen_ai.usage.input_tokens": counts.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": counts.get("completion_tokens"),
            "gen_ai.usage.cache_read.input_tokens": counts.get("cached_tokens") or None,
        }
    if event["kind"] == "solve":
        out["tts_plugins.usage"] = json.dumps(counts)
    if event["kind"] == "candidate" and event.get("finish_reason"):
        out["gen_ai.response.finish_reasons"] = [str(event["finish_reason"])]
    return {key: value for key, value in out.items() if value is not None} | _carried(event)


def _carried(event: Event) -> dict[str, Any]:
    return {f"tts_plugins.{key}": event[key] for key in _CARRIED if isinstance(event.get(key), str | int | float)}


def _api() -> Any:
    # Who has set a provider has imported it: nothing is imported for those who have not.
    api = sys.modules.get("opentelemetry.trace")
    return api if hasattr(api, "get_tracer_provider") else None

"""Traces as OpenTelemetry spans, by the GenAI semantic conventions, where OpenTelemetry is installed.

Spans are made when a solve has ended, with the times at which things happened.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from tts_plugins._trace.recorder import Trace
from tts_plugins._version import __version__

_log = logging.getLogger(__name__)
_CARRIED = ("role", "candidate", "index", "score", "answer", "strategy", "verifier", "seed", "stopped", "n", "chosen")
_SPANS = {"solve", "wave", "request", "candidate", "score_set"}


def export(trace: Trace) -> None:
    """Hand the trace to the process's tracer provider; nothing happens where there is none."""
    api = _api()
    if api is None:
        return
    try:
        _export(trace, api)
    except Exception:  # noqa: BLE001 - a broken span processor must not cost an answer that is paid for
        _log.exception("the trace of a solve could not be exported")


def _export(trace: Trace, api: Any) -> None:
    if isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return  # nobody has set one, so nobody would see the spans
    tracer = api.get_tracer("tts_plugins", __version__)
    origin = int(trace.started.timestamp() * 1e9)
    contexts: dict[int, Any] = {}
    spans: list[tuple[Any, int]] = []
    for event in trace:
        parent = contexts.get(event["parent"]) if event["parent"] is not None else None
        if event["kind"] not in _SPANS:
            continue
        span = tracer.start_span(
            _name(event),
            context=parent,
            kind=api.SpanKind.CLIENT if event["kind"] == "request" else api.SpanKind.INTERNAL,
            attributes=_attributes(event),
            start_time=origin + int(event["at"] * 1e9),
        )
        if "error" in event:
            span.set_status(api.Status(api.StatusCode.ERROR, str(event["error"])))
            span.set_attribute("error.type", str(event["error"]).partition(":")[0])
        contexts[event["id"]] = api.set_span_in_context(span, parent)
        end = event["end"] if event["end"] is not None else event["at"]
        spans.append((span, origin + int(end * 1e9)))
    for span, end_time in reversed(spans):
        span.end(end_time=end_time)


def _api() -> Any:
    # Who has set a provider has imported it: nothing is imported for those who have not.
    api = sys.modules.get("opentelemetry.trace")
    return api if hasattr(api, "get_tracer_provider") else None


def _name(event: Mapping[str, Any]) -> str:
    return f"chat {event['model']}" if event["kind"] == "request" else f"tts_plugins.{event['kind']}"


def _attributes(event: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if event["kind"] == "request":
        usage = event.get("usage", {})
        out = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": event["model"],
            "gen_ai.request.choice.count": event["n"],
            "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
        }
    for key in _CARRIED:
        if event.get(key) is not None:
            out[f"tts_plugins.{key}"] = event[key]
    if event["kind"] == "solve":
        out["tts_plugins.usage"] = json.dumps(event.get("usage", {}))
    return {key: value for key, value in out.items() if value is not None}

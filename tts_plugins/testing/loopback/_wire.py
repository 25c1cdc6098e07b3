"""The loopback server's replies as bytes: chat, completions, embeddings, streams, and the faults of a body. Pure."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from tts_plugins.testing.loopback._faults import Fault
from tts_plugins.testing.loopback._replies import Body, Outcome, Reply, count_tokens, pieces

USAGES = ("correct", "missing", "null", "first_choice", "negative", "huge", "string", "infinite", "zero")
"""How usage is reported: truly; not at all; null; of the first choice only; -7; 10**15; in strings; Infinity; 0."""

HTML = "<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A response as it goes out: one frame for JSON, one per event for a stream."""

    frames: tuple[bytes, ...]
    content_type: str = "application/json"
    stream: bool = False


def as_json(body: Any) -> Payload:
    """Return a JSON response."""
    return Payload(frames=(json.dumps(body).encode(),))


def error_body(message: str, *, param: str | None = None, code: str | None = None, type_: str | None = None) -> Body:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": type_ or "invalid_request_error", "param": param, "code": code}}


def usage_body(variant: str, outcome: Outcome) -> Body:
    """Return `{"usage": ...}` as this variant reports it; {} if it reports nothing."""
    if variant in ("missing", "null"):
        return {} if variant == "missing" else {"usage": None}
    counts = outcome.completion_tokens[:1] if variant == "first_choice" else outcome.completion_tokens
    completion, prompt = sum(counts), outcome.prompt_tokens
    lies: dict[str, tuple[Any, Any]] = {
        "negative": (-7, -7), "huge": (10**15, 10**15), "string": (str(prompt), str(completion)),
        "infinite": (float("inf"), float("inf")), "zero": (0, 0),
    }  # fmt: skip
    said_prompt, reported = lies.get(variant, (prompt, completion))
    total = str(prompt + completion) if variant == "string" else said_prompt + reported
    usage = {"prompt_tokens": said_prompt, "completion_tokens": reported, "total_tokens": total}
    thought = sum(count_tokens(reply.reasoning) for reply in outcome.replies)
    if thought and variant == "correct":
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return {"usage": usage}


def _token_logprobs(reply: Reply, top: int) -> list[Body]:
    """Return OpenAI's `content` list: made up, but stable for a token and its place, and sorted as required."""
    entries = []
    for i, token in enumerate(pieces(reply.text)):
        given = reply.logprobs or ()
        value = given[i] if i < len(given) else -0.01 - zlib.crc32(f"{i}{token}".encode()) % 200 / 100
        others = [(token, value), *((f" other{k}", value - k) for k in range(1, top))][:top]
        entries.append({**_one_logprob(token, value), "top_logprobs": [_one_logprob(*other) for other in others]})
    return entries


def _one_logprob(token: str, value: float) -> Body:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


def _legacy_logprobs(reply: Reply, top: int) -> Body:
    """Return the completions endpoint's older form of the same."""
    entries, starts, at = _token_logprobs(reply, top), [], 0
    for entry in entries:
        starts.append(at)
        at += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in entries],
        "text_offset": starts,
    }


def _tool_calls(reply: Reply, number: int) -> list[Body]:
    calls = []
    for i, call in enumerate(reply.tool_calls or ()):
        function = dict(call.get("function", {key: call[key] for key in ("name", "arguments") if key in call}))
        if not isinstance(function.get("arguments", ""), str):
            function["arguments"] = json.dumps(function["arguments"])
        calls.append({"id": call.get("id", f"call_{number}_{i}"), "type": "function", "function": function})
    return calls


def _message(reply: Reply, number: int) -> Body:
    text = reply.echo + (reply.text or "") if reply.echo else reply.text
    message: Body = {"role": "assistant", "content": text}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = _tool_calls(reply, number)
    return message


def _finish_reason(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls and reply.finish_reason == "stop" else reply.finish_reason


def _choice(reply: Reply, i: int, body: Body, chat: bool, number: int) -> Body:
    choice: Body = {"index": i, "finish_reason": _finish_reason(reply), "logprobs": None}
    if reply.tells_stop:
        choice["stop_reason"] = reply.stop_reason
    asked = body.get("logprobs")
    if chat:
        if asked:
            choice["logprobs"] = {"content": _token_logprobs(reply, body.get("top_logprobs") or 0), "refusal": None}
        return {**choice, "message": _message(reply, number)}
    if isinstance(asked, int) and asked is not False:
        choice["logprobs"] = _legacy_logprobs(reply, int(asked))
    return {**choice, "text": reply.echo + (reply.text or "") if reply.echo else reply.text}


def _head(body: Body, chat: bool, number: int, stream: bool) -> Body:
    kind = ("chat.completion.chunk" if stream else "chat.completion") if chat else "text_completion"
    model = body.get("model", "loopback")
    # "created" is fixed: the same request has the same bytes
    return {"id": f"loopback-{number}", "object": kind, "created": 1_700_000_000, "model": model}


def render(body: Body, outcome: Outcome, number: int, variant: str, fault: Fault | None) -> Payload:
    """Return the response to a chat or completion request, with the fault and the usage variant applied."""
    chat, kind = "messages" in body, fault.kind if fault else None
    variant = fault.variant if fault and kind == "usage" else variant
    if kind == "null_content":
        outcome = replace(outcome, replies=tuple(replace(reply, text=None) for reply in outcome.replies))
    choices = [_choice(reply, i, body, chat, number) for i, reply in enumerate(outcome.replies)]
    if kind == "empty_choices":
        choices = []
    elif kind == "missing_message":
        choices = [{k: v for k, v in choice.items() if k not in ("message", "text")} for choice in choices]
    head, usage = _head(body, chat, number, bool(body.get("stream"))), usage_body(variant, outcome)
    if not body.get("stream"):
        return as_json({**head, "choices": choices, **usage})
    include = (body.get("stream_options") or {}).get("include_usage")
    chunks = _chat_chunks(choices) if chat else _text_chunks(choices)
    events = [{**head, "choices": chunk, **({"usage": None} if include else {})} for chunk in chunks]
    if include and usage:
        events.append({**head, "choices": [], **usage})
    frames = tuple(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return Payload(frames=(*frames, DONE), content_type="text/event-stream", stream=True)


def _chat_chunks(choices: Sequence[Body]) -> list[list[Body]]:
    """Return the deltas of all choices, interleaved token by token as servers do; [] if there are no choices."""
    lanes = [_lane(choice) for choice in choices]
    return [[chunk] for rank in zip_longest(*lanes) for chunk in rank if chunk is not None] or [[]]


def _lane(choice: Body) -> list[Body]:
    blank: Body = {"index": choice["index"], "finish_reason": None, "logprobs": None}
    reported = {"stop_reason": choice["stop_reason"]} if "stop_reason" in choice else {}
    end: Body = {**blank, "delta": {}, "finish_reason": choice["finish_reason"], **reported}
    if "message" not in choice:
        return [{key: value for key, value in end.items() if key != "delta"}]
    message = choice["message"]
    opening = "" if message["content"] is not None else None
    lane = [{**blank, "delta": {"role": "assistant", "content": opening}}]
    lane += [{**blank, "delta": {"reasoning_content": each}} for each in pieces(message.get("reasoning_content"))]
    entries = (choice["logprobs"] or {}).get("content")
    for i, token in enumerate(pieces(message["content"])):
        logprobs = None if entries is None else {"content": [entries[i]], "refusal": None}
        lane.append({**blank, "delta": {"content": token}, "logprobs": logprobs})
    calls = message.get("tool_calls", ())
    lane += [{**blank, "delta": {"tool_calls": [{"index": i, **call}]}} for i, call in enumerate(calls)]
    return [*lane, end]


def _text_chunks(choices: Sequence[Body]) -> list[list[Body]]:
    lanes = []
    for choice in choices:
        blank: Body = {"index": choice["index"], "finish_reason": None, "logprobs": None}
        words = [{**blank, "text": word} for word in pieces(choice.get("text"))]
        text = {"text": None if choice["text"] is None else ""} if "text" in choice else {}
        end = {"finish_reason": choice["finish_reason"], "logprobs": choice["logprobs"]}
        lanes.append([*words, {**blank, **text, **end}])
    return [[chunk] for rank in zip_longest(*lanes) for chunk in rank if chunk is not None] or [[]]


def spoil(payload: Payload, fault: Fault | None) -> Payload:
    """Return what the fault makes of the bytes; faults of the connection are played while sending."""
    if fault is None:
        return payload
    if fault.kind == "html":
        return Payload(frames=(HTML.encode(),), content_type="text/html")
    if fault.kind == "wrong_content_type":
        return replace(payload, content_type="application/octet-stream")
    if fault.kind == "truncated_json":
        # of a stream, the middle event is the one cut: those before it arrive whole, and nothing comes after
        middle = len(payload.frames) // 2 if payload.stream else 0
        torn = payload.frames[middle]
        end = b"\n\n" if payload.stream else b""
        return replace(payload, frames=(*payload.frames[:middle], torn[: len(torn) // 2] + end))
    if fault.kind == "stream_without_done" and payload.stream:
        return replace(payload, frames=payload.frames[:-1][: fault.cut])
    return payload


def embeddings(body: Body, dimensions: int = 8) -> Body:
    """Return small vectors that follow from the texts alone."""
    given = body["input"]
    texts = given if isinstance(given, list) and not all(isinstance(x, int) for x in given) else [given]
    size = body.get("dimensions") or dimensions
    rows = []
    for i, text in enumerate(texts):
        bits = hashlib.shake_128(str(text).encode()).digest(size)
        rows.append({"object": "embedding", "index": i, "embedding": [byte / 127.5 - 1 for byte in bits]})
    tokens = sum(count_tokens(str(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": body.get("model", "loopback"), "usage": usage}


def tokenize(body: Body) -> Body:
    """Return llama.cpp's answer to {"content"}, vLLM's to {"prompt"}: ids that follow from the words."""
    text = str(body.get("content", body.get("prompt", "")))
    ids = [zlib.crc32(word.encode()) % 50_000 for word in text.split()]
    return {"tokens": ids} if "content" in body else token_answer(ids)


def token_answer(ids: Sequence[int]) -> Body:
    """Return vLLM's answer."""
    return {"count": len(ids), "max_model_len": 32_768, "tokens": list(ids)}

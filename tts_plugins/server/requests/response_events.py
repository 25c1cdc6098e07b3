"""OpenAI's Responses as they go out: whole, and as a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tts_plugins.server.requests.chat import ChatCall
from tts_plugins.server.requests.responses import Json, ResponsesRequest
from tts_plugins.server.requests.streams import ChatStream
from tts_plugins.server.upstream import dumps


def response_of(call: ChatCall, asked: ResponsesRequest, completion: Json) -> Json:
    """Return the whole response for a whole completion."""
    choice, usage = completion["choices"][0], completion["usage"]
    return {
        **_frame(call, asked, "incomplete" if choice["finish_reason"] == "length" else "completed"),
        **({"incomplete_details": {"reason": "max_output_tokens"}} if choice["finish_reason"] == "length" else {}),
        "output": list(_items(asked, choice["message"])),
        "usage": {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"], "output_tokens_details": {"reasoning_tokens": 0},
            "input_tokens_details": {"cached_tokens": usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)},
        },
        "tts": completion["tts"],
    }  # fmt: skip


def _frame(call: ChatCall, asked: ResponsesRequest, status: str) -> Json:
    defaults: Json = {"instructions": None, "temperature": None, "top_p": None, "max_output_tokens": None, "tools": [],
                      "tool_choice": "auto", "text": {"format": {"type": "text"}}, "parallel_tool_calls": True,
                      "metadata": {}, "truncation": "disabled"}  # fmt: skip
    return {
        "id": asked.name, "object": "response", "created_at": asked.created, "status": status, "error": None,
        "incomplete_details": None, "model": call.request.model, "output": [], "store": False, "usage": None,
        "previous_response_id": None, **defaults, **asked.echo,
    }  # fmt: skip


def _items(asked: ResponsesRequest, message: Json) -> Iterator[Json]:
    """Return a message as the items of a response: its text, then its calls."""
    calls = message.get("tool_calls") or []
    content, refusal = message.get("content"), message.get("refusal")
    if content or refusal or not calls:
        text: Json = {"type": "output_text", "text": content or "", "annotations": [], "logprobs": []}
        parts = [text] if content or not refusal else [{"type": "refusal", "refusal": refusal}]
        yield {"id": f"msg_{asked.name[5:]}", "type": "message", "role": "assistant", "status": "completed",
               "content": parts}  # fmt: skip
    for i, call in enumerate(calls):
        function = call.get("function") or {}
        yield {"id": f"fc_{asked.name[5:]}_{i}", "type": "function_call", "status": "completed",
               "call_id": call.get("id") or f"call_{asked.name[5:]}_{i}", "name": function.get("name"),
               "arguments": function.get("arguments") or ""}  # fmt: skip


class ResponseStream(ChatStream):
    """Streams the events of a response. The text goes out once it is chosen; what all beams share goes out early."""

    def __init__(self, call: ChatCall, asked: ResponsesRequest) -> None:
        self._asked, self._number, self._opened = asked, 0, False
        self._text = ""
        super().__init__(call)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the events, as they go over the wire."""
        begun = _frame(self.call, self._asked, "in_progress")
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        async for frame in super().frames():
            yield frame

    def _chunks(self, item: Any) -> list[Json]:
        deltas = [choice["delta"] for chunk in super()._chunks(item) for choice in chunk["choices"]]
        return [{"early": str(delta["content"])} for delta in deltas if delta.get("content")]

    def _encode(self, chunk: Json) -> bytes:
        return b"".join(self._delta(chunk["early"]))

    def _last(self) -> list[bytes]:
        try:
            outcome = self._task.result()
            completion = self.call.completion(outcome)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it goes into the stream
            shown = self._error_body(error)
            failed = {**_frame(self.call, self._asked, "failed"), "error": {"code": shown["code"] or "server_error",
                                                                            "message": shown["message"]}}  # fmt: skip
            return [self._event("response.failed", response=failed)]
        if self._sent and outcome.result.abstained is None:
            best = outcome.chosen(self._sent)
            completion["choices"][0]["message"]["content"] = best.text
        response = response_of(self.call, self._asked, completion)
        frames: list[bytes] = []
        for index, item in enumerate(response["output"]):
            frames += self._message(index, item) if item["type"] == "message" else self._function(index, item)
        kind = "response.incomplete" if response["status"] == "incomplete" else "response.completed"
        return [*frames, self._event(kind, response=response)]

    def _delta(self, text: str) -> Iterator[bytes]:
        item = f"msg_{self._asked.name[5:]}"
        if not self._opened:
            self._opened = True
            empty: Json = {"id": item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._event("response.output_item.added", output_index=0, item=empty)
            yield self._event("response.content_part.added", item_id=item, output_index=0, content_index=0, part=part)
        self._text += text
        if text:
            yield self._event("response.output_text.delta", item_id=item, output_index=0, content_index=0, delta=text,
                              logprobs=[])  # fmt: skip

    def _message(self, index: int, item: Json) -> list[bytes]:
        part = item["content"][0]
        text = part.get("text", part.get("refusal", ""))
        frames = list(self._delta(text[len(self._text) :] if text.startswith(self._text) else ""))
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        if part["type"] == "output_text":
            frames.append(self._event("response.output_text.done", **at, text=text, logprobs=[]))
        else:
            frames.append(self._event("response.refusal.done", **at, refusal=text))
        frames.append(self._event("response.content_part.done", **at, part=part))
        return [*frames, self._event("response.output_item.done", output_index=index, item=item)]

    def _function(self, index: int, item: Json) -> list[bytes]:
        at = {"item_id": item["id"], "output_index": index}
        empty = {**item, "arguments": "", "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=index, item=empty),
            self._event("response.function_call_arguments.delta", **at, delta=item["arguments"]),
            self._event("response.function_call_arguments.done", **at, name=item["name"], arguments=item["arguments"]),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _event(self, kind: str, **data: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **data}
        self._number += 1
        return f"event: {kind}\n".encode() + b"data: " + dumps(event) + b"\n\n"

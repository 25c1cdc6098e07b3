"""Loopback servers in the native forms of Anthropic and Ollama, for the LangChain packages that speak them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


class NativeServer:
    """What was asked, and where."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bodies: list[dict[str, Any]] = []


@contextmanager
def serving(write: Callable[[Any, dict[str, Any], Mapping[str, Any]], None], answer: Answer) -> Iterator[NativeServer]:
    """Answer each POST with what `answer` makes of its body, in the form that `write` gives it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.bodies.append(body)
            write(self, body, answer(body))

        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = NativeServer(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(5)


def _send(handler: Any, kind: str, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def _anthropic(handler: Any, body: dict[str, Any], said: Mapping[str, Any]) -> None:
    usage = {"input_tokens": 12, "output_tokens": 20, **said.get("usage", {})}
    content = said.get("content") or [{"type": "text", "text": said.get("text", "4")}]
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": content,
        "stop_reason": said.get("stop_reason", "end_turn"), "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if not body.get("stream"):
        _send(handler, "application/json", json.dumps(message).encode())
        return
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    ]
    for i, block in enumerate(content):
        events += [
            {"type": "content_block_start", "index": i, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": i, "delta": {"type": "text_delta", "text": block["text"]}},
            {"type": "content_block_stop", "index": i},
        ]
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    lines = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    _send(handler, "text/event-stream", lines.encode())


def _ollama(handler: Any, body: dict[str, Any], said: Mapping[str, Any]) -> None:
    last = {
        "model": body["model"], "created_at": "2026-11-29T00:00:00Z", "done": True,
        "message": {"role": "assistant", "content": said.get("text", "4"), **said.get("message", {})},
        "done_reason": said.get("done_reason", "stop"),
        "prompt_eval_count": 12, "eval_count": 20, **said.get("usage", {}),
    }  # fmt: skip
    _send(handler, "application/x-ndjson", json.dumps(last).encode() + b"\n")


def anthropic_server(answer: Answer) -> Any:
    """Of the Messages API, streamed or not; `answer` gives text or content, usage and stop_reason."""
    return serving(_anthropic, answer)


def ollama_server(answer: Answer) -> Any:
    """Of Ollama's chat; `answer` gives text, message fields, usage and done_reason."""
    return serving(_ollama, answer)

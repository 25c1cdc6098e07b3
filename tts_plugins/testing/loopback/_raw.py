"""A server that answers with given bytes: replies of real servers, as they were seen, on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """A request as it came.

    Attributes:
        number: how many came before it.
        headers: with names in lower case.
        body: decoded JSON; None if it is not JSON.
    """

    number: int
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class RawReply:
    """An answer.

    Attributes:
        body: bytes or text as they are; anything else as JSON.
        status: of HTTP.
        headers: besides Content-Length; Content-Type is that of JSON if none is given.
        cut: break the connection after the body, which is sent without its length.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


def event_stream(*chunks: Any, done: bool = True, end: str = "\n\n") -> RawReply:
    """Return a stream of server-sent events, each of them JSON or text as it is."""
    texts = [chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}" for chunk in chunks]
    body = "".join(text + end for text in [*texts, *(["data: [DONE]"] if done else [])])
    return RawReply(body, headers={"Content-Type": "text/event-stream"})


class RawServer:
    """Answers each POST and GET with what a function makes of it, on a thread for each connection.

        with RawServer(lambda request: RawReply({"error": "no"}, status=400)) as server:
            OpenAICompatibleModel("m", base_url=server.base_url)

    Attributes:
        requests: all that came.
        base_url: with /v1 at its end.
    """

    def __init__(self, reply: Callable[[RawRequest], RawReply]) -> None:
        self.reply, self.requests = reply, list[RawRequest]()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._answer(self)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """For an OpenAI client."""
        return f"{self.origin}/v1"

    @property
    def bodies(self) -> list[Any]:
        """Those of all requests."""
        return [request.body for request in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        with self._lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            request = RawRequest(number=len(self.requests), path=handler.path, headers=headers, body=body)
            self.requests.append(request)
        reply = self.reply(request)
        data = reply.body.encode() if isinstance(reply.body, str) else reply.body
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        if reply.cut:
            handler.close_connection = True
        else:
            handler.send_header("Content-Length", str(len(data)))
        try:
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:  # the client has gone, which is its right
            handler.close_connection = True

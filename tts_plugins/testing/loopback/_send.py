"""How the loopback server sends: when, as what, and how a connection is broken."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Mapping

from aiohttp import web

from tts_plugins.testing.loopback._faults import Fault
from tts_plugins.testing.loopback._wire import Payload, as_json, error_body

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


async def until(when: float) -> None:
    """Sleep until `time.monotonic()` says so."""
    delay = when - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)


def first(fault: Fault | None, latency: float) -> float:
    """Return the seconds until the first byte: the fault's own, else the server's."""
    return latency if fault is None or fault.latency is None else fault.latency


def response(payload: Payload, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the payload in one piece."""
    return web.Response(
        body=b"".join(payload.frames), status=status, content_type=payload.content_type, headers=headers
    )


def status(fault: Fault) -> web.Response:
    """Return a fault's error status, in OpenAI's form or with its own body."""
    type_ = _ERROR_TYPES.get(fault.code, "server_error" if fault.code >= 500 else "invalid_request_error")
    payload = as_json(error_body(f"loopback fault {fault.code}", type_=type_, code=type_))
    if fault.body is not None:
        payload = Payload(frames=(fault.body.encode(),), content_type="text/plain")
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return response(payload, status=fault.code, headers=headers)


async def open_response(request: web.Request, payload: Payload) -> web.StreamResponse:
    """Return the payload's headers, ready for its frames."""
    response = web.StreamResponse(headers={"Content-Type": payload.content_type})
    if not payload.stream:
        response.content_length = sum(map(len, payload.frames))
    await response.prepare(request)
    return response


def break_connection(transport: asyncio.BaseTransport, *, reset: bool) -> None:
    """Close with FIN after what is written, or with RST at once."""
    if not reset:
        transport.close()
        return
    # lingering for 0 s makes the kernel send RST where it would send FIN
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(transport, asyncio.Transport)
    transport.abort()

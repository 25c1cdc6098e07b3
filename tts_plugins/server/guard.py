"""What every request passes before anything of it is read: address, origin, key, size, and a place."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tts_plugins.server.budgets.tenants import Tenant, Tenants
from tts_plugins.server.errors import APIError, api_error, busy
from tts_plugins.server.settings import ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TENANT = "tts_plugins.tenant"
POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_OPEN = ("/health", "/view", "/view/")  # the page holds no data: its script asks for the key
_ADMIN = ("/metrics",)
_ONCE = (b"authorization", b"content-type", b"content-encoding", b"origin")
_DRAIN_SECONDS, _DRAIN_TIMES = 5.0, 16
_USUAL_PORTS = {"http": 80, "https": 443}


class Guard:
    """The outermost part of the application. It answers what is refused, and adds the headers of safety.

    Args:
        close: called when the process is asked to end, to end the streams that would last for ever.
    """

    def __init__(
        self, app: App, settings: ServerSettings, tenants: Tenants, close: Callable[[], None] = lambda: None
    ) -> None:
        self._app, self._settings, self._tenants = app, settings, tenants
        self.close = close
        self._hosts = _hosts(settings)
        self._any_host = "*" in settings.allowed_hosts
        self._own = {f"{scheme}://{host}" for host in self._hosts for scheme in ("http", "https")}
        self._gate = Gate(settings.max_requests, settings.max_queue, settings.queue_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
        sender = _Sender(send, _cross_origin(headers.get(b"origin"), self._settings), self._settings.queue_seconds)
        limited = _Limited(receive, headers, self._settings)
        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS":
                await _answer(sender, 204, b"")
                return
            if scope["path"].startswith("/v1/") and scope["method"] == "POST":
                async with self._gate:
                    await self._app(scope, limited, sender)
            else:
                await self._app(scope, limited, sender)
        except APIError as error:
            await limited.drain()
            await refuse(sender, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer in OpenAI's form
            if sender.stalled:
                return
            await refuse(sender, api_error(error))

    def _check(self, scope: Scope, headers: dict[bytes, str]) -> None:
        _check_framing([name for name, _ in scope["headers"]])
        hosts = [value for key, value in scope["headers"] if key == b"host"]
        if not self._any_host and (len(hosts) != 1 or headers.get(b"host", "").lower() not in self._hosts):
            raise APIError(
                421, "The Host header names no address of this server; its operator may add it as an allowed host.",
                code="unknown_host",
            )  # fmt: skip
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._own and origin not in self._settings.allowed_origins:
            raise APIError(403, "Pages of this origin may not call this server.", code="unknown_origin")
        if scope["method"] == "OPTIONS":
            return
        path = scope["path"]
        if path not in _OPEN:
            tenant = self._tenants.find(headers.get(b"authorization", ""))
            if tenant is None:
                raise APIError(401, "The key is missing or wrong; send it as 'Authorization: Bearer KEY'.",
                               code="invalid_api_key", headers={"www-authenticate": "Bearer"})  # fmt: skip
            if path in _ADMIN and not tenant.admin:
                raise APIError(403, "This needs the key of an administrator.", code="forbidden")
            scope[TENANT] = tenant
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise APIError(415, "Send JSON, as Content-Type: application/json.", code="unsupported_media_type")
            if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
                raise APIError(415, "Send the body as it is, without Content-Encoding.", code="unsupported_media_type")


def _check_framing(names: list[bytes]) -> None:
    """Refuse headers of which a gateway before this server may have read another part than this server does."""
    twice = next((name for name in _ONCE if names.count(name) > 1), None)
    if twice is not None or (b"content-length" in names and b"transfer-encoding" in names):
        what = f"The header {twice.decode()} is there twice." if twice else "The body's length is given in two ways."
        raise APIError(400, what, code="invalid_headers", headers={"connection": "close"})


def tenant_of(scope: Scope) -> Tenant:
    """Return the tenant whose request this is."""
    tenant: Tenant = scope[TENANT]
    return tenant


def _hosts(settings: ServerSettings) -> set[str]:
    """Return the values that the Host header may have, exactly."""
    port = settings.port
    names = {"127.0.0.1", "localhost", "[::1]"} if settings.loopback or settings.host in ("0.0.0.0", "::") else set()
    names.add(f"[{settings.host}]" if ":" in settings.host else settings.host)
    found = {f"{name}:{port}" for name in names}
    if port in _USUAL_PORTS.values():
        found |= names
    return found | {host.lower() for host in settings.allowed_hosts}


def _cross_origin(origin: str | None, settings: ServerSettings) -> tuple[tuple[bytes, bytes], ...]:
    if origin is None or origin not in settings.allowed_origins:
        return ()
    return (
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"origin"),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-allow-methods", b"GET, POST"),
    )


class Gate:
    """Places for requests; those that find none wait in a queue of limited length, for a limited time."""

    def __init__(self, places: int, queue: int, seconds: float) -> None:
        self._places, self._queue, self._seconds = asyncio.Semaphore(places), queue, seconds
        self._waiting = 0

    async def __aenter__(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        if self._waiting >= self._queue:
            raise busy("Too many requests are waiting; try again later.", self._seconds / 4)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            raise busy("No place came free in time; try again later.", self._seconds / 4) from None
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


class _Sender:
    """Sends the answer, with the headers of safety.

    A request has its place until its answer is sent: callers that read nothing of a stream would take all places.

    Args:
        patience: seconds for which a caller may read nothing while there is something to send.
    """

    def __init__(self, send: Send, more: tuple[tuple[bytes, bytes], ...], patience: float) -> None:
        self._send, self._more, self._patience = send, more, patience
        self.started = self.stalled = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = list(message.get("headers", ()))
            present = {key.lower() for key, _ in headers}
            added = ((b"content-security-policy", POLICY.encode()), *_HEADERS)
            headers += [(key, value) for key, value in added if key not in present]
            message = {**message, "headers": [*headers, *self._more]}
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self.stalled = True
            raise


class _Limited:
    """Receives the request's body, which may neither be longer than a limit nor take for ever.

    A request has its place while its body arrives: callers that send a part of one and then nothing would take all
    places.
    """

    def __init__(self, receive: Receive, headers: dict[bytes, str], settings: ServerSettings) -> None:
        self._receive, self._most = receive, settings.max_body
        self._read, self._more = 0, True
        self._asks = headers.get(b"expect", "").lower() == "100-continue"  # whether to send its body at all
        self._silence, self._until = settings.queue_seconds, asyncio.get_running_loop().time() + settings.timeout
        length = headers.get(b"content-length", "0")
        self._too_long = not length.isdigit() or int(length) > self._most

    async def __call__(self) -> Message:
        if not self._too_long:
            message = await self._awaited() if self._more else await self._receive()
            self._too_long = self._read > self._most
        if self._too_long:
            await self.drain()
            raise APIError(413, f"The request is longer than {self._most:,} bytes.", code="request_too_large")
        return message

    async def drain(self) -> None:
        """Read on for a while: most clients see an answer only when they have sent all of the request."""
        if self._asks and not self._read:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._more and self._read < _DRAIN_TIMES * self._most:
                    await self._next()

    async def _awaited(self) -> Message:
        try:
            async with asyncio.timeout_at(min(self._until, asyncio.get_running_loop().time() + self._silence)):
                return await self._next()
        except TimeoutError:
            self._more = False
            raise APIError(
                408, "The rest of the request's body did not come in time.", code="request_timeout"
            ) from None

    async def _next(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message


async def refuse(send: _Sender, error: APIError) -> None:
    """Answer with an error, or break off an answer that has begun."""
    if send.started:
        raise ConnectionAbortedError("the answer broke off")
    await _answer(send, error.status, json.dumps(error.body()).encode(), error.headers)


async def _answer(send: _Sender, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(key.encode(), value.encode()) for key, value in (more or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

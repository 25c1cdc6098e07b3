"""Connections of one event loop to one server, by aiohttp, shared by all who ask it there."""

from __future__ import annotations

import asyncio
import contextvars
import math
import os
import select
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp

from tts_plugins._concurrency import forks
from tts_plugins._http.proxies import proxy_for
from tts_plugins._http.tls import tls_context
from tts_plugins._internal.request_sent import leaving
from tts_plugins._internal.secrets import split_login

CONNECTIONS = 1000  # as the OpenAI client has it; what is above waits here, and has not been sent
# Seconds. Servers of uvicorn, vLLM's among them, close a connection that was idle for 5, perhaps just as it is used.
_IDLE = 4.0
_PAUSE = 60.0  # seconds
_HEADER = 2**16  # bytes of one header of an answer, where the OpenAI client takes 100 kB of all; aiohttp has 8 kB
_Key = tuple[str, str | None]
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Pool]] = WeakKeyDictionary()


class Pool:
    """Sessions are shared by address, and closed when the last of those who share one has closed its `Lease`.

    There is no time limit of its own, for a connection neither: at many requests at once one may take seconds, and
    whoever asks has a limit for the whole call.

    There are servers that aiohttp does not understand, though other clients do. After such an answer it is not used for
    a while, which doubles each time, and then by one request, which shows whether it may be used again.
    """

    def __init__(self, address: str, key: _Key) -> None:
        self.key, self.leases, self.process = key, 0, os.getpid()
        self._avoided_until, self._pause, self._misunderstood_at = 0.0, _PAUSE, -math.inf
        self.proxy: str | None = None
        login: dict[str, str] = {}
        if key[1] is not None:
            self.proxy, login = split_login(key[1], "Proxy-Authorization")
        # Within a tunnel of TLS the server is never shown it.
        secret = urlsplit(address).scheme == "https"
        self.tunnel_headers, self.headers = (login, {}) if secret else ({}, login)
        secure = "https" in (urlsplit(address).scheme, urlsplit(self.proxy or "").scheme)
        self.session = aiohttp.ClientSession(
            connector=_Connector(ssl=tls_context() if secure else True, limit=CONNECTIONS, keepalive_timeout=_IDLE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # `BodyReader` does it, and stops where it grows too big
            max_line_size=_HEADER,
            max_field_size=_HEADER,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        )

    def usable(self, now: float) -> bool:
        """Return whether a request may be sent at this time, in seconds of the monotonic clock."""
        if now < self._avoided_until:
            return False
        if self._avoided_until:
            self._avoided_until = now + self._pause  # the others wait for how this one fares
        return True

    def understood(self, sent: float) -> None:
        """Note that the answer to what was sent at this time was one of HTTP."""
        if sent > self._misunderstood_at:  # others were under way by then, and say nothing of the next ones
            self._avoided_until = 0.0

    def misunderstood(self, sent: float, now: float) -> None:
        """Note that the answer to what was sent at that time was none, as far as aiohttp can tell."""
        if sent > self._misunderstood_at:  # a hundred requests at once are one proof
            self._avoided_until, self._pause, self._misunderstood_at = now + self._pause, 2 * self._pause, now


class Lease:
    """One share in the pool of the running loop for an address."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        key = (f"{parts.scheme}://{parts.netloc}", proxy_for(address))
        pools = _pools.setdefault(asyncio.get_running_loop(), {})
        pool = pools.get(key)
        if pool is None or pool.session.closed or pool.process != os.getpid():
            pool = pools[key] = Pool(address, key)
        pool.leases += 1
        self._pools, self.pool, self._open = pools, pool, True

    async def close(self) -> None:
        """Give the share back; connections in use by others stay."""
        if not self._open:
            return
        self._open = False
        self.pool.leases -= 1
        if not self.pool.leases:
            if self._pools.get(self.pool.key) is self.pool:
                del self._pools[self.pool.key]
            await self.pool.session.close()


class _Connector(aiohttp.TCPConnector):
    """Tells when a request leaves: as soon as it has its connection, whether new or kept."""

    async def connect(self, *args: Any, **keywords: Any) -> Any:
        connection = await super().connect(*args, **keywords)
        leaving()
        return connection

    async def _get(self, *args: Any, **keywords: Any) -> Any:
        # A request on a connection that is dead is lost, and has to be charged.
        while (connection := await super()._get(*args, **keywords)) is not None and _is_stale(connection):
            connection.close()
        return connection

    async def _create_connection(self, *args: Any, **keywords: Any) -> Any:
        # A connection keeps the context that it was opened in, and outlives the code that opened it.
        opening = super()._create_connection(*args, **keywords)
        task = asyncio.get_running_loop().create_task(opening, context=contextvars.Context())
        try:
            return await task
        except asyncio.CancelledError:
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()  # it came at this very moment, and nobody else knows of it
            raise


def _is_stale(connection: aiohttp.connector.Connection) -> bool:
    """Return whether the server has closed a kept connection, or has sent something that nobody asked for.

    The loop may not have seen it yet: it looks at its connections once a turn, and a turn is long under load.
    """
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return True
    socket = transport.get_extra_info("socket")
    if socket is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_left_to_the_parent: list[object] = []


@forks.on_fork
def _after_fork() -> None:
    global _pools
    _left_to_the_parent.append(_pools)  # neither used nor collected, which would close what the parent uses
    _pools = WeakKeyDictionary()

"""POST of JSON to endpoints that no SDK has: one attempt, every failure as the error that says what to do."""

from __future__ import annotations

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tts_plugins._http.choice import imported, uses_aiohttp
from tts_plugins._http.failures import ExchangeFailed, StatusFailed, exchange_error
from tts_plugins._http.per_loop import PerLoop
from tts_plugins._http.proxies import proxy_for
from tts_plugins._http.tls import tls_ready
from tts_plugins._internal.error_bodies import error_in
from tts_plugins._internal.http_errors import reply_error, shown_address
from tts_plugins._internal.http_limits import ENCODINGS, MOST_BYTES, BodyReader, Unreadable, redirect_error, redirected
from tts_plugins._internal.json_bytes import decode, encode
from tts_plugins._internal.request_sent import leaving
from tts_plugins._internal.secrets import cleaned, hidden_headers, secrets_in, split_login
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import CallTimedOut, ConfigurationError, MalformedResponse, TTSError

_NAMES = "is base_url right, and is it a pooling model (vLLM: --runner pooling)?"


class JSONClient:
    """Posts to one server: by aiohttp if it is installed, else by the standard library on threads.

    Args:
        root: the server's address.
        headers: of each request.
        timeout: seconds for one request.
        who: for errors.

    Attributes:
        secrets: the values that no error may show.
    """

    def __init__(self, root: str, headers: Mapping[str, str], timeout: float, who: str) -> None:
        self._timeout, self._who = timeout, who
        self._root, login = split_login(root)  # urllib takes it for a part of the host
        self._headers = {"Content-Type": "application/json", **hidden_headers(headers), **login}
        self.secrets = secrets_in(self._headers, url=root)
        self._leases: PerLoop[Any] = PerLoop()

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer's JSON object.

        Raises:
            ModelError: of the kind that says whether to retry and what to charge. No key shows in it.
        """
        try:
            return await self._posted(path, body)
        except TTSError as error:
            raise cleaned(error, self.secrets) from error.__cause__

    async def _posted(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        where, url = f"{self._who} at {shown_address(self._root + path)}", self._root + path
        try:
            async with asyncio.timeout(self._timeout):
                raw = await self._sent(url, encode(body))
        except TimeoutError:
            late = f"{where}: no complete answer within timeout={self._timeout:g} s"
            raise CallTimedOut(late) from None
        except (ExchangeFailed, StatusFailed, Unreadable) as error:
            failed = exchange_error(error, where, self.secrets, time.time(), names=_NAMES)
            assert failed is not None
            raise failed from error
        try:
            answer = decode(raw)
        except ValueError as error:
            raise MalformedResponse(f"{where}: the answer is not valid JSON: {raw[:80]!r}") from error
        if not isinstance(answer, dict):
            raise MalformedResponse(f"{where}: the answer is a {type(answer).__name__}, not a JSON object")
        if (wrong := error_in(answer)) is not None and not answer.get("data"):
            raise reply_error(200, f"{where}: the answer is an error", wrong, now=time.time(), names=_NAMES)
        return answer

    async def close(self) -> None:
        """Close the connections of the running loop."""
        await self._leases.close()

    async def _sent(self, url: str, data: bytes) -> bytes:
        lease = self._leases.here
        if not (uses_aiohttp(self._root) if lease is None else lease.pool.usable(time.monotonic())):
            _check_proxy(self._who, self._root)
            leaving()
            return await in_thread(_post, url, data, self._headers, self._timeout)
        await imported("tts_plugins._http.exchange")
        if url.startswith("https"):
            await tls_ready()
        from tts_plugins._http.exchange import post
        from tts_plugins._http.pool import Lease

        if lease is None and (lease := self._leases.here) is None:
            made = Lease(self._root)
            lease = await self._leases.put(made, made.close)
        return await post(lease.pool, url, data, {**self._headers, "Accept-Encoding": ENCODINGS})


def _check_proxy(who: str, root: str) -> None:
    """Raise unless the standard library can send through the environment's proxy: it would go past a SOCKS proxy."""
    if (proxy := proxy_for(root)) is not None and not proxy.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"{who}: the request cannot be sent: the proxy {shown_address(proxy)!r} is not one of HTTP; set "
            "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY to one, or except this server by NO_PROXY"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: urllib would send the headers along to whatever server is named."""

    def redirect_request(self, *_: object) -> None:
        """Return nothing to go on with, so that the answer is an error."""


def _post(url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> bytes:
    request = urllib.request.Request(url, data, dict(headers), method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as response:
            reader = BodyReader(response.headers.get("Content-Encoding"))
            return b"".join(reader.feed(response.read(MOST_BYTES + 1)))
    except urllib.error.HTTPError as error:
        with error:  # its body is the connection, which is read and closed on this thread
            failed: Exception = StatusFailed(error.code, error.read(100_000), dict(error.headers or {}))
        if 300 <= error.code < 400:
            failed = redirect_error(shown_address(url), redirected(url, str(error.headers.get("Location") or "")), url)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        kinds = frozenset(kind.__name__ for kind in type(reason).__mro__)
        failed = ExchangeFailed(f"{type(reason).__name__}: {reason}", kinds)
        failed.__cause__ = reason if isinstance(reason, OSError) else None  # its number says what is missing
    except UnicodeError:  # of a header or a host; its text has the value
        failed = ExchangeFailed("UnicodeError", frozenset({"InvalidURL"}))
    raise failed

"""One request and its answer over a pool: sent once, read within bounds, every failure as one that says what it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from tts_plugins._http.event_stream import EventStream
from tts_plugins._http.failures import ConnectionBroke, ExchangeFailed, NotReached, StatusFailed, StreamFailed, TooLarge
from tts_plugins._http.json_bytes import decode
from tts_plugins._http.pool import Pool
from tts_plugins._internal.http_errors import shown_address

# Bytes of an answer, unpacked. With twenty alternatives for each token, 128 choices of 500 tokens come near it.
MOST = 2**27
_REDIRECTS = 5
_DRAIN = 0.1  # seconds for the end of a stream whose last event is there, so that its connection can be kept
_PLAIN = ("content-type", "accept", "user-agent")
_PORTS = {"http": 80, "https": 443}


async def post(pool: Pool, url: str, data: bytes, headers: Mapping[str, str]) -> Any:
    """Return the decoded answer; a text that is not announced as JSON, and is none, as a str.

    Raises:
        ExchangeFailed: of the kind that says how far it came.
        ValueError: the answer should be JSON, and cannot be read.
    """
    response = await _answered(pool, url, data, headers)
    try:
        return _value(response, await _body(response))
    except (aiohttp.ClientError, OSError) as error:
        failed = _failure(error)
    finally:
        response.release()
    raise failed


@asynccontextmanager
async def post_for_events(
    pool: Pool, url: str, data: bytes, headers: Mapping[str, str]
) -> AsyncIterator[AsyncIterator[Any]]:
    """Give the decoded events of the answer as they arrive; an answer in one piece is one event.

    Raises:
        ExchangeFailed, ValueError: as for `post`, and `StreamFailed` for an error among the events.
    """
    response = await _answered(pool, url, data, headers)
    events = (
        _one(response, headers)
        if response.content_type in ("application/json", "text/html")
        else _events(response, headers)
    )
    try:
        yield events
        return
    except (aiohttp.ClientError, OSError) as error:
        failed = _failure(error)
    finally:
        await events.aclose()
        response.release()  # closed, unless all of it was read
    raise failed


async def _answered(pool: Pool, url: str, data: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
    """The answer, of a status below 300; redirects are followed within the same origin only."""
    for _ in range(_REDIRECTS):
        response = await _request(pool, url, data, headers)
        if response.status < 300:
            return response
        try:
            said, following = await _words(response, headers), _redirected(url, response)
        finally:
            response.release()
        if following is None:
            raise StatusFailed(response.status, said, response.headers)
        url = following
    raise StatusFailed(response.status, f"it redirects more than {_REDIRECTS} times", {})


async def _request(pool: Pool, url: str, data: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
    try:
        return await pool.session.post(
            url, data=data, headers=headers, allow_redirects=False, proxy=pool.proxy, proxy_auth=pool.proxy_auth
        )
    except (aiohttp.ClientError, OSError) as error:
        failed = _failure(error)
    raise failed  # out here, so that it does not refer to aiohttp's, which has the request's headers


def _redirected(url: str, response: aiohttp.ClientResponse) -> str | None:
    """Where to send the same request instead; None where the answer is an error.

    Raises:
        StatusFailed: another origin would get the key, or another method would be used.
    """
    target = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not target:
        return None
    following = urljoin(url, target)
    here, there = _origin(url), _origin(following)
    upgraded = here == ("http", there[1], 80) and there[0::2] == ("https", 443)
    if response.status in (307, 308) and (here == there or upgraded):
        return following
    said = f"it redirects to {shown_address(following)}; give the address that answers as base_url"
    raise StatusFailed(response.status, said, response.headers)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    content, parts, size = response.content, list[bytes](), response.content_length or 0
    while size <= MOST and not content.at_eof():
        parts.append(await content.readany())
        size = sum(map(len, parts)) if len(parts) < 3 else size + len(parts[-1])
    if size > MOST:
        raise _too_large()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(f"the answer is larger than {MOST >> 20} MiB; lower max_tokens or n")


async def _words(response: aiohttp.ClientResponse, headers: Mapping[str, str]) -> Any:
    """What an answer that is an error says; whatever breaks meanwhile, its status is known."""
    with contextlib.suppress(aiohttp.ClientError, ExchangeFailed, OSError):
        raw = _without_keys(await _body(response), headers)
        with contextlib.suppress(ValueError):
            return decode(raw)
        return raw.decode("utf-8", "replace").strip()
    return ""


def _without_keys(said: bytes, headers: Mapping[str, str]) -> bytes:
    """What a server said, without the request's keys, which some repeat."""
    for name, value in headers.items():
        key = value.removeprefix("Bearer ")
        if name.lower() not in _PLAIN and len(key) > 3:
            said = said.replace(key.encode("utf-8", "replace"), "…".encode())
    return said


def _value(response: aiohttp.ClientResponse, raw: bytes) -> Any:
    try:
        return decode(raw)
    except ValueError:
        if "json" in response.content_type or raw.lstrip()[:1] in (b"{", b"["):
            raise
        return raw.decode("utf-8", "replace")


async def _one(response: aiohttp.ClientResponse, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
    yield _checked(_value(response, await _body(response)), headers)


async def _events(response: aiohttp.ClientResponse, headers: Mapping[str, str]) -> AsyncGenerator[Any, None]:
    stream, size = EventStream(), 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST:
            raise _too_large()
        for data in stream.feed(part):
            if data.startswith(b"[DONE]"):
                await _drain(response)
                return
            yield _checked(decode(data), headers)
    for data in stream.finish():
        if not data.startswith(b"[DONE]"):
            yield _checked(decode(data), headers)


def _checked(event: Any, headers: Mapping[str, str]) -> Any:
    if isinstance(event, dict) and event.get("error"):
        raise StreamFailed(decode(_without_keys(json.dumps(event["error"]).encode(), headers)))
    return event


async def _drain(response: aiohttp.ClientResponse) -> None:
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN):
            async for _ in response.content.iter_any():
                pass


def _failure(error: Exception) -> ExchangeFailed:
    """The failure that stands for one of aiohttp's or the system's, in words that name no password of a proxy."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotReached(f"the certificate is not trusted: {error.certificate_error}; see SSL_CERT_FILE", final=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return NotReached(f"the proxy answered {error.status}: {error.message}", final=error.status == 407)
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        refused = isinstance(inner, ConnectionRefusedError) or "Connect call failed" in str(inner)
        through = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return NotReached(f"{through}{type(inner).__name__}: {inner}", refused=refused)
    if isinstance(error, aiohttp.InvalidURL):
        return NotReached("the address is not valid", final=True)
    said = f"{error.status}, {error.message}" if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return ConnectionBroke(f"{type(error).__name__}: {said}")

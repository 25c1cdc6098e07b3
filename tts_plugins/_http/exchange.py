"""One request and its answer over a pool: sent once, read within bounds, every failure as one that says what it was."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from tts_plugins._http.failures import ExchangeFailed, StatusFailed
from tts_plugins._http.pool import Pool
from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.http_limits import REDIRECTS, BodyReader, Unreadable, check_redirect, header, redirected

_AT_ONCE = 2**20  # bytes; what is larger is sent in pieces, between which the loop goes on


async def post(pool: Pool, url: str, data: bytes, headers: Mapping[str, str]) -> bytes:
    """Return the body of the answer.

    Raises:
        ExchangeFailed, StatusFailed: it did not come, or is an error.
        Unreadable: it is too large, or packed in a way that was not asked for.
        ConfigurationError: it redirects to another server, or asks for another method there.
    """
    response = await _request(pool, url, data, headers)
    if response.status >= 300:
        response = await _followed(response, pool, url, data, headers)
    try:
        return await _body(response)
    except (aiohttp.ClientError, OSError) as error:
        failed = _failure(error)
    finally:
        response.release()  # closed, unless all of it was read
    raise failed


@asynccontextmanager
async def post_for_pieces(
    pool: Pool, url: str, data: bytes, headers: Mapping[str, str]
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give the body of the answer in pieces, as they arrive.

    Raises:
        As `post`.
    """
    response = await _request(pool, url, data, headers)
    if response.status >= 300:
        response = await _followed(response, pool, url, data, headers)
    try:
        async with contextlib.aclosing(_pieces(response)) as pieces:
            yield pieces
    finally:
        response.release()


async def _followed(
    response: aiohttp.ClientResponse, pool: Pool, url: str, data: bytes, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    """Return the answer that redirects lead to, of a status below 300; within the same origin only."""
    for left in range(REDIRECTS, -1, -1):
        if response.status < 300:
            return response
        try:
            target = response.headers.get("Location") if response.status < 400 else None  # an error may have one
            said = await _words(response)
        finally:
            response.release()
        if target is None:
            raise StatusFailed(response.status, said, response.headers)
        following = redirected(url, target)
        check_redirect(response.status, shown_address(url), url, following)
        if not left:
            break
        url = following
        response = await _request(pool, url, data, headers)
    raise ExchangeFailed(f"more than {REDIRECTS} redirects", frozenset({"TooManyRedirects"}))


async def _request(pool: Pool, url: str, data: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
    if pool.proxy is not None:
        headers = {**headers, **pool.headers}
    sent = time.monotonic()
    try:
        response = await pool.session.post(
            url,
            data=aiohttp.BytesPayload(data) if len(data) < _AT_ONCE else io.BytesIO(data),
            headers=headers,
            allow_redirects=False,
            proxy=pool.proxy,
            proxy_headers=pool.tunnel_headers,
        )
        pool.understood(sent)
        return response
    except (aiohttp.ClientError, OSError) as error:
        if type(error) is aiohttp.ClientResponseError:
            pool.misunderstood(sent, time.monotonic())
        failed = _failure(error)
    except (TypeError, ValueError, OverflowError) as error:  # of an address or a header that cannot be sent
        failed = ExchangeFailed(type(error).__name__, frozenset({"InvalidURL"}))
    raise failed  # out here, so that it does not refer to aiohttp's, which has the request's headers


async def _body(response: aiohttp.ClientResponse) -> bytes:
    reader, content, parts = _reader(response), response.content, list[bytes]()
    while not content.at_eof():
        parts += reader.feed(await content.readany())
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reader(response: aiohttp.ClientResponse) -> BodyReader:
    return BodyReader(header(response.headers, "Content-Encoding"), response.headers.get("Content-Length"))


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    reader, content = _reader(response), response.content
    while not content.at_eof():
        try:
            pieces = reader.feed(await content.readany())
        except (aiohttp.ClientError, OSError) as error:
            failed = _failure(error)
            break
        for piece in pieces:
            yield piece
    else:
        return
    raise failed


async def _words(response: aiohttp.ClientResponse) -> bytes:
    """What an answer that is an error says; whatever breaks meanwhile, its status is known."""
    with contextlib.suppress(aiohttp.ClientError, Unreadable, OSError):
        return await _body(response)
    return b""


def _failure(error: Exception) -> ExchangeFailed:
    """Return the failure for an error of aiohttp or the system; its text has no password of a proxy."""
    name = type(error).__name__
    if type(error) is aiohttp.ClientResponseError:  # its own 400, and not the server's
        said = f"the answer is not valid HTTP: {error.message}"
    elif isinstance(error, aiohttp.ClientResponseError):
        said = f"{name}: {error.status}, {error.message}"
    elif isinstance(error, aiohttp.InvalidURL):
        said = name
    else:
        said = f"{name}: {error}"
    failed = ExchangeFailed(said, frozenset(kind.__name__ for kind in type(error).__mro__))
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    failed.__cause__ = inner if isinstance(inner, Exception) else None
    return failed

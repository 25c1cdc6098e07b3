"""What this package uses of an `AsyncOpenAI`, over a pool of plain connections: a tenth of the client's CPU time.

It sends what it is sure to send as the client would. A request with other arguments (a name that is not listed here, a
value that is no plain JSON) goes through a real client, which converts it or refuses it in its own words.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import Any

from tts_plugins._http.exchange import post, post_for_events
from tts_plugins._http.json_bytes import encode, viewed
from tts_plugins._http.pool import Lease
from tts_plugins._version import __version__
from tts_plugins.models._openai.transport import sending

_CHAT = {
    "messages", "model", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
    "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction",
    "presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop", "store", "stream",
    "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    "extra_body", "extra_headers",
}  # fmt: skip
_COMPLETIONS = {
    "model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n",
    "presence_penalty", "seed", "stop", "stream", "stream_options", "suffix", "temperature", "top_p", "user",
    "extra_body", "extra_headers",
}  # fmt: skip
_EMBEDDINGS = {"input", "model", "dimensions", "encoding_format", "user", "extra_body", "extra_headers"}


class AiohttpClient:
    """A client for one event loop.

    Args:
        base_url: of the server.
        headers: of each request.
        plain: makes an `AsyncOpenAI` of the same settings, for requests that need one.
    """

    tells_when_sent = True

    def __init__(self, base_url: str, headers: Mapping[str, str], plain: Callable[[], Awaitable[Any]]) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers, self._make_plain = dict(headers), plain
        self._lease = Lease(self.base_url)
        self._client: Any = None  # the real one, once it is needed
        self.chat = SimpleNamespace(completions=_Endpoint(self, "chat/completions", _CHAT))
        self.completions = _Endpoint(self, "completions", _COMPLETIONS)
        self.embeddings = _Endpoint(self, "embeddings", _EMBEDDINGS)

    async def close(self) -> None:
        """Give the connections back."""
        client, self._client = self._client, None
        await self._lease.close()
        if client is not None:
            await client.close()

    async def post(self, address: str, *, cast_to: type, body: object, options: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer of any address of the server."""
        headers = {**self._headers, **((options or {}).get("headers") or {})}
        return await self._post(address, encode(body), headers)

    async def _post(self, url: str, data: bytes, headers: Mapping[str, str]) -> Any:
        sending()
        return await post(self._lease.pool, url, data, headers)

    def _events(self, url: str, data: bytes, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Any]:
        sending()
        return post_for_events(self._lease.pool, url, data, headers)

    async def _real(self) -> Any:
        if self._client is None:
            self._client = await self._make_plain()
        return self._client


class _Endpoint:
    """One kind of request: `create` as the client's own."""

    def __init__(self, client: AiohttpClient, path: str, known: set[str]) -> None:
        self._client, self._path, self._known = client, path, known
        self._url = f"{client.base_url}/{path}"

    async def create(self, **request: Any) -> Any:
        """The answer, or with `stream=True` a context that gives its events."""
        made = self._made(request)
        if made is None:
            return await self._through_real(request)
        data, headers = made
        if request.get("stream"):
            return _Viewed(self._client._events(self._url, data, headers))
        return _viewed(await self._client._post(self._url, data, headers))

    def _made(self, request: dict[str, Any]) -> tuple[bytes, Mapping[str, str]] | None:
        """Body and headers; None where that is for a real client to say."""
        if not request.keys() <= self._known:
            return None
        extra, headers = request.get("extra_body"), request.get("extra_headers")
        body = request
        if "extra_body" in request or "extra_headers" in request:
            body = {key: value for key, value in request.items() if key not in ("extra_body", "extra_headers")}
            if extra:
                body.update(extra)
        try:
            data = encode(body)
        except (TypeError, ValueError, RecursionError):
            return None
        if not headers:
            return data, self._client._headers
        replaced = {name.lower() for name in headers}
        kept = {name: value for name, value in self._client._headers.items() if name.lower() not in replaced}
        return data, {**kept, **headers}

    async def _through_real(self, request: dict[str, Any]) -> Any:
        client = await self._client._real()
        for part in self._path.split("/"):
            client = getattr(client, part)
        return await client.create(**request)


class _Viewed:
    """Events whose members are attributes too."""

    def __init__(self, events: AbstractAsyncContextManager[Any]) -> None:
        self._context = events

    async def __aenter__(self) -> _Viewed:
        self._events = await self._context.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._context.__aexit__(*error)

    def __aiter__(self) -> _Viewed:
        return self

    async def __anext__(self) -> Any:
        return _viewed(await anext(self._events))


def _viewed(answer: Any) -> Any:
    """The answer with attributes; counts that came as texts are numbers, as the client makes them."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if isinstance(usage, dict):
        for name, value in usage.items():
            if isinstance(value, str) and value.isascii() and value.isdigit():
                usage[name] = int(value[:12])
    return viewed(answer)


def headers_of(api_key: str) -> dict[str, str]:
    """The headers of each request: as the client has them, where servers read them."""
    headers = {
        "Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "Accept": "application/json",
        "User-Agent": f"tts-plugins/{__version__}",
    }  # fmt: skip
    for name, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
        if value := os.environ.get(variable):
            headers[name] = value
    return headers

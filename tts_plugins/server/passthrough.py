"""Endpoints without a search, passed to the upstream as they are; their tokens count like all others."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

import aiohttp
from starlette.responses import Response

from tts_plugins._http.sse import until_done
from tts_plugins._internal.error_bodies import error_in
from tts_plugins._internal.http_errors import reply_error, retry_after, server_words, status_error
from tts_plugins._internal.token_usage import Report
from tts_plugins.budget import Bound, Budget
from tts_plugins.ledger import Ledger
from tts_plugins.server.attendance import Stream
from tts_plugins.server.budgets.accounts import Grant, StoreFailed
from tts_plugins.server.budgets.tenants import Tenant, tightest
from tts_plugins.server.errors import APIError, UpstreamMisconfigured, api_error, bad_field
from tts_plugins.server.requests.chat import Service
from tts_plugins.server.requests.fields import REFUSED, whole_of
from tts_plugins.server.requests.profiles import unknown_model
from tts_plugins.server.upstream import dumps
from tts_plugins.types import Usage

Kind = Literal["completions", "embeddings"]
_log = logging.getLogger("tts_plugins.server")
# What a chat may not have, and these may: the bound below takes it in.
_OWN = {"completions": ("prompt", "best_of"), "embeddings": ()}
# What the last lines of a stream have; one that ends without was broken off, by a server that names no length.
_DONE = re.compile(rb"data: *\[DONE\]")
_LAST = re.compile(rb'"finish_reason"\s*:\s*"|"error"\s*:\s*[{"]')
_PER_PROMPT, _LONGEST_LINE = 64, 1 << 20


async def pass_through(service: Service, tenant: Tenant, kind: Kind, body: Any) -> Response:
    """Return the upstream's answer, within the tenant's budget.

    Raises:
        APIError, TTSError: the request is refused, or the upstream's answer is an error.
    """
    if not isinstance(body, dict):
        raise APIError(400, "The body must be a JSON object.", code="invalid_json")
    for name in body:
        if name in REFUSED and name not in _OWN[kind] and body[name] is not None:
            raise bad_field(name, f"it cannot be given; {REFUSED[name]}", code="unsupported_parameter")
    body = {**body, "model": _model(service, body.get("model"))}
    return await _Passing(service, tenant, kind, body).response()


def _model(service: Service, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise bad_field("model", "it must be given, as a text", code="missing_required_parameter")
    upstream = service.profiles.split(name)[1]
    models = service.upstream.models
    if upstream != name:
        raise bad_field(
            "model", f"{name[:80]} names a profile, and nothing is searched here; name the upstream's model"
        )
    if models and upstream not in models:
        raise unknown_model(name, models, "model")
    return upstream


class _Passing:
    """One request under way. It is settled once: at what it took, or at its bound where that is not known."""

    def __init__(self, service: Service, tenant: Tenant, kind: Kind, body: dict[str, Any]) -> None:
        self._service, self._tenant, self._kind, self._body = service, tenant, kind, body
        self._stack, self._done = AsyncExitStack(), False

    async def response(self) -> Response:
        service, settings = self._service, self._service.settings
        limits = tightest(settings.request_budget, Budget(seconds=settings.timeout))
        self._grant: Grant = await service.accounts.grant(self._tenant, limits)
        self._ledger = Ledger(self._grant.budget)
        self._usage: Usage | None = Usage()  # until it is sent
        self._stack.push_async_callback(self._settle)
        try:
            bound = await self._bound()
            self._hold = self._ledger.reserve(bound.amount)
            self._bounded = bound.usage()
            self._usage = None
            upstream = await self._stack.enter_async_context(
                service.upstream.send("POST", self._kind, dumps(self._body))
            )
            if upstream.status >= 300:
                await self._fail(upstream)
            if str(upstream.headers.get("content-type", "")).startswith("text/event-stream"):
                # Read at once: aiohttp drops what it has when the connection breaks.
                lines = self._lines(upstream)
                first = await anext(lines, b"")
                return Stream(_chained(first, lines), {"content-type": "text/event-stream"}, self._close)
            return await self._whole(upstream)
        except aiohttp.ClientError as error:
            await self._stack.aclose()
            raise _broken_off() from error
        except BaseException as error:
            self._grant.explain(error)
            await self._stack.aclose()
            raise

    async def _bound(self) -> Bound:
        body = self._body
        limit = whole_of(body, "max_tokens")
        prompts = body.get("prompt" if self._kind == "completions" else "input")
        count = len(prompts) if isinstance(prompts, list) and not all(isinstance(p, int) for p in prompts) else 1
        # The whole body, since any field of it may become a part of the prompt, such as a suffix.
        tokens = len(dumps(body)) + _PER_PROMPT * count
        samples = 0
        if self._kind == "completions":
            limited = self._ledger.limits("tokens") or self._ledger.limits("usd")
            if limit is None and limited:
                raise bad_field("max_tokens", "a budget holds, which needs it; give it")
            most = self._service.settings.max_candidates
            samples = max(whole_of(body, name, most) or 1 for name in ("n", "best_of")) * count
        completion = (limit or 0) * samples
        price = await self._service.upstream.price(body["model"])
        usd = None if price is None else price(tokens, completion)
        if usd is None and self._ledger.limits("usd"):
            raise bad_field("model", "its price is not known, so a budget of money cannot hold")
        return Bound(prompt_tokens=tokens, completion_tokens=completion, usd=usd, calls=max(samples, 1))

    async def _whole(self, upstream: Any) -> Response:
        raw = await upstream.read()
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError):
            raise APIError(502, "The upstream's answer is not valid JSON.", code="upstream_malformed") from None
        if (error := error_in(data)) is not None:  # as gateways send it, with a status of 200
            raise reply_error(upstream.status, str(self._body["model"]), error, headers=upstream.headers,
                              now=time.time())  # fmt: skip
        await self._count(data)
        await self._stack.aclose()
        return Response(raw, upstream.status, {"content-type": "application/json"})

    async def _lines(self, upstream: Any) -> AsyncIterator[bytes]:
        complete = False
        try:
            async for line in _lines_of(until_done(upstream.content.iter_any(), lambda: self._done)):
                self._done = self._done or _DONE.match(line) is not None
                complete = complete or self._done or _LAST.search(line) is not None
                if line.startswith(b"data:") and b'"usage"' in line:
                    await self._count(_json(line[5:]))
                yield line if b'"choices"' in line and b'"error"' not in line else self._shown(line)
            broken: Exception | None = None if complete else _broken_off()
        except (aiohttp.ClientError, TimeoutError) as error:
            broken = error if isinstance(error, TimeoutError) else _broken_off()
        if broken is not None:
            yield b"data: " + dumps(api_error(broken).body()) + b"\n\n"

    def _shown(self, line: bytes) -> bytes:
        data = _json(line[5:])
        if isinstance(data, Mapping) and data.get("choices") and not data.get("error"):
            return line  # what was generated may have anything in it
        return self._service.upstream.hide(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _close(self) -> None:
        # A task of its own: the one that sends the stream may be cancelled.
        self._service.start(self._stack.aclose())

    async def _count(self, data: Any) -> None:
        report = Report.of(data.get("usage") if isinstance(data, Mapping) else None)
        prompt, completion = report.prompt, report.completion
        if prompt is None or completion is None:
            return
        price = await self._service.upstream.price(self._body["model"])
        usd = None if price is None else price(prompt, completion)
        calls = self._bounded.calls
        self._usage = Usage(calls=calls, requests=1, prompt_tokens=prompt, completion_tokens=completion, usd=usd)

    async def _fail(self, upstream: Any) -> None:
        if upstream.status < 400:
            _log.error("the upstream cannot be used as it is set up: it redirects %s to another address", self._kind)
            raise UpstreamMisconfigured
        raw = (await upstream.content.read(4096)).decode("utf-8", "replace")
        try:
            said: Any = json.loads(raw)
        except ValueError:
            said = raw
        words = server_words(said, {})
        if upstream.status < 500:
            self._usage = Usage(calls=1, requests=1)  # refused, and nothing was generated
        after = retry_after(upstream.headers, time.time())
        raise status_error(upstream.status, str(self._body["model"]), words, after=after)

    async def _settle(self) -> None:
        hold = getattr(self, "_hold", None)
        if hold is not None:
            hold.settle(self._usage if self._usage is not None else self._bounded)
        self._service.observer.counted(self._kind, self._ledger.usage)
        try:
            await self._service.accounts.settle(self._grant, self._ledger.spent)
        except StoreFailed:
            _log.error("what a request of %s did not use could not be given back, and stays charged", self._tenant.name)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for each in rest:
        yield each


async def _lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines as they arrive; one that is too long comes in pieces."""
    line = b""
    async for data in pieces:
        *whole, line = (line + data).split(b"\n")
        for each in whole:
            yield each + b"\n"
        if len(line) > _LONGEST_LINE:
            yield line
            line = b""
    if line:
        yield line


def _broken_off() -> APIError:
    return APIError(502, "The upstream broke the connection.", code="upstream_unreachable")


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

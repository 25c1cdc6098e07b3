"""The application: which path does what."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import TTSError
from tts_plugins.server.attendance import Stream, attended, caller_gone
from tts_plugins.server.budgets.accounts import Accounts, StoreFailed, UsageStore
from tts_plugins.server.budgets.store_sqlite import SQLiteStore
from tts_plugins.server.budgets.tenants import Tenants
from tts_plugins.server.errors import APIError, api_error
from tts_plugins.server.guard import Guard, tenant_of
from tts_plugins.server.observe import Observation
from tts_plugins.server.passthrough import Kind, pass_through
from tts_plugins.server.requests.body import read_json
from tts_plugins.server.requests.chat import ChatCall, Service
from tts_plugins.server.requests.fields import chat_request
from tts_plugins.server.requests.profiles import Profiles, unknown_model
from tts_plugins.server.requests.response_events import ResponseStream, response_of
from tts_plugins.server.requests.responses import responses_request
from tts_plugins.server.requests.streams import ChatStream
from tts_plugins.server.settings import ServerSettings
from tts_plugins.server.upstream import Upstream, dumps

_STREAM = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
Handler = Callable[["Server", Request], Awaitable[Response]]


class Server:
    """The parts of one server process.

    Args:
        store: where spending is kept, instead of what the settings name.

    Raises:
        ConfigurationError: a setting, a profile or a tenant is wrong.
        StoreFailed: the account of spending cannot be opened.
    """

    def __init__(
        self, settings: ServerSettings, progress: Callable[[int, int], None] | None = None,
        store: UsageStore | None = None,
    ) -> None:  # fmt: skip
        tenants = Tenants.of(settings)
        if not tenants.limited:
            store = None
        self.settings = settings
        self.upstream = Upstream(settings, progress)
        self.observation = Observation(settings, self.upstream.hide)
        self.service = Service(
            settings=settings, upstream=self.upstream, profiles=Profiles(settings),
            accounts=Accounts(store or store_of(settings, tenants), settings.queue_seconds), observer=self.observation,
        )  # fmt: skip
        self.tenants = tenants

    def application(self) -> Guard:
        """Return the ASGI application."""
        routes = [
            Route("/v1/chat/completions", self._endpoint(chat), methods=["POST"]),
            Route("/v1/responses", self._endpoint(responses), methods=["POST"]),
            Route("/v1/completions", self._endpoint(completions), methods=["POST"]),
            Route("/v1/embeddings", self._endpoint(embeddings), methods=["POST"]),
            Route("/v1/models", self._endpoint(models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._endpoint(model), methods=["GET"]),
            Route("/health", self._endpoint(health), methods=["GET"]),
            Route("/metrics", self._endpoint(metrics), methods=["GET"]),
        ]
        if self.observation.viewer is not None:
            routes.append(Mount("/view", app=self.observation.viewer))  # type: ignore[arg-type]
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _no_route})
        return Guard(app, self.settings, self.tenants, self.observation.close)

    def _endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handled(request: Request) -> Response:
            path, status = request.url.path, 500
            try:
                response = await handler(self, request)
                status = response.status_code
                return response
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer in OpenAI's form
                reported = api_error(error, self.upstream.hide)
                status = reported.status
                return _json(reported.body(), reported.status, reported.headers)
            finally:
                self.observation.answered(path, status)

        return handled

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await in_thread(self.upstream.start)
        await in_thread(importlib.import_module, "openai.resources.chat")  # most of a second, in the first request else
        yield
        tasks = list(self.service.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)  # what they took is given back, or charged
        self.observation.close()
        await self.upstream.aclose()
        await self.service.accounts.close()


def create_app(settings: ServerSettings) -> Guard:
    """Return the ASGI application of a server.

    Raises:
        ConfigurationError: a setting, a profile or a tenant is wrong.
    """
    return Server(settings).application()


def store_of(settings: ServerSettings, tenants: Tenants) -> UsageStore | None:
    """Return where spending is kept, or None if nobody's is.

    Raises:
        StoreFailed: it cannot be opened.
    """
    if not tenants.limited:
        return None
    where = settings.store or "tts-plugins-usage.sqlite"
    if where.startswith(("redis://", "rediss://", "unix://")):
        from tts_plugins.server.budgets.store_redis import RedisStore

        return RedisStore(where)
    return SQLiteStore(where)


async def chat(server: Server, request: Request) -> Response:
    """POST /v1/chat/completions."""
    call = await _call(server, request, await body_of(request))
    if call.request.stream:
        stream = ChatStream(call)
        await attended(request, stream.begin())
        return Stream(stream.frames(), _STREAM, stream.cancel)
    outcome = await attended(request, server.service.start(call.run()))
    return _json(call.completion(outcome))


async def responses(server: Server, request: Request) -> Response:
    """POST /v1/responses: the same search, in the form of OpenAI's Responses. Nothing is stored."""
    asked = responses_request(await body_of(request))
    call = await _call(server, request, asked.chat)
    if asked.stream:
        stream = ResponseStream(call, asked)
        await attended(request, stream.begin())
        return Stream(stream.frames(), _STREAM, stream.cancel)
    outcome = await attended(request, server.service.start(call.run()))
    return _json(response_of(call, asked, call.completion(outcome)))


async def _call(server: Server, request: Request, body: Any) -> ChatCall:
    call = ChatCall(server.service, tenant_of(request.scope), chat_request(body, server.settings))
    name, profiles = call.request.model, server.service.profiles
    if (meant := profiles.misspelt(name)) is not None:
        listed: set[str] = set()
        with contextlib.suppress(APIError, TTSError, TimeoutError):  # else the upstream itself says what it knows
            listed = {model["id"] for model in await server.upstream.list()}
        if name not in listed and meant.partition("/")[2] in listed:
            raise unknown_model(name, [meant], "profile")
    return call


async def completions(server: Server, request: Request) -> Response:
    """POST /v1/completions, passed through."""
    return await _passed(server, request, "completions")


async def embeddings(server: Server, request: Request) -> Response:
    """POST /v1/embeddings, passed through."""
    return await _passed(server, request, "embeddings")


async def _passed(server: Server, request: Request, kind: Kind) -> Response:
    work = pass_through(server.service, tenant_of(request.scope), kind, await body_of(request))
    answer: Response = await attended(request, server.service.start(work))
    return answer


async def models(server: Server, request: Request) -> Response:
    """GET /v1/models: the upstream's, and one for each profile."""
    return _json({"object": "list", "data": await _models(server)})


async def model(server: Server, request: Request) -> Response:
    """GET /v1/models/NAME."""
    name = request.path_params["name"]
    found = next((m for m in await _models(server) if m["id"] == name), None)
    if found is None:
        raise APIError(404, f"The model {name[:80]!r} does not exist.", code="model_not_found", param="model")
    return _json(found)


async def _models(server: Server) -> list[dict[str, Any]]:
    listed = await server.upstream.list()
    known = list(server.service.profiles.known)
    named = [*known, *(f"{profile}/{m['id']}" for profile in known for m in listed)]
    return [*listed, *({"id": n, "object": "model", "created": 0, "owned_by": "tts-plugins"} for n in named)]


async def health(server: Server, request: Request) -> Response:
    """GET /health: this process answers. It asks nothing of the upstream, which may come and go."""
    return _json({"status": "ok"})


async def metrics(server: Server, request: Request) -> Response:
    """GET /metrics, for Prometheus."""
    body, kind = server.observation.metrics()
    return Response(body, media_type=kind)


async def body_of(request: Request) -> Any:
    """Return the request's body, read as JSON.

    Raises:
        APIError: it is not JSON.
    """
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise caller_gone() from None
    return read_json(raw)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    what = "There is no such path." if status == 404 else "This path takes another method."
    return _json(APIError(status, what, code="unknown_path").body(), status)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(body), status, {"content-type": "application/json", **(headers or {})})


__all__ = ["Server", "StoreFailed", "create_app"]

"""The loopback server's aiohttp application: I/O only. It times, sends, breaks connections and keeps the account."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tts_plugins.errors import MissingExtraError
from tts_plugins.testing.loopback._faults import Fault, as_plan
from tts_plugins.testing.loopback._meter import Counts, Meter, Ticket
from tts_plugins.testing.loopback._replies import Body, Outcome, as_function, generate, prompts_of
from tts_plugins.testing.loopback._settings import Settings, refusal
from tts_plugins.testing.loopback._template import Vocabulary, rendered, token_ids
from tts_plugins.testing.loopback._wire import (
    Payload,
    as_json,
    embeddings,
    error_body,
    render,
    spoil,
    token_answer,
    tokenize,
)

try:
    from aiohttp import web

    from tts_plugins.testing.loopback._send import break_connection, first, open_response, response, status, until
except ImportError as error:
    raise MissingExtraError("the loopback server needs aiohttp: pip install 'tts-plugins[testing]'") from error

_log = logging.getLogger(__name__)


class LoopbackApp:
    """One server's behaviour and account, without the thread or process that it runs in."""

    def __init__(self, settings: Settings) -> None:
        self.meter = Meter()
        self.closing = False
        self._vocabulary = Vocabulary()
        # connections over which somebody asked for the counts: not the clients' whose sockets are counted
        self._observers: set[Any] = set()
        self.configure(settings)
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._post)
        app.router.add_post("/openai/deployments/{deployment}/chat/completions", self._post)  # as Azure has it
        app.router.add_post("/v1/completions", self._post)
        app.router.add_post("/v1/embeddings", self._post)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/apply-template", self._apply_template)
        app.router.add_route("*", "/control", self._control)
        app.router.add_route("*", "/{path:.*}", self._unknown)
        # handler_cancellation: a client that goes away cancels its handler, which is how aborts are noticed.
        # keepalive: the server must never be the one that closes an idle connection under a client.
        # shutdown: as good as at once, but not 0, which aiohttp takes for no limit at all.
        self.runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, keepalive_timeout=3600.0, shutdown_timeout=0.01
        )

    def configure(self, settings: Settings) -> None:
        """Use other settings from the next request on."""
        self.settings, self._plan, self._speak = settings, as_plan(settings.faults), as_function(settings.reply)

    async def serve(self, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        """Listen on 127.0.0.1, tell `ready` the port, and serve until `stop`."""
        await self.runner.setup()
        try:
            await web.TCPSite(self.runner, "127.0.0.1", port, backlog=4096).start()
            ready(int(self.runner.addresses[0][1]))
            await stop.wait()
        finally:
            self.closing = True
            await self.runner.cleanup()

    def counts(self) -> Counts:
        """Return the counts now."""
        server = self.runner.server
        live = set(server.connections) if server is not None else set()
        self._observers &= live
        return self.meter.snapshot(len(live - self._observers))

    async def _post(self, request: web.Request) -> web.StreamResponse:
        ticket = self.meter.begin(request.path)
        try:
            return await self._serve(request, ticket)
        except (asyncio.CancelledError, ConnectionError):
            if not self.closing:
                self.meter.abort(ticket)
            raise
        finally:
            self.meter.end(ticket)

    async def _serve(self, request: web.Request, ticket: Ticket) -> web.StreamResponse:
        settings, raw = self.settings, await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return response(as_json(error_body("We could not parse the JSON body of your request.")), status=400)
        if settings.record:
            self.meter.record(ticket, body, {name.lower(): value for name, value in request.headers.items()})
        if settings.template == "ids" and (ids := token_ids(body.get("prompt"))) is not None:
            try:
                body = {**body, "prompt": self._vocabulary.decode(ids)}
            except ValueError as error:
                return response(as_json(error_body(str(error), param="prompt")), status=400)
        fault = self._plan(ticket.number)
        if fault is not None:
            self.meter.fault(ticket, fault.kind)
        refused = refusal(settings, body, request.headers.get("Authorization", ""))
        if refused is not None and (fault is None or fault.kind != "status"):
            return response(as_json(refused[1]), status=refused[0])
        try:
            wait, payload = self._prepare(settings, body, ticket, fault)
        except Exception as error:  # noqa: BLE001
            # a test's own reply function failed: the client sees a 500 that says so, the log has the traceback
            _log.exception("the reply function failed on request %d", ticket.number)
            return response(as_json(error_body(f"reply function: {error!r}", type_="server_error")), status=500)
        # prepared first, then waited for: the time that rendering takes is within the latency, not on top of it
        await until(ticket.at + wait)
        return await self._deliver(request, ticket, payload, fault)

    def _prepare(self, settings: Settings, body: Body, ticket: Ticket, fault: Fault | None) -> tuple[float, Payload]:
        """Generate and render: the seconds to wait from arrival, and what to send then."""
        latency = settings.latency_of(ticket.number)
        if "input" in body and "messages" not in body and "prompt" not in body:
            answer = embeddings(body)
            ticket.choices, ticket.prompt_tokens = len(answer["data"]), answer["usage"]["prompt_tokens"]
            return first(fault, latency), spoil(as_json(answer), fault)
        if fault is not None and fault.kind == "status" and not fault.charged:
            return first(fault, latency), Payload(frames=(b"",))
        outcome = self._outcome(settings, body)
        if fault is not None and fault.kind == "partial_choices":
            outcome = outcome.keep(fault.cut or 0)
        ticket.choices, ticket.prompt_tokens = len(outcome.replies), outcome.prompt_tokens
        ticket.completion_tokens = sum(outcome.completion_tokens)
        slowest = max((latency if each.latency is None else each.latency for each in outcome.replies), default=latency)
        if not body.get("stream"):
            slowest += settings.per_token * max(outcome.completion_tokens, default=0)
        payload = spoil(render(body, outcome, ticket.number, settings.usage_variant, fault), fault)
        return first(fault, slowest), payload

    def _outcome(self, settings: Settings, body: Body) -> Outcome:
        asked = int(body.get("n") or 1) if settings.honours_n else 1
        count, seed = asked * len(prompts_of(body)), body.get("seed")
        indices: Sequence[int]
        if seed is not None and settings.same_text_for_seed:
            indices = [int(seed)] * count
        elif seed is not None and settings.indexing == "seed":
            indices = range(int(seed), int(seed) + count)
        else:
            indices = self.meter.indices(count)
        return generate(self._speak, body, indices)

    async def _deliver(
        self, request: web.Request, ticket: Ticket, payload: Payload, fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else None
        if fault is not None and kind == "status":
            if fault.charged:
                self.meter.charge(ticket)
            return status(fault)
        if kind == "hang":
            await asyncio.Event().wait()
        if fault is not None and kind in ("reset", "close_mid_stream"):
            return await self._break(request, ticket, payload, fault)
        frames, pace = payload.frames, 0.0
        if fault is not None and kind == "slow_trickle":
            data, pace = b"".join(frames), fault.interval
            frames = tuple(data[i : i + fault.size] for i in range(0, len(data), fault.size))
        elif not payload.stream:
            self.meter.charge(ticket)
            return response(payload)
        elif self.settings.per_token and frames:
            pace = self.settings.per_token * ticket.completion_tokens / max(1, ticket.choices) / len(frames)
        answer = await open_response(request, payload)
        start = time.monotonic()
        for i, frame in enumerate(frames):
            await until(start + i * pace)
            if i == len(frames) - 1:
                self.meter.charge(ticket)
            await answer.write(frame)
        await answer.write_eof()
        return answer

    async def _break(self, request: web.Request, ticket: Ticket, payload: Payload, fault: Fault) -> web.StreamResponse:
        """Send part of the response, or none of it, and break the connection; the tokens are charged all the same."""
        answer: web.StreamResponse = web.Response()
        frames: tuple[bytes, ...] = ()
        if fault.kind == "close_mid_stream":
            half = (payload.frames[0][: len(payload.frames[0]) // 2],)
            frames = payload.frames[: fault.cut] if payload.stream else half
        elif fault.cut is not None:
            frames = (b"".join(payload.frames)[: fault.cut],)
        if frames:
            answer = await open_response(request, payload)
        for frame in frames:
            await answer.write(frame)
        self.meter.charge(ticket)
        # what follows cancels this handler; it is our doing and not the client's
        ticket.over = True
        transport = request.transport
        if transport is None:
            return answer
        break_connection(transport, reset=fault.kind == "reset")
        return answer

    async def _models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "loopback"} for name in self.settings.models]
        return web.json_response({"object": "list", "data": rows})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _tokenize(self, request: web.Request) -> web.Response:
        ids = self.settings.template == "ids"
        if not (self.settings.tokenizer or ids):
            return await self._unknown(request)
        body = await request.json()
        if not ids:
            return web.json_response(tokenize(body))
        text = rendered(body) if "messages" in body else str(body.get("prompt", ""))
        return web.json_response(token_answer(self._vocabulary.encode(text)))

    async def _apply_template(self, request: web.Request) -> web.Response:
        if self.settings.template != "text":
            return await self._unknown(request)
        return web.json_response({"prompt": rendered(await request.json())})

    async def _unknown(self, request: web.Request) -> web.Response:
        return response(as_json(error_body(f"Unknown request URL: {request.method} {request.path}.")), status=404)

    async def _control(self, request: web.Request) -> web.Response:
        """Answer GET with the counts (?requests=1: the requests too); obey POST {"reset": true}, {"configure": …}."""
        self._observers.add(request.protocol)
        if request.method == "POST":
            order = await request.json()
            if "configure" in order:
                self.configure(Settings.from_json(order["configure"]))
            if order.get("reset"):
                self.meter.reset()
        answer: dict[str, Any] = {"counts": asdict(self.counts())}
        if request.query.get("requests"):
            answer["requests"] = [asdict(kept) for kept in self.meter.requests]
        return web.json_response(answer)

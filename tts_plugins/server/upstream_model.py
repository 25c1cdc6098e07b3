"""The upstream's model as the engine calls it, and what a caller's request hears from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from tts_plugins._internal.chat_messages import text_of
from tts_plugins._internal.values import field
from tts_plugins.errors import ConfigurationError, RequestNotSent, TTSError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.server.errors import APIError, UpstreamMisconfigured
from tts_plugins.types import Generation, Reply

_log = logging.getLogger("tts_plugins.server")


class Exchange:
    """What one request of a caller has heard from the upstream.

    Args:
        tap: called with each chunk of a single sample as it arrives; None where candidates are chosen from.
        seed: of the caller, for a single sample.

    Attributes:
        tapped: whether a chunk has gone out to the caller, so that the sample cannot be made again.
    """

    def __init__(self, tap: Callable[[Any], None] | None = None, seed: int | None = None) -> None:
        self.tap, self.seed, self.tapped = tap, seed, False
        self._choices: dict[int, tuple[Any, Any, Any]] = {}

    def hear(self, chunk: Any) -> None:
        """Pass on a chunk of the single sample."""
        if self.tap is not None and field(chunk, "choices"):
            self.tapped = True
            self.tap(chunk)

    def keep(self, response: Any, generations: Sequence[Generation]) -> None:
        """Remember which choice each generation came in: a candidate has its message alone."""
        choices = [c for c in field(response, "choices") or () if field(c, "message") is not None]
        for generation in generations:
            message = generation.output
            said = (field(message, "content"), len(field(message, "tool_calls") or ()))
            for i, choice in enumerate(choices):
                other = field(choice, "message")
                if (field(other, "content"), len(field(other, "tool_calls") or ())) == said:
                    self._choices[id(message)] = (message, response, choices.pop(i))
                    break

    def choice_of(self, message: Any) -> tuple[Any, Any] | None:
        """Return the completion and the choice that a message came in."""
        found = self._choices.get(id(message))
        return None if found is None else found[1:]


EXCHANGE: ContextVar[Exchange | None] = ContextVar("tts_plugins_exchange", default=None)
"""Of the request that this runs in."""


class UpstreamModel(OpenAICompatibleModel):
    """The upstream's model for one kind of request. Its candidates' texts hold tool calls too.

    Attributes:
        hide: takes out of a text what no caller may see.
    """

    hide: Callable[[str], str] = staticmethod(str)

    def _candidates(self, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        return tuple(g.replace(text=text_of(g.output, g.text)) for g in generations)

    async def _respond(self, body: dict[str, Any]) -> Any:
        exchange = EXCHANGE.get()
        if exchange is not None:
            if exchange.tapped:
                raise APIError(502, "The upstream broke off in the middle of its answer.", code="upstream_broke_off")
            if exchange.seed is not None and "seed" in body:
                body["seed"] = exchange.seed
        return await super()._respond(body)

    def _failed(self, fault: TTSError, cause: BaseException | None, requests: int) -> TTSError:
        """Hide in an error what no caller may see, before the trace and the answer quote it."""
        error = super()._failed(fault, cause, requests)
        error.args = tuple(self.hide(part) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, ConfigurationError) and not isinstance(error, RequestNotSent):
            _log.error("the upstream cannot be used as it is set up: %s", error)
            return UpstreamMisconfigured(*error.args)
        return error

    async def _read(self, asked: Any, response: Any) -> Reply:
        reply = await super()._read(asked, response)
        if (exchange := EXCHANGE.get()) is not None:
            exchange.keep(response, reply.generations)
        return reply

    def _listener(self) -> Callable[[Any], None] | None:
        exchange = EXCHANGE.get()
        return None if exchange is None or exchange.tap is None else exchange.hear

    def share_clients(self, other: UpstreamModel) -> None:
        """Use the connections of another model of the same server."""
        self._clients = other._clients

    @property
    def server(self) -> str:
        """Its name alone: callers must not see the upstream's address."""
        return self.name

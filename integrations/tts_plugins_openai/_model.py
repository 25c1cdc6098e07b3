"""The wrapped client as the engine's model: each request is one of the client's own `chat.completions.create`."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion

from tts_plugins import Problem, Scored
from tts_plugins.adapters import Text, call_user
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.types import Generation, Reply
from tts_plugins_openai._forms import text_of
from tts_plugins_openai._parsing import Parser

Client = OpenAI | AsyncOpenAI


@dataclass
class Recorder:
    """The completions of one search, whole: a candidate has its message alone."""

    completions: list[ChatCompletion] = field(default_factory=list)
    parser: Parser | None = None

    def add(self, completion: ChatCompletion) -> ChatCompletion:
        """Keep it, parsed where that is asked for."""
        self.completions.append(completion if self.parser is None else self.parser(completion))
        return self.completions[-1]

    def of(self, message: Any) -> tuple[ChatCompletion, Any] | None:
        """The completion and the choice that a message came in."""
        for completion in self.completions:
            for choice in completion.choices or ():
                if choice.message is message:
                    return completion, choice
        return None


RECORDER: ContextVar[Recorder | None] = ContextVar("tts_plugins_openai_recorder", default=None)
"""Of the search that this runs in."""


class ClientModel(OpenAICompatibleModel):
    """The model of a wrapped client. Its candidates' texts hold tool calls too, and know their message."""

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """One request for as many choices as there are seeds."""
        reply = await super().generate(problem, seeds)
        return replace(reply, generations=tuple(_told(g) for g in reply.generations))

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """One request for as many better answers as there are seeds."""
        reply = await super().revise(problem, history, seeds, merge=merge)
        return replace(reply, generations=tuple(_told(g) for g in reply.generations))


def _told(generation: Generation) -> Generation:
    return replace(generation, text=Text.of(text_of(generation.output, generation.text), generation.output))


class Bridge:
    """A client, synchronous or not, with what `OpenAICompatibleModel` asks of an asynchronous one.

    The methods of a synchronous client run on threads of their own, so that they block no loop.
    """

    def __init__(self, client: Client, unused: Any = None) -> None:
        self._client, self._unused = client, unused
        self.base_url = client.base_url
        self.chat = self.completions = self  # client.chat.completions.create

    def with_options(self, **options: Any) -> Bridge:
        """Over the same connections."""
        return Bridge(self._client.with_options(**options))

    def copy(self, *, http_client: Any, **options: Any) -> Bridge:
        """For another loop. A synchronous client belongs to none, and keeps its connections."""
        if isinstance(self._client, AsyncOpenAI):
            return Bridge(self._client.copy(http_client=http_client, **options))
        return Bridge(self._client.with_options(**options), unused=http_client)

    async def close(self) -> None:
        """Close what is not the user's."""
        if isinstance(self._client, AsyncOpenAI):
            await self._client.close()
        elif self._unused is not None:
            await self._unused.aclose()

    async def create(self, **request: Any) -> Any:
        """One completion, kept for the search that asked."""
        if isinstance(self._client, AsyncOpenAI):
            completion = await self._client.chat.completions.create(**request)
        else:
            completion = await call_user(self._client.chat.completions.create, **request)
        recorder = RECORDER.get()
        if recorder is None or not isinstance(completion, ChatCompletion):
            return completion
        if recorder.parser is None:
            return recorder.add(completion)
        return await call_user(recorder.add, completion)  # validators are the user's, and may be slow

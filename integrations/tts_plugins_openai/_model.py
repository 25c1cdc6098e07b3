"""The wrapped client as the engine's model: each request is a call of the client's own `chat.completions.create`."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from openai import APITimeoutError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tts_plugins.adapters import Text, call_user, text_of
from tts_plugins.errors import CallTimedOut, TTSError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.types import Generation
from tts_plugins_openai._parsing import Parser

Client = OpenAI | AsyncOpenAI


@dataclass
class Recorder:
    """Keeps the whole completions of one search: a candidate has only its message.

    Attributes:
        raw: keep the HTTP responses too.
    """

    completions: list[Any] = field(default_factory=list)
    parser: Parser | None = None
    raw: bool = False
    _responses: dict[int, Any] = field(default_factory=dict)

    def add(self, completion: Any, response: Any = None) -> Any:
        """Keep a completion, parsed if there is a parser, and return it."""
        made = completion if self.parser is None else self.parser(completion)
        self.completions.append(made)
        self._responses[id(made)] = response
        return made

    def response_of(self, message: Any) -> Any:
        """Return the HTTP response that a candidate's output came in; the last one if it came from several."""
        found = self.of(message)
        completion = message if found is None else found[0]
        last = next(reversed(self._responses.values()), None)
        return self._responses.get(id(completion), last)

    def of(self, message: Any) -> tuple[ChatCompletion, Any] | None:
        """Return the completion and the choice that a message came in."""
        for completion in self.completions:
            for choice in getattr(completion, "choices", None) or ():
                if choice.message is message:
                    return completion, choice
        return None


RECORDER: ContextVar[Recorder | None] = ContextVar("tts_plugins_openai_recorder", default=None)
"""The recorder of the search that this runs in."""


class ClientModel(OpenAICompatibleModel):
    """The model of a wrapped client. Its candidates' texts hold tool calls too, and know their message."""

    _both_limits = True

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._bridge: Bridge = settings["client"]
        super().__init__(*arguments, **settings)

    def _failed(self, fault: TTSError, cause: BaseException | None, requests: int) -> TTSError:
        if isinstance(fault, CallTimedOut) and isinstance(cause, TimeoutError):
            # What the client raises where a call takes too long. The engine's limit may pass before the client is made.
            cause = APITimeoutError(request=self._bridge.request())
        return super()._failed(fault, cause, requests)

    def _candidates(self, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        return tuple(g.replace(text=Text.of(text_of(g.output, g.text), g.output)) for g in generations)


class Bridge:
    """A client, synchronous or not, with the methods that `OpenAICompatibleModel` calls on an asynchronous one.

    The methods of a synchronous client run on threads of their own, so that they block no loop.
    """

    def __init__(self, client: Client, unused: Any = None) -> None:
        self._client, self._unused = client, unused
        self.base_url, self.api_key, self.default_headers = client.base_url, client.api_key, client.default_headers
        self.chat = self.completions = self  # client.chat.completions.create

    def with_options(self, **options: Any) -> Bridge:
        """Return a copy over the same connections."""
        return Bridge(self._client.with_options(**options))

    def copy(self, *, http_client: Any, **options: Any) -> Bridge:
        """Return a copy for another loop. A synchronous client does not belong to a loop, and keeps its connections."""
        if isinstance(self._client, AsyncOpenAI):
            return Bridge(self._client.copy(http_client=http_client, **options))
        return Bridge(self._client.with_options(**options), unused=http_client)

    async def close(self) -> None:
        """Close the connections that are not the user's."""
        if isinstance(self._client, AsyncOpenAI):
            await self._client.close()
        elif self._unused is not None:
            await self._unused.aclose()

    def request(self) -> Any:
        """Return an HTTP request as the client makes them, for errors that must have one."""
        return self._client._client.build_request("POST", str(self.base_url))

    async def create(self, **request: Any) -> Any:
        """Ask for one completion, and keep it for the search."""
        return await self._kept(self._client.chat.completions, request, ChatCompletion)

    async def retrieve(self, id_: str) -> Any:
        """Return a response that the server has kept."""
        if isinstance(self._client, AsyncOpenAI):
            return await self._client.responses.retrieve(id_)
        return await call_user(self._client.responses.retrieve, id_)

    async def respond(self, **request: Any) -> Any:
        """Ask the Responses API for one answer, and keep it for the search."""
        return await self._kept(self._client.responses, request, Response)

    async def _kept(self, endpoint: Any, request: dict[str, Any], kind: type) -> Any:
        recorder, response = RECORDER.get(), None
        raw = recorder is not None and recorder.raw
        create = endpoint.with_raw_response.create if raw else endpoint.create
        if isinstance(self._client, AsyncOpenAI):
            answer = await create(**request)
        else:
            answer = await call_user(create, **request)
        if raw:
            answer, response = answer.parse(), answer.http_response
        if recorder is None or not isinstance(answer, kind):
            return answer
        if recorder.parser is None:
            return recorder.add(answer, response)
        return await call_user(recorder.add, answer, response)  # validators are the user's, and may be slow

"""`responses.create` as a search: each candidate is one request, since the endpoint has neither `n` nor a seed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from openai.types.responses import Response, ResponseOutputMessage, ResponseOutputRefusal, ResponseUsage
from pydantic import BaseModel

from tts_plugins import Problem, Result, Scored
from tts_plugins.adapters import SearchSettings, Text, field, listed, text_of
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, UnboundedCallError
from tts_plugins.types import REQUEST, Generation, Reply
from tts_plugins_openai._events import events_of
from tts_plugins_openai._forms import refusal_of, summed
from tts_plugins_openai._model import Client, ClientModel
from tts_plugins_openai._models import Models
from tts_plugins_openai._request import OWNER, check, split
from tts_plugins_openai._search import Search, parts_of

_OURS = ("model", "input", "stream", "stream_options", "temperature", "max_output_tokens", "tts")
# What changes the server's state, or is answered later: several candidates cannot share it.
UNSEARCHED = ("conversation", "background")
_KNOWN = 4096


class ResponsesModel(ClientModel):
    """The model of a wrapped client's `responses.create`. Its candidates know their `Response`.

    The server keeps the conversation before `previous_response_id`. Its tokens are those that the server counted: they
    are remembered, or asked for.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "batch": 1, "send_seed": False})
        self._sizes: OrderedDict[str, int] = OrderedDict()

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Send one request; the strategy asks for each candidate separately."""
        return await self._ask(self._prompt(problem), seeds[:1], shape=_whole)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """Send one request for a better answer."""
        return await self._ask(self._revision(problem, history, merge), seeds[:1], shape=_whole)

    def _prompt_of(self, messages: Sequence[Mapping[str, Any]], problem: Problem) -> dict[str, Any]:
        fields = super()._prompt_of([], problem)
        del fields["messages"]
        more = list(messages)[len(problem.messages) :]  # of a revision
        return {"input": [*problem.metadata["input"], *more], **fields}

    async def _bounded(self, prompt: dict[str, Any], max_tokens: int | None, ahead: int = 0) -> Bound:
        before = prompt.get("previous_response_id")
        return await super()._bounded(prompt, max_tokens, ahead + (await self._size(before) if before else 0))

    async def _size(self, id_: str) -> int:
        if id_ not in self._sizes:
            bridge: Any = await self._clients.get()
            response = await bridge.retrieve(id_)
            total = field(field(response, "usage"), "total_tokens")
            if not isinstance(total, int):
                raise UnboundedCallError(
                    f"{OWNER}: {self.name}: the tokens behind previous_response_id={id_!r} are not known, since the "
                    "server does not report them; send the conversation as input"
                )
            self._remember(id_, total)
        return self._sizes[id_]

    def _remember(self, id_: Any, total: Any) -> None:
        if isinstance(id_, str) and isinstance(total, int):
            self._sizes[id_] = total
            while len(self._sizes) > _KNOWN:
                self._sizes.popitem(last=False)

    def _effort(self, effort: str | Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(effort, str):
            return super()._effort(effort)
        return {"reasoning": {**(self._request.get("reasoning") or {}), "effort": effort}}

    def _new(self, prompt: Mapping[str, Any], text: str) -> str:
        return text  # nothing is continued, so nothing is repeated

    async def _respond(self, body: dict[str, Any]) -> Any:
        bridge: Any = await self._clients.get()
        sent = {key: value for key, value in body.items() if key not in ("max_tokens", "max_completion_tokens")}
        with self._outgoing(bridge):
            response = await bridge.respond(**sent)
        self._remember(field(response, "id"), field(field(response, "usage"), "total_tokens"))
        return as_chat(response)


def _whole(choice: Any, generation: Generation) -> Generation:
    response = choice["response"]
    return replace(generation, output=response, text=Text.of(text_of(choice["message"], generation.text), response))


def as_chat(response: Any) -> Any:
    """Return a response in the form of a chat completion, which the model reads; an error stays an error."""
    if field(response, "error") or not isinstance(field(response, "output"), list):
        return response
    message = _message(response)
    reason = field(field(response, "incomplete_details"), "reason")
    finish = str(reason or "incomplete") if field(response, "status") == "incomplete" else "stop"
    usage = field(response, "usage")
    return {
        "choices": [{"index": 0, "finish_reason": finish, "message": message, "response": response}],
        "usage": {
            "prompt_tokens": field(usage, "input_tokens"),
            "completion_tokens": field(usage, "output_tokens"),
            "prompt_tokens_details": field(usage, "input_tokens_details"),
            "completion_tokens_details": field(usage, "output_tokens_details"),
        },
    }


def _message(response: Any) -> dict[str, Any]:
    texts, refusals, thoughts, calls = list[str](), list[str](), list[str](), list[Any]()
    for item in field(response, "output"):
        kind = field(item, "type")
        for part in [*listed(field(item, "content")), *listed(field(item, "summary"))]:
            text, refusal = field(part, "text"), field(part, "refusal")
            (texts if kind == "message" else thoughts).extend([text] if isinstance(text, str) else [])
            refusals.extend([refusal] if isinstance(refusal, str) else [])
        if kind == "function_call":
            calls.append({"function": {"name": field(item, "name"), "arguments": field(item, "arguments")}})
        elif kind == "custom_tool_call":
            calls.append({"custom": {"name": field(item, "name"), "input": field(item, "input")}})
    said = {"refusal": "".join(refusals) or None, "reasoning": "".join(thoughts) or None, "tool_calls": calls or None}
    return {"role": "assistant", "content": "".join(texts), **{k: v for k, v in said.items() if v is not None}}


class ResponseSearch(Search):
    """One call of `responses.create`."""

    def answer(self, result: Result) -> Response:
        """Return the chosen response, with the usage of all calls."""
        chosen = result.best.output
        if not isinstance(chosen, Response):
            raise ConfigurationError(
                f"{OWNER}: responses.create answers with one of the server's responses, and this strategy put its "
                "answer together from several; use BestOfN, SelfConsistency or Revision, or chat.completions.create"
            )
        usage = result.usage
        details = summed([field(each, "usage") for each in self.recorder.completions])
        total = ResponseUsage.construct(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.tokens,
            **details,
        )
        if result.abstained is not None:
            refusal = ResponseOutputRefusal(type="refusal", refusal=refusal_of(result.abstained))
            message = ResponseOutputMessage(
                id=f"msg-{chosen.id}", content=[refusal], role="assistant", status="completed", type="message"
            )
            return chosen.model_copy(update={"usage": total, "output": [message]})
        return chosen.model_copy(update={"usage": total})

    def chunks(self, answer: Any) -> list[Any]:
        """Return the answer as the events of a stream."""
        return list(events_of(answer))


def responses_search(
    client: Client, models: Models, base: SearchSettings, request: dict[str, Any]
) -> ResponseSearch | None:
    """Return the search for a request of the Responses API; None if it cannot be searched, and goes to the client.

    Raises:
        ConfigurationError: a setting is wrong, or several samples are asked for at temperature 0.
    """
    request, asked = split(request)
    if "model" not in request or "input" not in request or any(request.get(name) for name in UNSEARCHED):
        return None
    settings = base.changed(OWNER, asked)
    check(settings, request)
    items = _items(request["input"])
    kept = {key: value for key, value in request.items() if key not in _OURS}
    metadata = {REQUEST: kept, "input": items, "request": request}
    return ResponseSearch(
        model=models.get(request, settings.price, ResponsesModel),
        problem=Problem(_messages(items, request.get("instructions")), metadata=metadata),
        n=1, with_usage=True, **parts_of(client, models, settings, request, ResponsesModel),
    )  # fmt: skip


def _items(given: Any) -> list[Any]:
    """Return the input as a list of mappings; a bare text is one message of the user."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list | tuple) or not given:
        raise ConfigurationError(f"{OWNER}: input={str(given)[:80]!r} must be a text or a list of items")
    return [g.model_dump(exclude_unset=True, mode="json") if isinstance(g, BaseModel) else g for g in given]


def _messages(items: Sequence[Any], instructions: Any) -> list[dict[str, Any]]:
    """Return the input as chat messages, for verifiers and revisions; other items become text."""
    made: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        content = item.get("content", item.get("text"))
        parts = [{"type": "text", "text": p["text"]} if isinstance(p, Mapping) and "text" in p else p
                 for p in content] if isinstance(content, list) else content  # fmt: skip
        made.append({"role": item.get("role") or "user", "content": str(item) if parts is None else parts})
    return made

"""Requests as problems, results as completions and as streams of chunks. Pure."""

from __future__ import annotations

import functools
import inspect
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from pydantic import BaseModel

from tts_plugins import Candidate, Result, Scored, Usage
from tts_plugins.adapters import signature_of
from tts_plugins.errors import ConfigurationError

Origin = Callable[[Any], tuple[ChatCompletion, Choice] | None]
_PIECE = re.compile(r"\s*\S+\s*|\s+")


def plain_messages(messages: Any) -> list[Any]:
    """Messages as mappings: a conversation goes on with the message objects that the client gave before.

    Raises:
        ConfigurationError: they are no list of messages.
    """
    mend = 'messages is a list such as [{"role": "user", "content": "…"}]'
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise ConfigurationError(
            f"scale(client): messages={_cut(messages)} is of type {type(messages).__name__}; {mend}"
        )
    made = [m.model_dump(exclude_unset=True, mode="json") if isinstance(m, BaseModel) else m for m in messages]
    for i, message in enumerate(made):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ConfigurationError(f"scale(client): messages[{i}]={_cut(message)} has no role; {mend}")
    if not made:
        raise ConfigurationError(f"scale(client): messages={messages!r} is empty; {mend}")
    return made


def _cut(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else text[:79] + "…"


_signature = functools.lru_cache(maxsize=64)(signature_of)  # the client's methods have forty parameters to read


def takes_request(method: Callable[..., Any], request: Mapping[str, Any]) -> bool:
    """Whether a method of the client has parameters for all of a request, and is given all that it needs."""
    signature = _signature(getattr(method, "__func__", method))  # of the function: a bound method is new each time
    try:
        if signature is not None:
            signature.bind(*[method] * inspect.ismethod(method), **request)
    except TypeError:
        return False
    return True


def text_of(message: Any, text: str) -> str:
    """What a message says, for votes and verifiers: its text, and then its tool calls as JSON.

    Two candidates that call the same tools with the same arguments agree.
    """
    calls = [called for call in getattr(message, "tool_calls", None) or () if (called := _called(call)) is not None]
    if (function := getattr(message, "function_call", None)) is not None:
        calls.append({"name": function.name, "args": _arguments(function.arguments)})
    if not calls:
        return text
    made = json.dumps(calls, sort_keys=True, ensure_ascii=False)
    return f"{text}\n\n```json\n{made}\n```" if text.strip() else made


def _called(call: Any) -> dict[str, Any] | None:
    function, custom = getattr(call, "function", None), getattr(call, "custom", None)
    if function is not None:
        return {"name": function.name, "args": _arguments(function.arguments)}
    return None if custom is None else {"name": custom.name, "args": custom.input}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # models write broken JSON at times; it is compared as it stands
        return text


def ranked(result: Result) -> list[Scored]:
    """The candidates, best first: the chosen one, those that say something else, and then those that repeat.

    By score; without scores, by how many gave the same answer.
    """
    votes = [c.vote for c in result.candidates if c.vote is not None]

    def worth(candidate: Scored) -> tuple[float, int, int]:
        score = -1.0 if candidate.score is None else candidate.score
        return (-score, -votes.count(candidate.vote) if candidate.vote is not None else 0, candidate.index)

    others = sorted((c for c in result.candidates if c.id != result.best.id), key=worth)
    first, again, said = [result.best], list[Scored](), {str(result.best.text)}
    for candidate in others:
        (again if candidate.text in said else first).append(candidate)
        said.add(str(candidate.text))
    return first + again


def completion_of(result: Result, origin: Origin, *, n: int, model: str) -> ChatCompletion:
    """The completion that a search answers with: the chosen one's own, with `n` choices and the usage of all calls."""
    chosen = ranked(result)[:n]
    found = origin(chosen[0].output)
    made = [_choice(candidate, i, origin(candidate.output)) for i, candidate in enumerate(chosen)]
    if found is not None:
        return found[0].model_copy(update={"choices": made, "usage": usage_of(result.usage)})
    return ChatCompletion(  # a strategy put it together from several calls
        id=f"chatcmpl-tts-{result.best.id}", choices=made, created=int(time.time()), model=model,
        object="chat.completion", usage=usage_of(result.usage),
    )  # fmt: skip


def _choice(candidate: Candidate, index: int, found: tuple[ChatCompletion, Choice] | None) -> Choice:
    if found is not None:
        return found[1].model_copy(update={"index": index})
    message = ChatCompletionMessage(role="assistant", content=str(candidate.text))
    return Choice(index=index, finish_reason="length" if candidate.truncated else "stop", message=message)


def usage_of(usage: Usage) -> CompletionUsage:
    """The tokens of a whole search, verification included."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, total_tokens=usage.tokens
    )


def chunks_of(completion: ChatCompletion, *, with_usage: bool) -> Iterator[ChatCompletionChunk]:
    """The completion as a server would stream it: the role, the parts, the reason; at last the usage if it is asked."""
    base = {
        "id": completion.id, "created": completion.created, "model": completion.model,
        "object": "chat.completion.chunk", "service_tier": completion.service_tier,
        "system_fingerprint": completion.system_fingerprint,
    }  # fmt: skip
    for choice in completion.choices:
        for part in _parts(choice):
            yield ChatCompletionChunk.model_validate({**base, "choices": [{"index": choice.index, **part}]})
    if with_usage and completion.usage is not None:
        yield ChatCompletionChunk.model_validate({**base, "choices": [], "usage": completion.usage.model_dump()})


def _parts(choice: Choice) -> Iterator[Mapping[str, Any]]:
    message: dict[str, Any] = choice.message.model_dump(exclude_none=True)
    content, calls = message.pop("content", None), message.pop("tool_calls", [])
    yield {"delta": {"role": message.pop("role", "assistant"), **({} if content is None else {"content": ""})}}
    if message:  # reasoning, a refusal, a function call, whatever else the server says
        yield {"delta": message}
    yield from _contents(content, choice)
    if calls:
        yield {"delta": {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]}}
    yield {"delta": {}, "finish_reason": choice.finish_reason}


def _contents(content: str | None, choice: Choice) -> Iterator[Mapping[str, Any]]:
    logprobs: Sequence[Any] = (choice.logprobs.content if choice.logprobs else None) or ()
    if logprobs and "".join(token.token for token in logprobs) == content:
        for token in logprobs:
            yield {"delta": {"content": token.token}, "logprobs": {"content": [token.model_dump()]}}
        return
    pieces = _PIECE.findall(content or "")
    for i, piece in enumerate(pieces):
        whole = {"logprobs": {"content": [token.model_dump() for token in logprobs]}} if logprobs and i == 0 else {}
        yield {"delta": {"content": piece}, **whole}

"""Requests as problems, results as completions and as streams of chunks. Pure."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from openai import BaseModel as OpenAIModel
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from pydantic import BaseModel

from tts_plugins import Abstained, Candidate, Result, Usage
from tts_plugins.adapters import deltas_of, field, fields_of, is_number, signature_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import ranked

Origin = Callable[[Any], tuple[ChatCompletion, Choice] | None]


def plain_messages(messages: Any) -> list[Any]:
    """Return messages as mappings; a conversation may contain message objects that the client returned before.

    Raises:
        ConfigurationError: they are not a list of messages.
    """
    fix = 'messages is a list such as [{"role": "user", "content": "…"}]'
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise ConfigurationError(
            f"scale(client): messages={_cut(messages)} is of type {type(messages).__name__}; {fix}"
        )
    made = [m.model_dump(exclude_unset=True, mode="json") if isinstance(m, BaseModel) else m for m in messages]
    for i, message in enumerate(made):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ConfigurationError(f"scale(client): messages[{i}]={_cut(message)} has no role; {fix}")
    if not made:
        raise ConfigurationError(f"scale(client): messages={messages!r} is empty; {fix}")
    return made


def _cut(value: Any) -> str:
    return text if len(text := repr(value)) <= 80 else text[:79] + "…"


_signature = functools.lru_cache(maxsize=64)(signature_of)  # the client's methods have forty parameters to read


def takes_request(method: Callable[..., Any], request: Mapping[str, Any]) -> bool:
    """Return whether a request fits the parameters of a method of the client."""
    signature = _signature(getattr(method, "__func__", method))  # of the function: a bound method is new each time
    try:
        if signature is not None:
            signature.bind(*[method] * inspect.ismethod(method), **request)
    except TypeError:
        return False
    return True


def completion_of(
    result: Result, origin: Origin, *, n: int, model: str, requests: Sequence[Any] = ()
) -> ChatCompletion:
    """Return the completion of a search: the chosen one's own, with `n` choices and the usage of all calls.

    Args:
        requests: all completions of the search, for the details of their usage.
    """
    chosen = ranked(result.best, result.candidates)[:n]
    found = origin(chosen[0].output)
    made = [_choice(candidate, i, origin(candidate.output)) for i, candidate in enumerate(chosen)]
    if result.abstained is not None:
        made = [_refusal(made[0], refusal_of(result.abstained))]
    usage = usage_of(result.usage, requests)
    if found is not None:
        return found[0].model_copy(update={"choices": made, "usage": usage})
    return ChatCompletion(  # a strategy made it from several calls
        id=f"chatcmpl-tts-{result.best.id}", choices=made, created=int(time.time()), model=model,
        object="chat.completion", usage=usage,
    )  # fmt: skip


def _choice(candidate: Candidate, index: int, found: tuple[ChatCompletion, Choice] | None) -> Choice:
    if found is not None:
        return found[1].model_copy(update={"index": index})
    message = ChatCompletionMessage(role="assistant", content=str(candidate.text))
    return Choice(index=index, finish_reason="length" if candidate.truncated else "stop", message=message)


def refusal_of(abstained: Abstained) -> str:
    """Return what a search says that gives no answer."""
    return f"No answer: {abstained.reason}."


def _refusal(choice: Choice, said: str) -> Choice:
    """Return the choice as a refusal, of the same types: without its text, its tool calls, or what was parsed of it."""
    fields: dict[str, Any] = {"role": "assistant", "content": None, "refusal": said}
    if hasattr(choice.message, "parsed"):
        fields["parsed"] = None
    message = type(choice.message).construct(**fields)
    return choice.model_copy(update={"message": message, "finish_reason": "stop", "logprobs": None, "index": 0})


def usage_of(usage: Usage, requests: Sequence[Any] = ()) -> CompletionUsage:
    """Return the tokens of a whole search, verification included; details are those of the client's own requests."""
    details = summed([field(request, "usage") for request in requests])
    return CompletionUsage.construct(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.tokens,
        **details,
    )


def summed(usages: Sequence[Any]) -> dict[str, Any]:
    """Return the sums of the groups of counts, such as `prompt_tokens_details`."""
    out: dict[str, Any] = {}
    for usage in usages:
        for name, group in fields_of(usage).items():
            if name.endswith("details") and group is not None:
                into = out.setdefault(name, {})
                for each, count in fields_of(group).items():
                    if is_number(count):
                        into[each] = into.get(each, 0) + count
    return out


def chunks_of(completion: ChatCompletion, *, with_usage: bool) -> Iterator[ChatCompletionChunk]:
    """Yield the completion as a server would stream it: the role, the parts, the reason; last the usage, if asked for.

    Chunks are built without validation, as the client does: servers send values that its types do not know.
    """
    names = ("id", "created", "model", "service_tier", "system_fingerprint")
    base = {name: value for name, value in fields_of(completion).items() if name in names and value is not None}
    base["object"] = "chat.completion.chunk"
    for choice in completion.choices:
        for part in deltas_of(plain(choice)):
            yield ChatCompletionChunk.construct(**base, choices=[part])
    if with_usage and completion.usage is not None:
        yield ChatCompletionChunk.construct(**base, choices=[], usage=plain(completion.usage))


def plain(thing: Any) -> Any:
    """Return an object of the client as JSON data, whatever its values are."""
    return thing.to_dict(warnings=False) if isinstance(thing, OpenAIModel) else thing

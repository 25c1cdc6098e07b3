"""A response as the events of a stream, in the order and with the fields of OpenAI's own. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent

from tts_plugins.adapters import field, listed, pieces_of
from tts_plugins_openai._forms import plain

_UNION = get_args(ResponseStreamEvent)[0]
_CLASSES: dict[str, Any] = {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(_UNION)}
Make = Callable[..., Any]


def events_of(response: Response) -> Iterator[Any]:
    """Yield the events, built without validation, as the client does."""
    number = itertools.count()

    def event(kind: str, **fields: Any) -> Any:
        kind = f"response.{kind}"
        return _CLASSES[kind].construct(type=kind, sequence_number=next(number), **fields)

    begun = {**plain(response), "status": "in_progress", "output": [], "usage": None}
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    for index, item in enumerate(response.output):
        yield from _item(plain(item), index, event)
    yield event("incomplete" if response.status == "incomplete" else "completed", response=plain(response))


def _item(item: dict[str, Any], index: int, event: Make) -> Iterator[Any]:
    where: dict[str, Any] = {"output_index": index, "item_id": item.get("id")}
    empty = {**item, "status": "in_progress", **({"content": []} if "content" in item else {})}
    empty |= {"arguments": ""} if "arguments" in item else {}
    yield event("output_item.added", item=empty, output_index=index)
    if item.get("type") == "message":
        for i, part in enumerate(listed(item.get("content"))):
            yield from _part(part, {**where, "content_index": i}, event)
    elif isinstance(arguments := item.get("arguments"), str):
        yield event("function_call_arguments.delta", delta=arguments, **where)
        yield event("function_call_arguments.done", arguments=arguments, name=item.get("name"), **where)
    yield event("output_item.done", item=item, output_index=index)


def _part(part: Any, where: dict[str, Any], event: Make) -> Iterator[Any]:
    refused = field(part, "refusal") is not None
    name, kind = ("refusal", "refusal") if refused else ("text", "output_text")
    pieces: dict[str, Any] = {} if refused else {"logprobs": []}
    whole: dict[str, Any] = {} if refused else {"logprobs": listed(field(part, "logprobs"))}
    yield event("content_part.added", part={**part, name: ""}, **where)
    for piece in pieces_of(field(part, name)):
        yield event(f"{kind}.delta", delta=piece, **where, **pieces)
    yield event(f"{kind}.done", **where, **whole, **{name: field(part, name)})
    yield event("content_part.done", part=part, **where)

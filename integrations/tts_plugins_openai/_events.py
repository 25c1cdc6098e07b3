"""A response as the events of a stream, in the order and with the fields of OpenAI's own. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from openai.types import responses as types
from openai.types.responses import Response

from tts_plugins.adapters import field, listed, pieces_of
from tts_plugins_openai._forms import plain


def events_of(response: Response) -> Iterator[Any]:
    """Yield the events, built without validation, as the client does."""
    number = itertools.count()
    begun = {**plain(response), "status": "in_progress", "output": [], "usage": None}
    yield types.ResponseCreatedEvent.construct(type="response.created", response=begun, sequence_number=next(number))
    yield types.ResponseInProgressEvent.construct(
        type="response.in_progress", response=begun, sequence_number=next(number)
    )
    for index, item in enumerate(response.output):
        yield from _item(plain(item), index, number)
    failed = response.status == "incomplete"
    kind: Any = types.ResponseIncompleteEvent if failed else types.ResponseCompletedEvent
    name = "response.incomplete" if failed else "response.completed"
    yield kind.construct(type=name, response=plain(response), sequence_number=next(number))


def _item(item: dict[str, Any], index: int, number: Iterator[int]) -> Iterator[Any]:
    where: dict[str, Any] = {"output_index": index, "item_id": item.get("id")}
    empty = {**item, "status": "in_progress", **({"content": []} if "content" in item else {})}
    empty |= {"arguments": ""} if "arguments" in item else {}
    yield types.ResponseOutputItemAddedEvent.construct(
        type="response.output_item.added", item=empty, output_index=index, sequence_number=next(number)
    )
    if item.get("type") == "message":
        for i, part in enumerate(listed(item.get("content"))):
            yield from _part(part, {**where, "content_index": i}, number)
    elif isinstance(arguments := item.get("arguments"), str):
        yield types.ResponseFunctionCallArgumentsDeltaEvent.construct(
            type="response.function_call_arguments.delta", delta=arguments, sequence_number=next(number), **where
        )
        yield types.ResponseFunctionCallArgumentsDoneEvent.construct(
            type="response.function_call_arguments.done", arguments=arguments, name=item.get("name"),
            sequence_number=next(number), **where,
        )  # fmt: skip
    yield types.ResponseOutputItemDoneEvent.construct(
        type="response.output_item.done", item=item, output_index=index, sequence_number=next(number)
    )


def _part(part: Any, where: dict[str, Any], number: Iterator[int]) -> Iterator[Any]:
    name = "refusal" if field(part, "refusal") is not None else "text"
    delta, done = (
        (types.ResponseRefusalDeltaEvent, types.ResponseRefusalDoneEvent)
        if name == "refusal"
        else (types.ResponseTextDeltaEvent, types.ResponseTextDoneEvent)
    )
    kind = "response.refusal" if name == "refusal" else "response.output_text"
    more: dict[str, Any] = {} if name == "refusal" else {"logprobs": listed(field(part, "logprobs"))}
    yield types.ResponseContentPartAddedEvent.construct(
        type="response.content_part.added", part={**part, name: ""}, sequence_number=next(number), **where
    )
    for piece in pieces_of(field(part, name)):
        yield delta.construct(
            type=f"{kind}.delta",
            delta=piece,
            sequence_number=next(number),
            **({**where, "logprobs": []} if more else where),
        )
    yield done.construct(
        type=f"{kind}.done", sequence_number=next(number), **{**where, **more, name: field(part, name)}
    )
    yield types.ResponseContentPartDoneEvent.construct(
        type="response.content_part.done", part=part, sequence_number=next(number), **where
    )

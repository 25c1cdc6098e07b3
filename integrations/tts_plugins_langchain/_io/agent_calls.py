"""What an agent asks of its model, and what comes back, as its middleware sees them. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from langchain.agents.middleware import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage

from tts_plugins.adapters import VARIANT
from tts_plugins_langchain._io.values import said_in
from tts_plugins_langchain.caching import candidates_of


@dataclass
class Answered(ModelResponse[Any]):
    """A candidate's response, with the commands of the middlewares behind this one."""

    commands: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, output: Any, commands: list[Any]) -> Self:
        if isinstance(output, ExtendedModelResponse):
            commands = [*commands, *([] if output.command is None else [output.command])]
            output = output.model_response
        if isinstance(output, AIMessage):
            output = ModelResponse(result=[output])
        return cls(result=output.result, structured_response=output.structured_response, commands=commands)


def messages_of(request: ModelRequest[Any]) -> list[AnyMessage]:
    return [*([] if request.system_message is None else [request.system_message]), *request.messages]


def message_of(output: Any) -> AIMessage:
    """The model's message in a response."""
    for message in output.result:
        if isinstance(message, AIMessage):
            return message
    raise ValueError("the response has no message of the model")


def unparsed(output: Any) -> str | None:
    """The error that the agent would show its model: a structured response that did not parse."""
    if output.structured_response is not None:
        return None
    errors = [said_in(message) for message in output.result if isinstance(message, ToolMessage)]
    return "; ".join(errors) or None


def varied_request(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Return the request with the model and the effort that a rung of a ladder asks for."""
    variant = VARIANT.get()
    if variant is None:
        return request
    model = variant.model if isinstance(variant.model, BaseChatModel) else request.model
    settings = {**request.model_settings, **variant.arguments}
    return dataclasses.replace(request, model=candidates_of(model), model_settings=settings)

"""Structured outputs: what the client's `chat.completions.parse` does, for each choice by itself.

The client parses all choices of a completion at once, so that one it cannot read loses them all. Its functions are
called here for one choice at a time. They are private to it: tests hold them at both ends of the supported versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from openai.lib._parsing import parse_chat_completion, type_to_response_format_param, validate_input_tools
from openai.types.chat import ChatCompletion, ParsedChatCompletion

from tts_plugins.adapters import STEPWISE
from tts_plugins.errors import ConfigurationError, MalformedResponse

_OMITTED: Any = getattr(openai, "omit", openai.NOT_GIVEN)  # the clients before 1.108 have the older name only


class Parser:
    """Reads completions as the types that one request asks for.

    Args:
        request: the arguments of `parse`.

    Raises:
        ValueError, TypeError: the client's own, for tools that are not strict, and for a format that is not a type.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._format = request.get("response_format", _OMITTED)
        self._tools = validate_input_tools(list(request["tools"]) if request.get("tools") else _OMITTED)
        sent = type_to_response_format_param(self._format)
        self.request = {key: value for key, value in request.items() if key != "response_format"}
        if isinstance(sent, Mapping):
            self.request["response_format"] = sent
        self._failures: list[tuple[Any, Exception]] = []

    def __call__(self, completion: ChatCompletion) -> ChatCompletion:
        """Return the completion with parsed choices; one that cannot be parsed stays as it is, and `check` raises."""
        choices: list[Any] = []
        for choice in completion.choices or ():
            alone = completion.model_copy(update={"choices": [choice]})
            try:
                read: Any = parse_chat_completion(
                    response_format=self._format, input_tools=self._tools, chat_completion=alone
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, this choice cannot be parsed
                self._failures.append((choice.message, error))
                choices.append(choice)
            else:
                choices.append(read.choices[0])
        parsed: ChatCompletion = ParsedChatCompletion[Any].model_construct(**{**dict(completion), "choices": choices})
        return parsed

    def check(self, message: Any) -> None:
        """Raise if a message could not be parsed.

        Raises:
            MalformedResponse: it could not; the client's error is the `__cause__`.
        """
        for failed, error in self._failures:
            if failed is message:
                name = getattr(self._format, "__name__", "the schema")
                raise MalformedResponse(f"the answer is not a valid {name}: {type(error).__name__}: {error}") from error


def check_parsed(strategy: Any) -> None:
    """Raise if a strategy does not give whole messages, which `parse` needs.

    Raises:
        ConfigurationError: it is a search over steps.
    """
    if isinstance(strategy, STEPWISE):
        raise ConfigurationError(
            f"scale(client): parse reads whole messages, and {type(strategy).__name__} writes texts step by step; use "
            "BestOfN, SelfConsistency or Revision, or `create`"
        )

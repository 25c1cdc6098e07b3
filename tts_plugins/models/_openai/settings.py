"""The settings of a model: check them, and make of them the fields that all of its requests have."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from tts_plugins._internal.config import check_count, check_price
from tts_plugins.errors import ConfigurationError


def request_fields(
    official: bool, max_tokens: int | None, logprobs: bool | int, params: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """Return the fields of each request, those that are set.

    Args:
        official: the server is OpenAI's own, which has another name for `max_tokens`.
        params: the user's further fields, which come last.
    """
    made = {
        **fields,
        "max_completion_tokens" if official else "max_tokens": max_tokens,
        **({"logprobs": True, "top_logprobs": None if logprobs is True else logprobs} if logprobs else {}),
        **params,
    }
    return {key: value for key, value in made.items() if value is not None}


def on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def check_settings(
    who: str,
    model: object,
    temperature: float | None,
    max_tokens: int | None,
    timeout: float,
    batch: int,
    price: tuple[float, float] | None,
    client: object,
) -> None:
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"{who}: model={model!r} must be the server's name for the model")
    if temperature is not None and not 0 <= temperature <= 2:
        raise ConfigurationError(f"{who}: temperature={temperature!r} must be from 0 to 2")
    if max_tokens is not None:
        check_count(who, "max_tokens", max_tokens)
    check_count(who, "batch", batch)
    if not timeout > 0:
        raise ConfigurationError(f"{who}: timeout={timeout!r} must be above 0 seconds")
    if price is not None:
        check_price(who, price)
    if client is not None and not inspect.iscoroutinefunction(getattr(client, "close", None)):
        kind = type(client).__name__
        raise ConfigurationError(f"{who}: client is a {kind}; pass an asynchronous one, such as Async{kind}")

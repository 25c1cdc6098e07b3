"""Where the supported versions of DSPy differ."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

from tts_plugins.errors import MissingExtraError

LOWEST = (3, 0)


def check_version() -> None:
    """Raise unless the installed DSPy is one of those that are supported.

    Raises:
        MissingExtraError: it is older; the message names both versions.
    """
    installed = version("dspy")
    if _numbers(installed) < LOWEST:
        raise MissingExtraError(
            f"tts_plugins_dspy needs dspy {'.'.join(map(str, LOWEST))} or newer, and dspy {installed} is installed; "
            "run pip install --upgrade 'tts-plugins[dspy]'"
        )


def sample_arguments(sample: int, standing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that make it another entry of DSPy's cache, and that no server is sent."""
    if _installed() >= (3, 0, 3):
        return {"rollout_id": sample}
    # LiteLLM keeps it for its own logs, and to DSPy's cache it is a part of the key.
    return {"metadata": {**(standing.get("metadata") or {}), "rollout_id": sample}}


def from_cache(usage: Mapping[str, Any] | None) -> bool:
    """Return whether this usage, or none, is what DSPy tells its usage tracker of an answer from its cache."""
    return usage is None or (not usage and _installed() < (3, 0, 3))


def message_call(lm: Any, messages: Any) -> AbstractContextManager[Any]:
    """Return a context in which DSPy 3.4 takes these messages for an adapter's, and warns of no deprecated use."""
    try:
        from dspy.clients._deprecation import adapter_message_call
    except ImportError:
        return nullcontext()
    made: AbstractContextManager[Any] = adapter_message_call(lm, messages)
    return made


@functools.cache
def _installed() -> tuple[int, ...]:
    return _numbers(version("dspy"))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])

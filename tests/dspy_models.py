"""Real language models of DSPy, in every supported version."""

from __future__ import annotations

import inspect
import json
import sys
from importlib.metadata import version
from typing import Any

import dspy

from tests.imitations import said
from tts_plugins.testing.loopback import LoopbackServer

VERSION = tuple(int(part) for part in dspy.__version__.split(".")[:2])

KEEPS_LOOPS = [int(part) for part in version("litellm").split(".")[:2]] < [1, 80]
"""Whether LiteLLM may keep a loop from ending: its logger is cancelled as the loop ends, goes on, and waits for more.
With 1.76.1, a bare `asyncio.run(litellm.acompletion(…))` does not return."""


def language_model(server: LoopbackServer, name: str = "openai/small", **options: Any) -> Any:
    """A client of the server; its own retries are off."""
    return dspy.LM(name, api_base=server.base_url, api_key="-", **{"max_tokens": 100, "num_retries": 0, **options})


def close(lm: Any) -> None:
    """Close its connections. Before DSPy 3.4, LiteLLM keeps them, by address: another server may get the same one."""
    if hasattr(lm, "close"):
        lm.close()
    elif (litellm := sys.modules.get("litellm")) is not None:
        litellm.in_memory_llm_clients_cache.flush_cache()


async def aclose(lm: Any) -> None:
    """`close`, for a model that was called asynchronously."""
    if hasattr(lm, "aclose"):
        closed = lm.aclose()
        if inspect.isawaitable(closed):
            await closed


def numbered(body: dict[str, Any], index: int) -> str:
    """The number of the request as `answer`, in the form that is asked for."""
    asked = str(body)
    if "<answer>" in asked:
        return f"<answer>{index}</answer>"
    if "[[ ## " not in asked:
        return str(index)
    return json.dumps({"answer": index}) if "JSON" in asked or "Answer in this schema" in asked else said(answer=index)


def program() -> Any:
    """A predictor of a number."""
    return dspy.Predict("question -> answer: int")


def score(prediction: Any) -> tuple[float, str]:
    """The higher the number, the better; the feedback says which one it was."""
    return int(prediction.answer) / 100, f"more than {prediction.answer}"

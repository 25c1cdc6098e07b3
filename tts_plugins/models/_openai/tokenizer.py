"""Whether a server counts all it generates: by its own tokeniser, in llama.cpp's and vLLM's form."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tts_plugins._internal.token_usage import Trust

# The proof only avoids charging the bound, so a server that is slow to answer is not asked again.
_SECONDS = 2.0


async def weigh(trust: Trust, reported: int, client: Any, model: str, texts: Sequence[str]) -> None:
    """Find out, once, whether a server counts all choices of a request, if its count alone does not show it."""
    host = urlsplit(str(client.base_url)).hostname or ""
    if host == "api.openai.com" or host.endswith(".openai.azure.com"):
        trust.proven = True  # as its documentation says: all choices are billed, and counted
        return
    trust.asked = True
    try:
        counts = await count_tokens(client, model, texts)
    except BaseException:
        trust.asked = False  # cancelled: the next one asks
        raise
    if counts is not None:
        trust.saw_counts(reported, counts)


async def count_tokens(client: Any, model: str, texts: Sequence[str]) -> list[int] | None:
    """Return the tokens of each text, without marks of begin and end; None if the server does not tell."""
    post = getattr(client, "post", None)
    if post is None:
        return None
    address = str(client.base_url).rstrip("/").removesuffix("/v1") + "/tokenize"

    async def one(text: str) -> Any:
        # vLLM reads `prompt`, llama.cpp `content`; each leaves the other's fields aside.
        body = {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        return await post(address, cast_to=object, body=body)

    try:
        async with asyncio.timeout(_SECONDS):
            answers = [await one(texts[0])]  # alone: most servers have no such path
            async with asyncio.TaskGroup() as group:
                rest = [group.create_task(one(text)) for text in texts[1:]]
            answers += [task.result() for task in rest]
    except Exception:  # noqa: BLE001 - no tokeniser there, whatever it is that it says instead
        return None
    counts = [_count(answer) for answer in answers]
    return [c for c in counts if c is not None] if None not in counts else None


def _count(answer: Any) -> int | None:
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    return len(tokens) if isinstance(tokens, list) else None

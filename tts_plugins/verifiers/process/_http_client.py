"""POST of JSON to endpoints that no SDK has: one attempt, every failure as the error that says what to do."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tts_plugins._internal.http_errors import retry_after, server_words, shown_address, status_error
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import CallTimedOut, ConnectionFailed, MalformedResponse


async def post_json(
    url: str, body: Mapping[str, Any], *, headers: Mapping[str, str], timeout: float, who: str
) -> dict[str, Any]:
    """The answer's JSON object.

    Raises:
        ModelError: of the kind that says whether to retry and what to charge.
    """
    where = f"{who} at {shown_address(url)}"
    try:
        async with asyncio.timeout(timeout):
            raw = await in_thread(_post, url, json.dumps(body).encode(), dict(headers), timeout)
    except TimeoutError as error:
        raise CallTimedOut(
            f"{who}: no complete answer from {shown_address(url)} within timeout={timeout:g} s"
        ) from error
    except urllib.error.HTTPError as error:
        raise status_error(
            error.code, where, server_words(_read(error), headers), after=retry_after(error.headers or {}, time.time()),
            names="is base_url right, and is it a pooling model (vLLM: --runner pooling)?",
        ) from error  # fmt: skip
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        refused = isinstance(reason, ConnectionRefusedError)
        mend = "; is the server running there?" if refused else ""
        raise ConnectionFailed(f"{where}: {reason!r}{mend}", refused=refused) from error
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedResponse(f"{where}: the answer is no valid JSON: {raw[:80]!r}") from error
    if not isinstance(answer, dict):
        raise MalformedResponse(f"{where}: the answer is a {type(answer).__name__}, no JSON object")
    return answer


def _post(url: str, data: bytes, headers: dict[str, str], timeout: float) -> bytes:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:  # its body is the connection, which is read and closed on this thread
            error.msg = error.read(2000).decode("utf-8", "replace") or error.msg
        raise


def _read(error: urllib.error.HTTPError) -> object:
    """The body of a refusal, as JSON where it is that."""
    raw = str(error.msg)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw

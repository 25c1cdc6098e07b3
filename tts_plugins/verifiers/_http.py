"""POST of JSON to endpoints that no SDK has: one attempt, every failure as the error that says what to do."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tts_plugins._threads import in_thread
from tts_plugins.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConnectionFailed,
    MalformedResponse,
    ModelError,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
)


async def post_json(
    url: str, body: Mapping[str, Any], *, headers: Mapping[str, str], timeout: float, who: str
) -> dict[str, Any]:
    """The answer's JSON object.

    Raises:
        ModelError: of the kind that says whether to retry and what to charge.
    """
    try:
        async with asyncio.timeout(timeout):
            raw = await in_thread(_post, url, json.dumps(body).encode(), dict(headers), timeout)
    except TimeoutError as error:
        raise CallTimedOut(f"{who}: no complete answer from {url} within timeout={timeout:g} s") from error
    except urllib.error.HTTPError as error:
        raise _status(error, f"{who} at {url}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        refused = isinstance(reason, ConnectionRefusedError)
        mend = "; is the server running there?" if refused else ""
        raise ConnectionFailed(f"{who} at {url}: {reason!r}{mend}", refused=refused) from error
    try:
        answer = json.loads(raw)
    except ValueError as error:
        raise MalformedResponse(f"{who} at {url}: the answer is no valid JSON: {raw[:80]!r}") from error
    if not isinstance(answer, dict):
        raise MalformedResponse(f"{who} at {url}: the answer is a {type(answer).__name__}, no JSON object")
    return answer


def _post(url: str, data: bytes, headers: dict[str, str], timeout: float) -> bytes:
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:  # its body is the connection, which is read and closed on this thread
            error.msg = f"{error.msg}: {error.read(2000).decode('utf-8', 'replace')}"
        raise


def _status(error: urllib.error.HTTPError, who: str) -> ModelError:
    status, said = error.code, " ".join(str(error.msg).split())[:300]
    after = error.headers.get("retry-after", "") if error.headers else ""
    wait = float(after) if after.replace(".", "", 1).isdigit() else None
    if status in (401, 403):
        return AuthenticationFailed(f"{who}: {status}, the key is not accepted: {said}; check api_key")
    if status == 404:
        return ModelNotFound(
            f"{who}: 404, no such model or path: {said}; is base_url right, and is it "
            "a pooling model (vLLM: --runner pooling)?"
        )
    if status == 408:
        return CallTimedOut(f"{who}: 408, {said}", retry_after=wait)
    if status == 429:
        return RateLimited(f"{who}: 429, {said}", retry_after=wait)
    if status >= 500:
        return ServerFailed(f"{who}: {status}, {said}", retry_after=wait)
    return RequestRefused(f"{who}: {status}, the request is refused: {said}")

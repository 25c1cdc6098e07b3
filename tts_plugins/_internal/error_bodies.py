"""What a server says went wrong, wherever it is in the body of its answer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tts_plugins._internal.json_bytes import decode
from tts_plugins._internal.values import listed

_NESTS = ("error", "errors", "detail", "details", "fault", "exception", "response")
_TEXTS = ("message", "msg", "detail", "error", "error_description", "error_message", "reason", "title", "errorMessage")
_CODES = ("code", "type", "status", "__type", "error", "error_code", "reason")
_NOTHING = {"", "0", "null", "none", "false", "ok", "success"}
_ANSWERS = {"choices", "data"}
_FIELDS = ("param", "parameter", "field")
# Error codes of OpenAI, Anthropic, Google, AWS, vLLM and gateways that correspond to HTTP statuses.
_STATUS = {
    "insufficient_quota": 402, "payment_required": 402, "billing_hard_limit_reached": 402, "billing_error": 402,
    "insufficient_balance": 402, "invalid_api_key": 401, "authentication_error": 401, "unauthenticated": 401,
    "api_key_invalid": 401, "unauthorized": 401, "authenticationerror": 401, "permission_denied": 403,
    "permission_error": 403, "accessdeniedexception": 403, "model_not_found": 404, "not_found_error": 404,
    "not_found": 404, "notfounderror": 404, "rate_limit_exceeded": 429, "rate_limit_error": 429,
    "resource_exhausted": 429, "too_many_requests": 429, "throttlingexception": 429, "overloaded_error": 529,
    "unavailable": 503, "invalid_request_error": 400, "invalid_argument": 400, "badrequesterror": 400,
    "context_length_exceeded": 400, "unimplemented": 501,
}  # fmt: skip
_OVERFLOW = re.compile(
    r"context.?(length|window|size)|maximum (context|prompt|input) |prompt is too long|input is too long|"
    r"too many (input |prompt )?tokens|exceeds? the (available|model'?s?) context|max_model_len|request too large",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ErrorBody:
    """An error's words and what it names.

    Attributes:
        text: the message, in one line.
        fields: of the request, that it says are wrong.
        wait: how long Google asks to wait, such as "34s".
        status: the HTTP status that its codes mean; None if they mean none.
    """

    text: str = ""
    fields: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    wait: str | None = None

    @property
    def status(self) -> int | None:
        known = [_STATUS[code] for code in self.codes if code in _STATUS]
        for hidden in (402, 401):  # a used-up account hides behind 429, and a wrong key behind 400
            if hidden in known:
                return hidden
        numbers = [int(code) for code in self.codes if code.isdigit() and 400 <= int(code) < 600]
        return next(iter([*numbers, *known]), None)

    @property
    def overflow(self) -> bool:
        """Whether the prompt and the requested completion exceed the model's context."""
        return bool(_OVERFLOW.search(f"{self.text} {' '.join(self.codes)}"))


def read_error(body: object) -> ErrorBody:
    """Return the error of an answer's body: bytes, text, or decoded JSON in any of the forms that servers use."""
    body = decoded(body)
    entries = [entry for entry in _entries(body) if entry]
    texts = list(dict.fromkeys(t for entry in entries if (t := _text(entry))))
    said = "; ".join(texts) or (body if isinstance(body, str) else "" if body in (None, {}, []) else json_of(body))
    return ErrorBody(
        text=" ".join(said.split()),
        fields=tuple(dict.fromkeys(f for entry in entries for f in _fields(entry))),
        codes=tuple(dict.fromkeys(c for entry in entries for c in _codes(entry))),
        wait=next(
            (wait for e in entries if isinstance(e, Mapping) and isinstance(wait := e.get("retryDelay"), str)), None
        ),
    )


def error_in(body: object) -> object:
    """Return the error that an answer with status 200 holds; None if it holds none.

    OpenRouter has one beside the choice that it ends; other gateways have one that says nothing beside each answer.
    """
    if not isinstance(body, Mapping):
        return None
    if body.get("error") and (says_wrong(body["error"]) or not _ANSWERS & body.keys()):
        return body
    if body.get("choices") or listed(body.get("data")):
        return None
    if body.get("errors") or body.get("object") == "error" or body.get("type") == "error":
        return body
    coded = {"code", "status", "param"} & {key for key, value in body.items() if value}
    return body if body.get("detail") or (isinstance(body.get("message"), str) and coded) else None


def says_wrong(error: object, depth: int = 0) -> bool:
    """Return whether what is under the name of an error says that there was one, as `{"code": 0}` does not."""
    if isinstance(error, str):
        return error.strip().lower() not in _NOTHING
    if depth > 6 or not isinstance(error, Mapping | list):
        return bool(error)
    return any(says_wrong(each, depth + 1) for each in (error.values() if isinstance(error, Mapping) else error))


def decoded(body: object) -> object:
    """Return a body as JSON if it is JSON, else as text."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body)
        found = _json_in(body, body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["))
        return body.decode("utf-8", "replace") if found is None else found
    if isinstance(body, str):
        found = _json_in(body, body.lstrip()[:1] in ("{", "["))
        return body if found is None else found
    return body


def _json_in(body: bytes | str, begins: bool) -> object:
    """Return what a text that begins like an object or an array holds; None if it is no JSON."""
    try:
        return decode(body) if begins else None
    except ValueError:
        return None


def json_of(value: object) -> str:
    """Return the value as JSON, or its `repr` if it has no JSON form."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return repr(value)


def _entries(body: object, depth: int = 0) -> Iterator[Any]:
    """Yield the mappings and texts that may hold a message, innermost first."""
    if depth > 6:
        return
    if isinstance(body, list):
        for each in body[:20]:
            yield from _entries(each, depth + 1)
    elif isinstance(body, Mapping):
        for name in _NESTS:
            if isinstance(body.get(name), Mapping | list):
                yield from _entries(body[name], depth + 1)
        if isinstance(body.get("message"), Mapping | list):
            yield from _entries(body["message"], depth + 1)
        yield body
    elif isinstance(body, str):
        yield body


def _text(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    return next((value for name in _TEXTS if isinstance(value := entry.get(name), str) and value.strip()), "")


def _fields(entry: Any) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        return
    for name in _FIELDS:
        if isinstance(value := entry.get(name), str) and value:
            yield re.split(r"[.\[]", value)[0]
    if isinstance(loc := entry.get("loc"), list | tuple):  # FastAPI's
        yield from [part for part in loc if isinstance(part, str) and part not in ("body", "query", "header")][:1]


def _codes(entry: Any) -> Iterator[str]:
    if isinstance(entry, Mapping):
        for name in _CODES:
            value = entry.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) < 60:
                yield str(value).lower()

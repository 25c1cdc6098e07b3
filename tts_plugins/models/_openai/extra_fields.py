"""Fields of a request that decide what it may cost. The model sets them, so that what is reserved holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tts_plugins.errors import ConfigurationError

# llama.cpp reads `n_predict` in place of `max_tokens`, wherever it is.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
_SAMPLES, _ASKED = "the strategy's n says how many samples", "the problem holds what is asked"
_OWNED = {
    "n": _SAMPLES, "n_cmpl": _SAMPLES, "best_of": _SAMPLES, "stream": "give stream=True to the model itself",
    "messages": _ASKED, "prompt": _ASKED, "model": "the model's first argument names it",
}  # fmt: skip


def check_request(owner: str, request: Mapping[str, Any], max_tokens: int | None, *, both: bool = False) -> None:
    """Raise if a setting of all requests would exceed what is reserved for each of them.

    Args:
        both: the limit may be given under both of its names; the larger is what is reserved.

    Raises:
        ConfigurationError: names the field, the value and what to do.
    """
    limits = {name: request[name] for name in _LIMITS if request.get(name) is not None}
    if both and len(limits) > 1 and max(limits.values()) == max_tokens:
        limits = {}
    for name, value in sorted(limits.items(), key=lambda item: item[1] == max_tokens):
        if value != max_tokens or len(limits) > 1:
            raise ConfigurationError(_limit(owner, "params", name, value, max_tokens))
    if max_tokens is not None and not any(request.get(name) is not None for name in _LIMITS):
        raise ConfigurationError(f"{owner}: params takes max_tokens={max_tokens} out of the request; leave it in")
    check_fields(owner, "params", {name: value for name, value in request.items() if name not in _LIMITS}, max_tokens)


def check_fields(owner: str, where: str, fields: Mapping[str, Any], max_tokens: int | None) -> None:
    """Raise if a further field of a request, or of its `extra_body`, would exceed what is reserved.

    Raises:
        ConfigurationError: names the field, the value and what to do.
    """
    body = fields.get("extra_body")
    for place, given in ((where, fields), ("extra_body", body if isinstance(body, Mapping) else {})):
        for name in given:
            if name in _LIMITS:
                raise ConfigurationError(_limit(owner, place, name, given[name], max_tokens))
            if name in _OWNED and given[name] is not None:
                raise ConfigurationError(
                    f"{owner}: {place}={{{name!r}: {repr(given[name])[:60]}}} would cost other than what is reserved; "
                    f"leave it out: {_OWNED[name]}"
                )


def _limit(owner: str, where: str, name: str, value: object, max_tokens: int | None) -> str:
    return (
        f"{owner}: {where}={{{name!r}: {value!r}}} is not what is reserved, max_tokens={max_tokens}; give it as "
        "max_tokens itself, which goes out by the name that the server wants"
    )

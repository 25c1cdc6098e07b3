"""Read a request's body: strict JSON, which every reader on the way understands alike. Pure."""

from __future__ import annotations

import json
from typing import Any

from tts_plugins._internal.json_bytes import NotStrict, finite, once, refuse_constant
from tts_plugins.server.errors import APIError, bad_field

# Below the depth at which copying, checking or showing a request would overrun Python's stack.
_DEEPEST = 128


def read_json(raw: bytes) -> Any:
    """Return the JSON of a request.

    Raises:
        APIError: 400, if it is not valid JSON, is nested too deeply, has a key twice, a number that is not finite, or
            half of a surrogate pair.
    """
    try:
        value = json.loads(raw, parse_constant=refuse_constant, parse_float=finite, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, NotStrict) else ""  # the parser's own words would quote the body
        raise APIError(400, f"The body is not valid JSON{why}.", code="invalid_json") from None
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise APIError(400, f"The body is nested more than {_DEEPEST} levels deep.", code="invalid_json")
    if b"\\u" in raw and isinstance(value, dict):
        _check_text(value)
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= _DEEPEST:
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        depth += 1
    return depth


def _check_text(body: dict[str, Any]) -> None:
    for name, value in body.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            shown = name.encode("ascii", "backslashreplace").decode()
            raise bad_field(shown, "it has half of a surrogate pair, which is no character; send whole ones") from None

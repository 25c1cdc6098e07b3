"""The process in which patterns run, since Python cannot stop one that backtracks. A line of JSON in, a line out."""

from __future__ import annotations

import re
from typing import Any

from tts_plugins.verifiers._limited import last_match
from tts_plugins.verifiers._math_process import answer_lines


def main() -> None:
    """Answer requests until stdin ends.

    A request has `do`: "search" or "last" with `pattern`, `flags` and `text` (the reply has what was `found`, or null);
    or "schema" with a `schema` and a `value`, or a `text` with JSON in it (the reply has the `errors`, or the score).
    """
    answer_lines(_done)


def _done(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "search":
        match = re.compile(request["pattern"], request["flags"]).search(request["text"])
        return {"found": None if match is None else match[0][:200]}
    if request["do"] == "last":
        return {"found": last_match(re.compile(request["pattern"], request["flags"]), request["text"])}
    from tts_plugins.verifiers.checks.json_schema import JSONSchemaVerifier

    verifier = JSONSchemaVerifier(request["schema"])
    if "text" not in request:
        return {"errors": verifier.errors(request["value"])}
    score = verifier.check(request["text"])
    return {"value": score.value, "feedback": score.feedback, "details": dict(score.details)}


if __name__ == "__main__":
    main()

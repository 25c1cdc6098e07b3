"""The process in which math-verify runs: it sets alarms, which only a main thread can. A line in, a line out."""

from __future__ import annotations

import functools
from typing import Any

from tts_plugins.verifiers._math_process import answer_lines


def main() -> None:
    """Answer requests until stdin ends.

    A request has `gold` and `answer`, two formulas; `both` where they have to be equal in both orders; and perhaps
    `text`, in which an answer is looked for by math-verify itself, which then says what it `said`.
    """
    from math_verify import parse, verify

    answer_lines(functools.partial(_compared, parse, verify))


def _compared(parse: Any, verify: Any, request: dict[str, Any]) -> dict[str, object]:
    gold, answer = (parse(f"${request[name]}$") or parse(request[name]) for name in ("gold", "answer"))
    equal = bool(gold and answer and verify(gold, answer))
    if request.get("both") is not None:
        back = bool(gold and answer and verify(answer, gold))
        equal = (equal and back) if request["both"] else (equal or back)
    reply: dict[str, object] = {"equal": equal, "read": bool(answer), "gold": bool(gold)}
    if request.get("text"):
        whole, known = parse(request["text"]), parse(request["whole_gold"]) or gold
        reply["whole"] = bool(whole and known and verify(known, whole))
        reply["said"] = next((part for part in reversed(whole) if isinstance(part, str)), "")
    return reply


if __name__ == "__main__":
    main()

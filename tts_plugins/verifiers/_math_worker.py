"""The process in which math-verify runs: it sets alarms, which only a main thread can. A line in, a line out."""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Answer requests until stdin ends."""
    from math_verify import parse, verify

    out = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may pass for an answer
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            gold, answer = (_parsed(parse, request[name]) for name in ("gold", "answer"))
            reply: dict[str, object] = {
                "equal": bool(gold and answer and verify(gold, answer)),
                "read": bool(answer),
                "gold": bool(gold),
            }
        except Exception as error:  # noqa: BLE001 - the parser meets whatever a model wrote
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        out.write(json.dumps(reply) + "\n")
        out.flush()


def _parsed(parse: object, text: str) -> object:
    assert callable(parse)
    return parse(f"${text}$") or parse(text)


if __name__ == "__main__":
    main()

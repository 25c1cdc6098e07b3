"""Messages sorted to a desk by votes; what the votes disagree on is left to a person.

    pip install 'tts-plugins[local]'
    python examples/classification_with_abstention.py                      # the embedded model, fetched once (93 MB)
    python examples/classification_with_abstention.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b

0.7 is an example: `tts-plugins calibrate` finds the threshold for your own messages (docs/abstention.md).
"""

import argparse

from tts_plugins import Budget, SelfConsistency, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel

DESKS = ("billing", "delivery", "returns")
SHOTS = [
    ("I was charged twice this month.", "billing"),
    ("My parcel has not come yet.", "delivery"),
    ("I want to send these shoes back.", "returns"),
    ("There is a fee on my invoice that I do not know.", "billing"),
    ("The courier left the box in the rain.", "delivery"),
    ("How do I return a gift?", "returns"),
]
MESSAGES = ["The payment was taken from my card twice.", "Where is my parcel?", "Red is nicer than blue."]


def desk(text: str) -> str | None:
    """Return the desk that a reply names, or None, which is no vote."""
    named = [name for name in DESKS if name in text.lower()]
    return named[0] if len(named) == 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    settings, url = {"max_tokens": 6, "temperature": 0.8}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    shots = [{"role": r, "content": t} for shot in SHOTS for r, t in zip(("user", "assistant"), shot, strict=True)]
    system = {"role": "system", "content": f"Name the desk for the message in one word: {', '.join(DESKS)}."}
    for message in MESSAGES:
        result = solve_sync(
            [system, *shots, {"role": "user", "content": message}],
            model=model,
            strategy=SelfConsistency(n=given.n),
            answer=desk,
            budget=Budget(calls=given.n, tokens=8_000),
            abstain_below=0.7,
            seed=0,
        )
        print(f"{message} -> {result.answer or 'a person: ' + result.abstained.reason}")


if __name__ == "__main__":
    main()

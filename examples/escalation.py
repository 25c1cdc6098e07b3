"""Votes of a small model, and a larger one for the questions on which they disagree.

    pip install 'tts-plugins[local]'
    python examples/escalation.py                      # the embedded model, fetched once (93 MB)
    python examples/escalation.py --base-url http://127.0.0.1:8000/v1 --model qwen3-1.7b --larger qwen3-8b

Without a server there is no larger model than the embedded one: it is asked for more votes instead.
"""

import argparse

from tts_plugins import Budget, Escalation, SelfConsistency, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel

SHOTS = [
    ("What is the capital of Italy?", "The answer is Rome."),
    ("What colour is grass?", "The answer is green."),
    ("How many legs has a spider?", "The answer is 8."),
]
QUESTIONS = ["What is the capital of France?", "What is the capital of Burkina Faso?"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=6)
    parser.add_argument("--larger", default="qwen3-8b", help="the model of the server for what is unsure")
    given = parser.parse_args()
    settings, url = {"max_tokens": 16, "temperature": 0.7}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    larger = OpenAICompatibleModel(given.larger, base_url=url, max_tokens=64) if url else None
    escalation = Escalation(model=larger, strategy=None if larger else SelfConsistency(n=3 * given.n))
    shots = [{"role": r, "content": t} for shot in SHOTS for r, t in zip(("user", "assistant"), shot, strict=True)]
    for question in QUESTIONS:
        result = solve_sync(
            [*shots, {"role": "user", "content": question}],
            model=model,
            strategy=SelfConsistency(n=given.n),
            budget=Budget(calls=4 * given.n, tokens=20_000),  # both models are paid from it
            abstain_below=0.6,
            on_abstain="escalate",
            escalate=escalation,
            seed=0,
        )
        by = "escalated" if result.escalated else f"{result.confidence:.0%} of the votes"
        print(f"{question} {result.answer or result.abstained.reason} ({by}, {result.usage.calls} calls)")


if __name__ == "__main__":
    main()

"""Sums answered by the majority of several tries, and no more tries than it takes to see one.

pip install 'tts-plugins[local]'
python examples/maths_with_votes.py                      # the embedded model, fetched once (93 MB)
python examples/maths_with_votes.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse

from tts_plugins import Budget, Ledger, SelfConsistency, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel

SHOTS = [
    ("Ann has 5 pens and buys 3 more. How many pens does she have?", "5 + 3 = 8. The answer is 8."),
    ("A box holds 6 eggs. How many eggs are in 4 boxes?", "6 * 4 = 24. The answer is 24."),
    ("Tom has 12 plums and eats 5. How many are left?", "12 - 5 = 7. The answer is 7."),
]
SUMS = {
    "Mia has 9 marbles and finds 4 more. How many marbles does she have?": "13",
    "There are 5 bags with 3 apples each. How many apples are there?": "15",
    "A shop had 20 cups and sold 8. How many are left?": "12",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=12)
    given = parser.parse_args()
    settings, url = {"max_tokens": 40, "temperature": 0.7}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    shots = [{"role": r, "content": t} for shot in SHOTS for r, t in zip(("user", "assistant"), shot, strict=True)]
    account = Ledger(Budget(calls=given.n * len(SUMS), tokens=30_000))  # for all the sums together
    right = 0
    for question, known in SUMS.items():
        result = solve_sync(
            [*shots, {"role": "user", "content": question}],
            model=model,
            strategy=SelfConsistency(n=given.n, wave=4, stop="balanced"),  # it stops where the majority is plain
            budget=account,
            seed=0,
        )
        right += result.answer == known
        votes = sorted(str(candidate.answer) for candidate in result.candidates)
        print(f"{question} {result.answer} (known: {known}; votes: {' '.join(votes)}; {result.stopped})")
    print(f"{right} of {len(SUMS)} right, {account.spent.calls} calls, {account.spent.tokens} tokens")


if __name__ == "__main__":
    main()

"""A function that passes its tests: every candidate is run in a sandbox (Linux).

pip install 'tts-plugins[local]'
python examples/code_with_tests.py                      # the embedded model, fetched once (93 MB)
python examples/code_with_tests.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse

from tts_plugins import BestOfN, Budget, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.stopping import Threshold
from tts_plugins.verifiers import CodeTests

TASK = "Write a Python function count_vowels(text) that returns the number of vowels in a text, in either case."
TESTS = [
    'assert count_vowels("banana") == 3',
    'assert count_vowels("") == 0',
    'assert count_vowels("rhythm") == 0',
    'assert count_vowels("AEIOU") == 5',
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    settings, url = {"max_tokens": 120, "temperature": 0.7}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    with CodeTests(TESTS) as tests:
        result = solve_sync(
            TASK,
            model=model,
            strategy=BestOfN(n=given.n, stop=Threshold(1.0), wave=4),  # the first that passes all tests is enough
            verifier=tests,
            budget=Budget(calls=given.n, tokens=8_000),
            seed=0,
        )
    for candidate in result.candidates:
        print(f"{candidate.score:.2f}  {candidate.feedback or 'passes every test'}")
    print(result.text)
    print(f"score {result.score:.2f}, {result.usage.calls} calls, {result.usage.tokens} tokens, {result.stopped}")


if __name__ == "__main__":
    main()

"""An answer from retrieved text: the one whose sentences the text supports is chosen.

    pip install 'tts-plugins[local]'
    python examples/rag_grounded.py                      # the embedded model, fetched once (93 MB)
    python examples/rag_grounded.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b

The embedded model is no judge: there, each sentence of an answer has to be near to one of the context by its vector.
"""

import argparse

from tts_plugins import BestOfN, Budget, Problem, solve_sync
from tts_plugins.models import LocalEmbeddingModel, LocalModel, OpenAICompatibleModel
from tts_plugins.verifiers import preset

PAGES = {
    "bridge": "The new bridge in Ghent opened on Monday. It is for bicycles only. It took three years to build.",
    "tram": "The tram to the airport runs every ten minutes. A ticket costs two euros.",
}
QUESTION = "How long did it take to build the bridge?"


def retrieved(question: str) -> str:
    """Stand for your retriever: return the pages whose subject is in the question."""
    return " ".join(page for subject, page in PAGES.items() if subject in question)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=6)
    given = parser.parse_args()
    settings, url = {"max_tokens": 48, "temperature": 0.8}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    judge = (
        OpenAICompatibleModel(given.model, base_url=url, max_tokens=400) if url else LocalEmbeddingModel(pooling="mean")
    )
    context = retrieved(QUESTION)
    result = solve_sync(
        Problem(f"{context}\n\nAnswer from this text, in one sentence. {QUESTION}", metadata={"context": context}),
        model=model,
        strategy=BestOfN(n=given.n),
        verifier=preset("grounded", model=judge, threshold=0.9),
        budget=Budget(calls=3 * given.n, tokens=40_000),  # a judge's calls are paid from it too
        seed=0,
    )
    for candidate in result.candidates:
        print(f"{candidate.score:.2f}  {' '.join(candidate.text.split())[:80]}  {candidate.feedback}")
    print(f"answer: {result.text} (score {result.score:.2f})")


if __name__ == "__main__":
    main()

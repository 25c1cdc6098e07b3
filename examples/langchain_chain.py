"""A LangChain chain, asked once and asked eight times, under a hard budget.

pip install 'tts-plugins[langchain,local]' langchain-openai
python examples/langchain_chain.py                      # the embedded model, fetched once (93 MB)
python examples/langchain_chain.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse
import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import scale

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel
from tts_plugins.stopping import Threshold

SYSTEM = "You write product slogans. Reply with the slogan alone."
PROMPT = ChatPromptTemplate([("system", SYSTEM), ("human", "For {product}, in at most {words} words, that names it.")])


def fits(problem, candidate):
    """Return the share of the rules that a slogan keeps, and which it breaks."""
    asked, text = problem.content, candidate.output.strip()
    rules = {
        "too long": len(text.split()) <= asked["words"],
        "does not name the product": asked["product"].lower() in text.lower(),
        "more than one line": "\n" not in text,
        "in quotation marks": not text.startswith(("'", '"', "\u201c")),
    }
    broken = [what for what, kept in rules.items() if not kept]
    return 1 - len(broken) / len(rules), "; ".join(broken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    local = None if given.base_url else LocalModel()
    url, key = given.base_url or local.base_url, os.environ.get("OPENAI_API_KEY", "-")
    model = ChatOpenAI(model=given.model, base_url=url, api_key=key, temperature=0.9, max_tokens=40, max_retries=0)
    chain = PROMPT | model | StrOutputParser()
    asked = {"product": "Kestrel", "words": 8}
    print("asked once:   ", chain.invoke(asked).strip().replace("\n", " / "))

    strategy = BestOfN(n=given.n, stop=Threshold(1.0))  # the first that keeps every rule is enough
    scaled = scale(chain, strategy=strategy, verifier=fits, budget=Budget(calls=given.n, tokens=4_000), seed=0)
    result = scaled.solve(asked)  # scaled.invoke(asked) gives the text alone
    print(f"best of {len(result.candidates)}:    ", result.output.strip().replace("\n", " / "))
    print(f"score {result.score:.2f}, {result.usage.calls} calls, {result.usage.tokens} tokens, {result.stopped}")
    print(result.trace.tree())


if __name__ == "__main__":
    main()

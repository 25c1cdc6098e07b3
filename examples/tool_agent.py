"""An agent that proposes each of its tool calls several times; a judge that sees the tools chooses.

    pip install 'tts-plugins[langchain,local]' langchain-openai
    python examples/tool_agent.py                      # the embedded model, fetched once (93 MB)
    python examples/tool_agent.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b

The embedded model is too small to call tools well, or to judge: with it, this shows the search and the budget only.
"""

import argparse
import os

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import TestTimeScaling

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.verifiers import preset


def price_of(item: str) -> int:
    """The price of one item on the menu, in euros: tea, coffee or cake."""
    return {"tea": 3, "coffee": 4, "cake": 6}.get(item, 0)


def opening_hours(day: str) -> str:
    """The hours of one day of the week."""
    return "closed" if day == "Monday" else "8 to 18"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=3)
    given = parser.parse_args()
    local = None if given.base_url else LocalModel()
    url, key = given.base_url or local.base_url, os.environ.get("OPENAI_API_KEY", "-")
    model = ChatOpenAI(model=given.model, base_url=url, api_key=key, temperature=0.8, max_tokens=64, max_retries=0)
    judge = OpenAICompatibleModel(given.model, base_url=url, api_key=key, max_tokens=150)
    scaling = TestTimeScaling(
        strategy=BestOfN(n=given.n),
        verifier=preset("tool-call", model=judge),  # can the call be made, and is it the right one?
        budget=Budget(calls=12 * given.n),  # for all turns together, the judge's calls included
        when_exhausted="end",
    )
    agent = create_agent(model, [price_of, opening_hours], middleware=[scaling], system_prompt="Look things up.")
    state = agent.invoke({"messages": [("human", "What does a coffee cost?")]}, {"recursion_limit": 12})
    for message in state["messages"]:
        print(f"{message.type:>6}: {message.text or getattr(message, 'tool_calls', '')}")
        if search := message.response_metadata.get("tts"):
            print(f"        one of {search.get('candidates', 0)} candidates ({search['stopped']})")
    print("spent:", state["tts_spent"]["TestTimeScaling"])


if __name__ == "__main__":
    main()

"""An agent that votes on each of its tool calls, within one budget for the whole run.

    pip install 'tts-plugins[langchain,local]'
    python examples/langgraph_agent.py                      # the embedded model, fetched once (93 MB)
    python examples/langgraph_agent.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b

The embedded model is too small to call tools well; with it, this shows the votes and the budget, and no wisdom.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import TestTimeScaling

from tts_plugins import Budget, SelfConsistency
from tts_plugins.models import LocalModel

PRICES = {"tea": 3, "coffee": 4, "cake": 6}


def price_of(item: str) -> int:
    """The price of one item on the menu, in euros: tea, coffee or cake."""
    return PRICES.get(item.lower(), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("--api-key", default="-")
    parser.add_argument("-n", type=int, default=4)
    given = parser.parse_args()
    with server(given.base_url) as base_url:
        model = ChatOpenAI(
            model=given.model, base_url=base_url, api_key=given.api_key, temperature=0.8, max_tokens=96, max_retries=0
        )
        scaling = TestTimeScaling(
            strategy=SelfConsistency(n=given.n),  # tool calls vote by name and arguments
            budget=Budget(calls=4 * given.n),  # for all turns together
            when_exhausted="end",
        )
        agent = create_agent(model, [price_of], middleware=[scaling], system_prompt="Look prices up. Be brief.")
        state = agent.invoke({"messages": [("human", "What does a coffee cost?")]}, {"recursion_limit": 20})
        for message in state["messages"]:
            print(f"{message.type:>6}: {message.text or getattr(message, 'tool_calls', '')}")
            if isinstance(message, AIMessage) and "tts" in message.response_metadata:
                search = message.response_metadata["tts"]
                print(f"        one of {search.get('candidates', 0)} candidates ({search['stopped']})")
        print("spent:", state["tts_spent"]["TestTimeScaling"])


@contextmanager
def server(base_url: str | None) -> Iterator[str]:
    """An address to talk to: the given one, or the embedded model's own."""
    if base_url is not None:
        yield base_url
    else:
        with LocalModel(slots=4) as local:
            yield local.base_url


if __name__ == "__main__":
    main()

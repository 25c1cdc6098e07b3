"""An OpenAI client, asked once and then scaled: an invoice's figures, checked before they are believed.

pip install 'tts-plugins[local]'
python examples/openai_client.py                      # the embedded model, fetched once (93 MB)
python examples/openai_client.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse
import json
import os

from openai import OpenAI
from tts_plugins_openai import result_of, scale

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel
from tts_plugins.stopping import Threshold

SYSTEM = 'Reply with JSON alone: {"seller": name, "count": number, "each": euros, "total": euros}'
TEXT = "Invoice from Kestrel Ltd: 3 lamps at 20 euros each, 60 euros in total."
ASK = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "Invoice from Brook & Sons: 4 chairs at 25 euros each, 100 euros in total."},
    {"role": "assistant", "content": '{"seller": "Brook & Sons", "count": 4, "each": 25, "total": 100}'},
    {"role": "user", "content": "Invoice from Alder GmbH: 2 desks at 90 euros each, 180 euros in total."},
    {"role": "assistant", "content": '{"seller": "Alder GmbH", "count": 2, "each": 90, "total": 180}'},
    {"role": "user", "content": TEXT},
]


def plausible(message):
    """Return the share of the checks that an extraction passes: nothing that needs the right answer."""
    try:
        data = json.loads(message.content)
        seller, count, each, total = (data[key] for key in ("seller", "count", "each", "total"))
        return [len(data) == 4, seller in TEXT, str(total) in TEXT.split(), count * each == total].count(True) / 4
    except (KeyError, TypeError, ValueError):
        return 0.0, "it is not JSON with these fields"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=16)
    given = parser.parse_args()
    local = None if given.base_url else LocalModel()
    url, key = given.base_url or local.base_url, os.environ.get("OPENAI_API_KEY", "-")
    request = {"model": given.model, "messages": ASK, "temperature": 0.8, "max_tokens": 60}
    with OpenAI(base_url=url, api_key=key) as client:
        once = client.chat.completions.create(**request, seed=1).choices[0].message
        print("asked once:  ", " ".join(str(once.content).split()), plausible(once))
        strategy, budget = BestOfN(n=given.n, stop=Threshold(1.0)), Budget(calls=given.n, tokens=8_000)
        scaled = scale(client, strategy=strategy, verifier=plausible, budget=budget, seed=1)
        result = result_of(scaled.chat.completions.create(**request))
    print(f"best of {len(result.candidates)}:   ", " ".join(result.text.split()), f"{result.score:.2f}", result.stopped)


if __name__ == "__main__":
    main()

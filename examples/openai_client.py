"""An OpenAI client, asked once and then scaled: structured data out of a sentence, checked before it is believed.

pip install 'tts-plugins[local]'
python examples/openai_client.py                      # the embedded model, fetched once (93 MB)
python examples/openai_client.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b

Measured on the embedded model with --seed 0 to 11: asked once, 3 of 12 answers pass every check (95 % Wilson interval
9 to 53 %); the best of up to 16, 9 of 12 (47 to 91 %), at 10.8 calls and 1,312 tokens on average; seven seeds gained,
one lost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager

from openai import OpenAI
from tts_plugins_openai import result_of, scale

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel
from tts_plugins.stopping import Threshold

TEXT = "Invoice from Kestrel Ltd: 3 lamps at 20 euros each, 60 euros in total."
ASK = [
    {
        "role": "system",
        "content": 'Reply with JSON alone: {"seller": name, "count": number, "each": euros, "total": euros}',
    },
    {"role": "user", "content": "Invoice from Brook & Sons: 4 chairs at 25 euros each, 100 euros in total."},
    {"role": "assistant", "content": '{"seller": "Brook & Sons", "count": 4, "each": 25, "total": 100}'},
    {"role": "user", "content": "Invoice from Alder GmbH: 2 desks at 90 euros each, 180 euros in total."},
    {"role": "assistant", "content": '{"seller": "Alder GmbH", "count": 2, "each": 90, "total": 180}'},
    {"role": "user", "content": TEXT},
]


def plausible(message) -> tuple[float, str]:
    """The share of the checks that an extraction passes, and which it fails: nothing that needs the right answer."""
    try:
        data = json.loads(message.content)
    except (TypeError, ValueError):
        return 0.0, "it is not JSON"
    if not isinstance(data, dict):
        return 0.0, "it is not JSON object"
    count, each, total = (data.get(name) for name in ("count", "each", "total"))
    checks = {
        "other fields": set(data) == {"seller", "count", "each", "total"},
        "a seller that is not in the text": str(data.get("seller", "?")) in TEXT,
        "a total that is not in the text": str(total) in TEXT.split(),
        "the total is not count times each": isinstance(count, int) and isinstance(each, int) and count * each == total,
    }
    failed = [what for what, passed in checks.items() if not passed]
    return 1 - len(failed) / len(checks), "; ".join(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("--api-key", default="-")
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with server(given.base_url) as base_url, OpenAI(base_url=base_url, api_key=given.api_key) as client:
        request = {"model": given.model, "messages": ASK, "temperature": 0.8, "max_tokens": 60}
        once = client.chat.completions.create(**request, seed=given.seed).choices[0].message
        print("asked once:  ", " ".join(str(once.content).split()), plausible(once))

        scaled = scale(
            client,
            strategy=BestOfN(n=given.n, stop=Threshold(1.0)),  # the first that passes every check is enough
            verifier=plausible,
            budget=Budget(calls=given.n, tokens=8_000),
            seed=given.seed,
        )
        completion = scaled.chat.completions.create(**request)
        result = result_of(completion)
        print(f"best of {len(result.candidates)}:   ", " ".join(str(completion.choices[0].message.content).split()))
        usage = completion.usage
        print(f"score {result.score:.2f}, {result.usage.calls} calls, {usage.total_tokens} tokens, {result.stopped}")
        print(result.trace.tree())


@contextmanager
def server(base_url: str | None) -> Iterator[str]:
    """An address to talk to: the given one, or the embedded model's own."""
    if base_url is not None:
        yield base_url
    else:
        with LocalModel() as local:
            yield local.base_url


if __name__ == "__main__":
    main()

"""An order out of a message, on a small machine: a schema and the message itself check each record.

pip install 'tts-plugins[local,schema]'
python examples/extraction_at_the_edge.py                      # the embedded model, fetched once (93 MB)
python examples/extraction_at_the_edge.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse
import json

from tts_plugins import BestOfN, Budget, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.stopping import Threshold
from tts_plugins.verifiers import CallableVerifier, Veto, preset

MESSAGE = "Good morning, this is Marta Lindqvist. Please send 4 desk lamps on 3 May 2026, reference QL-2210."
SCHEMA = {
    "type": "object",
    "required": ["name", "item", "quantity"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "item": {"type": "string"}, "quantity": {"type": "integer"}},
}
ASK = [
    {"role": "system", "content": "Copy the record out of the message as JSON with the keys name, item, quantity."},
    {"role": "user", "content": "Peter Hale here: please bring 5 wooden stools to Denver, reference AB-1234."},
    {"role": "assistant", "content": '{"name": "Peter Hale", "item": "wooden stools", "quantity": 5}'},
    {"role": "user", "content": MESSAGE},
]


def stands_in_the_message(problem, candidate):
    """Return the share of the values that stand in the message, and the names of the others."""
    record = json.loads(candidate.text)
    missing = [key for key, value in record.items() if str(value) not in MESSAGE]
    return 1 - len(missing) / len(record), ", ".join(missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=16)
    given = parser.parse_args()
    settings, url = {"max_tokens": 48, "temperature": 0.8}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    result = solve_sync(
        ASK,
        model=model,
        strategy=BestOfN(n=given.n, stop=Threshold(1.0), wave=4),  # the first record that passes is enough
        verifier=Veto(CallableVerifier(stands_in_the_message), by=preset("json-schema", SCHEMA), below=1.0),
        budget=Budget(calls=given.n, tokens=8_000),
        abstain_below=0.99,  # a record with a value from elsewhere is for a larger model, or for a person
        seed=0,
    )
    print("record:", result.text or result.abstained.reason)
    print(f"score {result.best.score:.2f}, {result.usage.calls} calls, {result.stopped}")


if __name__ == "__main__":
    main()

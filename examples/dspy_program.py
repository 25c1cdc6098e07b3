"""A DSPy program, asked once and then scaled: a metric without answers picks the best of several predictions.

pip install 'tts-plugins[dspy,local]'
python examples/dspy_program.py                      # the embedded model, fetched once (93 MB)
python examples/dspy_program.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse
import os

import dspy
from tts_plugins_dspy import Scaled

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel
from tts_plugins.stopping import Threshold

NEWS = "The city of Ghent opened a bridge for bicycles over the Leie on Monday, after three years of work."
SETTINGS = {"temperature": 0.9, "max_tokens": 60, "num_retries": 0, "cache": False}


class Plain(dspy.Adapter):
    """For models too small for DSPy's own formats: the whole reply is the one output field."""

    def format(self, signature, demos, inputs):
        asked = "\n".join(f"{name}: {value}" for name, value in inputs.items())
        return [{"role": "system", "content": signature.instructions}, {"role": "user", "content": asked}]

    def parse(self, signature, completion):
        return dict.fromkeys(signature.output_fields, completion.strip().strip('"'))


def fits(example, prediction, trace=None):
    """Return the share of the rules that a headline keeps, and which it breaks."""
    text = prediction.headline
    rules = {"too long": len(text.split()) <= 7, "no city": "Ghent" in text, "no subject": "bridge" in text.lower()}
    broken = [what for what, kept in rules.items() if not kept]
    return dspy.Prediction(score=1 - len(broken) / len(rules), feedback="; ".join(broken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    local = None if given.base_url else LocalModel()
    url, key = given.base_url or local.base_url, os.environ.get("OPENAI_API_KEY", "-")
    dspy.configure(lm=dspy.LM(f"openai/{given.model}", api_base=url, api_key=key, **SETTINGS), adapter=Plain())
    program = dspy.Predict(dspy.Signature("news -> headline", "Write a headline for the news, in at most seven words."))
    print("asked once: ", program(news=NEWS).headline)

    strategy = BestOfN(n=given.n, stop=Threshold(1.0))  # the first that keeps every rule is enough
    scaled = Scaled(program, strategy=strategy, verifier=fits, budget=Budget(calls=given.n, tokens=8_000))
    result = scaled.solve(news=NEWS)  # scaled(news=NEWS) gives the prediction alone
    print(f"best of {len(result.candidates)}: ", result.output.headline, f"{result.score:.2f}", result.stopped)


if __name__ == "__main__":
    main()
